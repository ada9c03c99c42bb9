internal import Glibc
internal import TurntableCore
internal import TurntableLinux

/// The right to move a machine, to here or from here: one living process at a time has it. The kernel takes it back when that
/// process ends, however suddenly. A lock on the machine's directory, so that no file is needed and none is left.
final class MachineLock: Sendable {
    private let directory: Descriptor

    /// Nil if another process has it.
    /// - Parameter path: the machine's directory.
    init?(_ path: String) throws(TurntableError) {
        let what = "locking \(path)"
        let directory = try Descriptor.open(path, .read, what: what)
        // Who only looks whether it is taken holds it for an instant.
        for attempt in 0..<5 {
            if attempt > 0 { Clock.sleep(.milliseconds(10)) }
            if flock(directory.rawValue, LOCK_EX | LOCK_NB) == 0 {
                self.directory = directory
                return
            }
            guard errno == EWOULDBLOCK || errno == EINTR else { throw TurntableError(.unsupported, what, errorText(errno)) }
        }
        return nil
    }

    /// Whether a living process has it.
    static func isTaken(_ path: String) -> Bool {
        guard let directory = try? Descriptor.open(path, .read, what: path) else { return false }
        return flock(directory.rawValue, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK
    }
}

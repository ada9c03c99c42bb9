internal import Glibc
public import TurntableCore
internal import TurntableLinux

/// Held while a domain is moved from here, by every process that may still hand it off: libxl and its helper inherit it. Who
/// gets it knows that none of them lives.
public struct MoveLock: ~Copyable {
    private let file: Descriptor
    /// For programs that are to hold it as well.
    public var descriptor: Int32 { file.rawValue }

    /// - Parameter machine: a domain's UUID.
    public init(of machine: String, in directory: String, within limit: Nanoseconds) throws(TurntableError) {
        let path = "\(directory)/\(machine).lock"
        let opened = try Descriptor.open(path, .append, what: "opening \(path)")
        let deadline = Clock.now + limit
        while flock(opened.rawValue, LOCK_EX | LOCK_NB) < 0 {
            guard errno == EWOULDBLOCK || errno == EINTR else { throw TurntableError(.unsupported, "locking \(path)", errorText(errno)) }
            guard Clock.now < deadline else {
                throw TurntableError(
                    .refused, "locking \(path)", "a process of an earlier move still lives after \(limit)",
                    remedy: "let it end: `turntable-xen-helper` or `turntable xen migrate`")
            }
            Clock.sleep(Limits.pollTime)
        }
        file = opened
    }
}

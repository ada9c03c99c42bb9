internal import CTurntableBlock
internal import Glibc
internal import TurntableCore
internal import TurntableLinux

/// Who may have a sink's target open besides: only other sinks are never among them.
public enum SinkUsers: Sendable {
    case none
    /// The block backend of a domain that waits for the disk.
    case one
    /// An emulator that waits for it.
    case any
}

/// Opens what a disk is copied to, or says why it should not be written.
enum SinkTarget {
    /// Of the target's beginning and end that must be zero. Signatures are there: file systems' within the first 128 KiB,
    /// partition tables' and RAID's at the end.
    private static let signatureBytes = 1 << 20

    static func open(_ path: String, size: ByteCount, sharing users: SinkUsers) throws(TurntableError) -> DirectFile {
        let what = what(path, size)
        try makeFile(path, size)
        // A device in use gives an error here if the kernel knows of it.
        let file = try DirectFile(path, forWriting: true, exclusively: true, diskSize: size)
        guard file.size >= size else {
            throw TurntableError(.refused, what, "it has \(file.size)", remedy: "extend it, or choose another target")
        }
        if try staysInUse(file, users) {
            throw TurntableError(.refused, what, "somebody uses it", remedy: "stop what has it open, or choose another target")
        }
        return file
    }

    static func checkEmpty(_ file: DirectFile, size: ByteCount) throws(TurntableError) {
        guard let found = try firstContent(of: file) else { return }
        throw TurntableError(
            .refused, what(file.path, size), "it holds something at byte \(found)",
            remedy: "clear it with `wipefs -a` or blkdiscard(8), or have it overwritten: --overwrite, --overwrite-disks")
    }

    private static func what(_ path: String, _ size: ByteCount) -> String { "copying a disk of \(size) to \(path)" }

    /// A new device is opened by udev for a moment, to see what it is.
    private static func staysInUse(_ file: DirectFile, _ users: SinkUsers) throws(TurntableError) -> Bool {
        let deadline = Clock.now + Limits.deviceProbeTime
        while try file.isInUse(sharing: users) {
            if Clock.now > deadline { return true }
            Clock.sleep(.milliseconds(20))
        }
        return false
    }

    /// A file that is not there is made; devices are not.
    private static func makeFile(_ path: String, _ size: ByteCount) throws(TurntableError) {
        guard unsafe access(path, F_OK) != 0, !path.hasPrefix("/dev/") else { return }
        let file = try Descriptor.open(path, .create, what: "making \(path)")
        guard ftruncate(file.rawValue, size.value) == 0 else {
            let reason = errorText(errno)
            removeFile(path)
            throw TurntableError(.unsupported, "making \(path) with \(size)", reason)
        }
        try syncDirectory(of: path)
    }

    private static func firstContent(of file: DirectFile) throws(TurntableError) -> Int? {
        if !file.isDevice { return file.nextData(from: 0) }
        let end = file.size.value
        let edges = [0..<min(signatureBytes, end), max(0, end - signatureBytes)..<end]
        for edge in edges {
            if let index = try file.read(at: edge.lowerBound, count: edge.count).firstIndex(where: { $0 != 0 }) {
                return edge.lowerBound + index
            }
        }
        return nil
    }
}

internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// Bytes that outlive the process that wrote them: a file of a memory file system, mapped. Or anonymous, for what needs no file.
///
/// What a process stored before it was killed, however suddenly, the next one finds here, in the order of its stores. The
/// file does not outlive the host.
///
/// Takes memory only where something was stored. A file system that is full then ends the process with SIGBUS.
@safe public final class SharedMemory: @unchecked Sendable {
    public let bytes: Int
    /// First byte of the mapping, which is zeroes at first. Valid as long as this object lives.
    public let base: UnsafeMutableRawPointer

    /// Memory of this process alone.
    public init(bytes: Int) throws(TurntableError) {
        self.bytes = bytes
        unsafe base = try unsafe Self.map(-1, bytes, MAP_SHARED | MAP_ANONYMOUS, "making \(ByteCount(bytes)) of session memory")
    }

    /// Opens the file, or makes it if there is none. One of another size is not this memory: it is replaced by a new one.
    public init(path: String, bytes: Int) throws(TurntableError) {
        let what = "opening the session memory \(path)"
        var file = try Self.open(path, what)
        var status = stat()
        try checked(unsafe fstat(file.rawValue, &status) < 0 ? -errno : 0, what)
        if Int(status.st_size) != bytes {
            // A new file, not the old one cut: somebody may still have that mapped.
            if status.st_size != 0 {
                removeFile(path)
                file = try Self.open(path, what)
            }
            try checked(ftruncate(file.rawValue, bytes) < 0 ? -errno : 0, what)
        }
        self.bytes = bytes
        // The mapping holds the file.
        unsafe base = try unsafe Self.map(file.rawValue, bytes, MAP_SHARED, what)
    }

    deinit { unsafe munmap(base, bytes) }

    private static func open(_ path: String, _ what: String) throws(TurntableError) -> Descriptor {
        Descriptor(owning: try checked(unsafe tt_open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600), what))
    }

    private static func map(_ file: Int32, _ bytes: Int, _ flags: Int32, _ what: String) throws(TurntableError) -> UnsafeMutableRawPointer {
        precondition(bytes > 0, "session memory has a size")
        let address = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, flags, file, 0)
        guard unsafe address != MAP_FAILED, let address = unsafe address else {
            throw TurntableError(.unsupported, what, errorText(errno))
        }
        return unsafe address
    }
}

internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// The one owner of a kernel descriptor; closing happens when it goes out of scope.
public struct Descriptor: ~Copyable, Sendable {
    public let rawValue: Int32

    /// Takes ownership of an open descriptor.
    public init(owning rawValue: Int32) { self.rawValue = rawValue }

    deinit { close(rawValue) }

    public static func open(_ path: String, _ flags: OpenFlags, what: String) throws(TurntableError) -> Descriptor {
        Descriptor(owning: try checked(unsafe tt_open(path, flags.rawValue | O_CLOEXEC, 0o600), what))
    }

    /// Gives the descriptor up: whoever gets the number owns it.
    public consuming func release() -> Int32 {
        let value = rawValue
        discard self
        return value
    }

    /// Has the file system keep room for the first `size` of a file, which is at least that long then. What it holds stays.
    public borrowing func allocate(_ size: ByteCount, what: String, remedy: String) throws(TurntableError) {
        let result = tt_allocate(rawValue, Int64(size.value))
        if result != 0 { throw TurntableError(result == -ENOSPC ? .refused : .unsupported, what, errorText(-result), remedy: remedy) }
    }

    /// A second descriptor for the same open file; as all of ours, no program that is started inherits it.
    public borrowing func duplicate() throws(TurntableError) -> Descriptor {
        let copy = fcntl(rawValue, F_DUPFD_CLOEXEC, 0)
        return Descriptor(owning: try checked(copy < 0 ? -errno : copy, "duplicating a descriptor"))
    }
}

public struct OpenFlags: Sendable {
    fileprivate let rawValue: Int32
    public static let read = OpenFlags(rawValue: O_RDONLY)
    public static let write = OpenFlags(rawValue: O_WRONLY)
    public static let readWrite = OpenFlags(rawValue: O_RDWR)
    public static let append = OpenFlags(rawValue: O_RDWR | O_APPEND | O_CREAT)
    public static let create = OpenFlags(rawValue: O_WRONLY | O_CREAT | O_TRUNC)
}

/// Writes all of `bytes` to what is open as `descriptor`, whatever it is and whoever owns it.
public func writeAll(_ bytes: [UInt8], to descriptor: Int32, what: String) throws(TurntableError) {
    var start = 0
    while start < bytes.count {
        let count = unsafe bytes[start...].withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
        if count < 0 && errno == EINTR { continue }
        start += Int(try checked(count < 0 ? Int(-errno) : count, what))
    }
}

/// The value of a shim call, or its `-errno` as an error. Programmer errors trap: they are our own bugs.
@discardableResult
public func checked<Value: SignedInteger>(_ result: Value, _ what: @autoclosure () -> String, remedy: String = "") throws(TurntableError)
    -> Value
{
    if result >= 0 { return result }
    let number = Int32(-result)
    precondition(number != EBADF && number != EFAULT, "\(what()): \(errorText(number))")
    throw TurntableError(kind(of: number), what(), errorText(number), remedy: remedy)
}

/// The text of an errno value.
public func errorText(_ number: Int32) -> String { unsafe String(cString: strerror(number)) }

private func kind(of number: Int32) -> TurntableError.Kind {
    switch number {
    case ECONNREFUSED, ECONNRESET, ECONNABORTED, EPIPE, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EAGAIN, ENETDOWN, EHOSTDOWN: .line
    default: .unsupported
    }
}

/// All of a file that is small.
public func readFile(_ path: String, atMost limit: Int, kind: TurntableError.Kind = .usage) throws(TurntableError) -> [UInt8] {
    let file = try Descriptor.open(path, .read, what: "opening \(path)")
    var bytes: [UInt8] = []
    while true {
        let piece = try Socket.read(file, atMost: 64 << 10, what: "reading \(path)")
        if piece.isEmpty { return bytes }
        bytes += piece
        guard bytes.count <= limit else { throw TurntableError(kind, "reading \(path)", "it has over \(ByteCount(limit))") }
    }
}

/// Removes a file or socket if it is there.
public func removeFile(_ path: String) { unsafe unlink(path) }

/// Makes a directory for this user alone, unless it is there.
public func makeDirectory(_ path: String) { unsafe mkdir(path, 0o700) }

/// Removes a directory if nothing is in it.
public func removeEmptyDirectory(_ path: String) { unsafe rmdir(path) }

/// Numbers of errors that a caller may expect.
public enum Errno {
    public static let exists = EEXIST
    public static let notThere = ENOENT
    /// What the kernel says of a family of addresses that it does not have.
    public static let noFamily: Set<Int32> = [EOPNOTSUPP, EAFNOSUPPORT]
}

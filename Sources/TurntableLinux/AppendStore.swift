internal import Glibc
public import TurntableCore

/// Bytes that only grow at their end, which is what a journal needs of a disk.
public protocol AppendStore: AnyObject, Sendable {
    func contents() throws(TurntableError) -> [UInt8]
    /// Adds bytes at the end, all or, if the host crashes, perhaps a part of them. They survive this process at once, and
    /// the host after ``sync()``.
    func append(_ bytes: [UInt8]) throws(TurntableError)
    func sync() throws(TurntableError)
    /// Forgets what follows the first `count` bytes.
    func truncate(to count: Int) throws(TurntableError)
    /// Keeps other processes from writing meanwhile.
    func locked<Value>(_ body: () throws(TurntableError) -> Value) throws(TurntableError) -> Value
}

/// A file for its owner's eyes only, made when something is first appended.
public final class AppendFile: AppendStore {
    private let path: String

    public init(_ path: String) { self.path = path }

    public func contents() throws(TurntableError) -> [UInt8] {
        guard unsafe access(path, F_OK) == 0 else { return [] }
        return try readFile(path, atMost: Self.maximumBytes, kind: .unsupported)
    }

    public func append(_ bytes: [UInt8]) throws(TurntableError) {
        let isNew = unsafe access(path, F_OK) != 0
        let file = try open()
        let before = try size(file)
        // One call, so that a process that is killed has appended all of it or nothing.
        let moved = unsafe bytes.withUnsafeBytes { unsafe write(file.rawValue, $0.baseAddress, $0.count) }
        guard moved == bytes.count else {
            let reason = moved < 0 ? errorText(errno) : "only \(moved) fit"
            // What was torn here must not stand in the way of what is appended later.
            ftruncate(file.rawValue, before)
            throw TurntableError(.unsupported, "writing \(bytes.count) bytes to \(path)", reason, remedy: "make room on its file system")
        }
        if isNew { try syncDirectory(of: path) }
    }

    public func sync() throws(TurntableError) {
        let file = try open()
        try checked(fdatasync(file.rawValue) < 0 ? -errno : 0, "making \(path) durable")
    }

    public func truncate(to count: Int) throws(TurntableError) {
        let file = try open()
        try checked(ftruncate(file.rawValue, count) < 0 ? -errno : 0, "cutting \(path) to \(count) bytes")
    }

    public func locked<Value>(_ body: () throws(TurntableError) -> Value) throws(TurntableError) -> Value {
        // Of the directory, so that a look at a journal that nobody wrote does not make it.
        let directoryPath = directory(of: path)
        let directory = try Descriptor.open(directoryPath, .read, what: "opening \(directoryPath)")
        while flock(directory.rawValue, LOCK_EX) < 0 {
            guard errno == EINTR else { throw TurntableError(.unsupported, "locking \(directoryPath)", errorText(errno)) }
        }
        return try body()
    }

    private static let maximumBytes = 64 << 20

    private func open() throws(TurntableError) -> Descriptor { try Descriptor.open(path, .append, what: "opening \(path)") }

    private func size(_ file: borrowing Descriptor) throws(TurntableError) -> Int {
        var status = stat()
        try checked(unsafe fstat(file.rawValue, &status) < 0 ? -errno : 0, "looking at \(path)")
        return Int(status.st_size)
    }
}

/// A new file is there after a crash of the host only if its directory is durable too.
public func syncDirectory(of path: String) throws(TurntableError) {
    let directoryPath = directory(of: path)
    let directory = try Descriptor.open(directoryPath, .read, what: "opening \(directoryPath)")
    try checked(fsync(directory.rawValue) < 0 ? -errno : 0, "making \(directoryPath) durable")
}

private func directory(of path: String) -> String {
    let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    return directory.isEmpty ? "/" : directory
}

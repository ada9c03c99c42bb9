import Glibc

/// The UNIX socket of a running line, and the asking side of it.
struct ControlSocket: ~Copyable {
    let listener: OwnedDescriptor
    private let path: String

    /// Takes the place of a socket whose process was killed, never of one that still answers.
    init(listeningAt path: String) throws(LineError) {
        let socket = try Self.makeSocket()
        let address = try Self.address(of: path)
        var code = unsafe Self.call(bind, socket.number, address)
        let probe = try Self.makeSocket()
        if code == EADDRINUSE, unsafe Self.call(connect, probe.number, address) == ECONNREFUSED {
            // The path is a terminated string for the length of the call.
            unsafe _ = unlink(path)
            code = unsafe Self.call(bind, socket.number, address)
        }
        guard code == 0 else {
            let remedy = code == EADDRINUSE ? "another line answers there, or it is no socket; choose another --control" : nil
            throw .system("cannot bind control socket \(path)", errno: code, remedy: remedy)
        }
        unsafe _ = chmod(path, 0o600)
        guard listen(socket.number, Int32(LineLimits.controlClients)) == 0 else { throw .system("cannot listen on \(path)", errno: errno) }
        listener = socket
        self.path = path
    }

    deinit { unsafe _ = unlink(path) }

    /// Sends one command to the line at `path` and returns its one-line reply.
    static func ask(_ command: String, at path: String) throws(LineError) -> String {
        let socket = try makeSocket()
        let code = unsafe call(connect, socket.number, try address(of: path))
        guard code == 0 else {
            throw LineError(message: "no line answers at \(path): \(text(ofErrno: code)) (errno \(code))", exitCode: ExitStatus.unavailable)
        }
        writeText(command + "\n", to: socket.number)
        var reply: [UInt8] = []
        while !reply.contains(UInt8(ascii: "\n")) {
            var event = pollfd(fd: socket.number, events: Int16(POLLIN), revents: 0)
            guard unsafe poll(&event, 1, LineLimits.controlReplyMilliseconds) > 0 else { break }
            let more = receive(socket.number)
            if more.isEmpty { break }
            reply += more
        }
        guard reply.last == UInt8(ascii: "\n") else {
            throw LineError(
                message: "the line at \(path) did not answer '\(command)' within \(LineLimits.controlReplyMilliseconds) ms",
                exitCode: ExitStatus.unavailable)
        }
        return String(decoding: reply.dropLast(), as: UTF8.self)
    }

    /// What a readable descriptor has; empty at its end or on an error.
    static func receive(_ descriptor: Int32) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 4096)
        // The array is as long as the count given.
        let count = unsafe read(descriptor, &bytes, bytes.count)
        return Array(bytes.prefix(max(count, 0)))
    }

    private static func makeSocket() throws(LineError) -> OwnedDescriptor {
        let number = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard number >= 0 else { throw .system("cannot open a UNIX socket", errno: errno) }
        return OwnedDescriptor(number)
    }

    private static func address(of path: String) throws(LineError) -> sockaddr_un {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        let limit = MemoryLayout.size(ofValue: address.sun_path) - 1
        guard !bytes.isEmpty, bytes.count <= limit else {
            throw .refused("control socket path '\(path)' is \(bytes.count) bytes long; the limit is \(limit)")
        }
        // Checked to fit with its terminator, which is there already.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        return address
    }

    private typealias AddressCall = (Int32, UnsafePointer<sockaddr>, socklen_t) -> Int32

    /// 0 or an errno.
    private static func call(_ function: AddressCall, _ descriptor: Int32, _ address: sockaddr_un) -> Int32 {
        // A sockaddr_un is handed over as the sockaddr it starts with, with its own length.
        unsafe withUnsafeBytes(of: address) { bytes in
            let start = unsafe bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self)
            return unsafe function(descriptor, start, socklen_t(bytes.count)) == 0 ? 0 : errno
        }
    }
}

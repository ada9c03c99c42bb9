internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// Where a peer listens: a host name or address, and a TCP port.
public struct Address: Hashable, Sendable, CustomStringConvertible {
    public var host: String
    public var port: UInt16

    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// Reads `host:port`, `[v6]:port`, or a host alone.
    public init?(parsing text: String, defaultPort: UInt16) {
        if text.hasPrefix("[") {
            guard let close = text.firstIndex(of: "]") else { return nil }
            let rest = text[text.index(after: close)...]
            host = String(text[text.index(after: text.startIndex)..<close])
            if rest.isEmpty {
                port = defaultPort
            } else if rest.hasPrefix(":"), let value = UInt16(rest.dropFirst()) {
                port = value
            } else {
                return nil
            }
        } else if let colon = text.lastIndex(of: ":"), text.firstIndex(of: ":") == colon {
            guard let value = UInt16(text[text.index(after: colon)...]) else { return nil }
            host = String(text[..<colon])
            port = value
        } else {
            host = text
            port = defaultPort
        }
        if host.isEmpty { return nil }
    }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// Plain socket calls, each with its time limit.
public enum Socket {
    /// Connects over TCP within `limit`. `prepare` sets options that must precede the handshake.
    public static func connect(
        to address: Address, within limit: Nanoseconds, prepare: (borrowing Descriptor) throws(TurntableError) -> Void
    ) throws(TurntableError) -> Descriptor {
        let what = "connecting to \(address)"
        var failure: TurntableError?
        for candidate in try resolve(address, passive: false, what: what) {
            let socket = try open(AF(candidate.family), what: what)
            try prepare(socket)
            // A send timeout bounds connect(2) as well (socket(7)).
            try setTimeouts(socket, receive: limit, send: limit)
            let result = unsafe candidate.withPointer { unsafe Glibc.connect(socket.rawValue, $0, $1) }
            if result == 0 { return socket }
            let number = errno == EINPROGRESS || errno == EAGAIN ? ETIMEDOUT : errno
            failure = TurntableError(
                .line, what, errorText(number), remedy: "check that `turntable receive` runs there and that the path is up")
        }
        throw failure ?? TurntableError(.line, what, "no address")
    }

    /// Listens on a TCP address. `prepare` sets options that accepted sockets inherit.
    public static func listen(
        on address: Address, prepare: (borrowing Descriptor) throws(TurntableError) -> Void
    ) throws(TurntableError) -> Descriptor {
        let what = "listening on \(address)"
        guard let candidate = try resolve(address, passive: true, what: what).first else {
            throw TurntableError(.usage, what, "no such address")
        }
        let socket = try open(AF(candidate.family), what: what)
        try checked(tt_set_reuse_address(socket.rawValue), what)
        try prepare(socket)
        let bound = unsafe candidate.withPointer { unsafe bind(socket.rawValue, $0, $1) }
        try checked(bound < 0 ? -errno : 0, what, remedy: "choose another address with --listen, or stop what uses this one")
        try checked(Glibc.listen(socket.rawValue, 64) < 0 ? -errno : 0, what)
        return socket
    }

    /// The next connection on a listening socket, or nil if none came within `limit`.
    public static func accept(_ listener: borrowing Descriptor, within limit: Nanoseconds) throws(TurntableError) -> Descriptor? {
        guard try waitReadable(listener, within: limit) else { return nil }
        let socket = tt_accept(listener.rawValue)
        if [-EAGAIN, -ECONNABORTED, -EINTR].contains(socket) { return nil }
        return Descriptor(owning: try checked(socket, "accepting a connection"))
    }

    /// The port a listening socket got.
    public static func localPort(_ socket: borrowing Descriptor) -> UInt16 {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        _ = unsafe withUnsafeMutablePointer(to: &storage) { storage in
            unsafe storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe getsockname(socket.rawValue, $0, &length) }
        }
        // The port is at the same place in sockaddr_in and sockaddr_in6.
        return unsafe withUnsafePointer(to: &storage) { storage in
            unsafe storage.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { unsafe UInt16(bigEndian: $0.pointee.sin_port) }
        }
    }

    /// The address at the other end of a TCP connection, for people.
    public static func peerName(_ socket: borrowing Descriptor) -> String {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return unsafe withUnsafeMutablePointer(to: &storage) { storage in
            unsafe storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                guard unsafe getpeername(socket.rawValue, address, &length) == 0 else { return "an unknown peer" }
                return unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(NI_MAXHOST)) { name in
                    let failure = unsafe getnameinfo(address, length, name.baseAddress, socklen_t(name.count), nil, 0, NI_NUMERICHOST)
                    return unsafe failure == 0 ? String(cString: name.baseAddress!) : "an unknown peer"
                }
            }
        }
    }

    /// Connects to a UNIX socket.
    public static func connectUnix(_ path: String) throws(TurntableError) -> Descriptor {
        let what = "connecting to \(path)"
        let socket = try open(AF_UNIX, what: what)
        let result = try unsafe withUnixAddress(path) { unsafe Glibc.connect(socket.rawValue, $0, $1) }
        try checked(result < 0 ? -errno : 0, what)
        return socket
    }

    /// Listens on a UNIX socket that only this user may open. A leftover of a dead listener is replaced.
    public static func listenUnix(_ path: String) throws(TurntableError) -> Descriptor {
        let what = "listening on \(path)"
        let socket = try open(AF_UNIX, what: what)
        unsafe unlink(path)
        let previous = umask(0o077)
        let bound = try unsafe withUnixAddress(path) { unsafe bind(socket.rawValue, $0, $1) }
        let failure = errno
        umask(previous)
        try checked(bound < 0 ? -failure : 0, what)
        try checked(Glibc.listen(socket.rawValue, 8) < 0 ? -errno : 0, what)
        return socket
    }

    /// Both ends of a connection within this machine.
    public static func pair() throws(TurntableError) -> (Int32, Int32) {
        var ends: (Int32, Int32) = (-1, -1)
        let result = unsafe withUnsafeMutablePointer(to: &ends) { ends in
            unsafe ends.withMemoryRebound(to: Int32.self, capacity: 2) {
                unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, $0)
            }
        }
        try checked(result < 0 ? -errno : 0, "making a socket pair")
        return ends
    }

    public static func setTimeouts(_ socket: borrowing Descriptor, receive: Nanoseconds, send: Nanoseconds) throws(TurntableError) {
        try checked(tt_set_timeouts(socket.rawValue, receive.value, send.value), "setting socket timeouts")
    }

    /// Whether there is something to read, waiting at most `limit`.
    public static func waitReadable(_ socket: borrowing Descriptor, within limit: Nanoseconds) throws(TurntableError) -> Bool {
        var entry = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
        // A negative time would wait forever: a deadline that has passed is none.
        let result = unsafe poll(&entry, 1, Int32(clamping: max(limit.value, 0) / 1_000_000))
        if result < 0 && errno == EINTR { return false }
        return try checked(result < 0 ? -errno : result, "waiting on a socket") > 0
    }

    /// Ends both directions, which wakes every thread that waits on the socket.
    public static func shutDown(_ socket: borrowing Descriptor) { shutdown(socket.rawValue, Int32(SHUT_RDWR)) }

    /// The other end reads what was written, and then an end.
    public static func endWriting(_ socket: borrowing Descriptor) { shutdown(socket.rawValue, Int32(SHUT_WR)) }

    /// What the kernel measured on a TCP connection.
    public static func roundTrip(_ socket: borrowing Descriptor) -> Nanoseconds? {
        var status = tt_tcp_status()
        guard unsafe tt_tcp_status(socket.rawValue, &status) == 0 else { return nil }
        return Nanoseconds(Int64(status.rtt_microseconds) * 1000)
    }

    /// False if this kernel does not have it.
    public static func setCongestionControl(_ socket: borrowing Descriptor, _ name: String) -> Bool {
        unsafe tt_set_congestion_control(socket.rawValue, name) == 0
    }

    /// The process that opened the other end of a UNIX socket.
    public static func peerProcess(_ socket: borrowing Descriptor) throws(TurntableError) -> Int32 {
        try checked(tt_peer_process(socket.rawValue), "asking for the process behind a socket")
    }

    /// Reads what is there, at most `capacity` bytes; empty at the end of the stream.
    public static func read(_ socket: borrowing Descriptor, atMost capacity: Int, what: String) throws(TurntableError) -> [UInt8] {
        var failure: Int32 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
            var result: Int
            repeat { result = unsafe Glibc.read(socket.rawValue, buffer.baseAddress!, capacity) } while result < 0 && errno == EINTR
            if result < 0 { failure = errno }
            count = max(result, 0)
        }
        if failure != 0 { try checked(-failure, what) }
        return bytes
    }

    /// Reads exactly `count` bytes, in at most `limit`.
    public static func readExactly(_ socket: borrowing Descriptor, _ count: Int, within limit: Nanoseconds, what: String) throws(TurntableError) -> [UInt8] {
        let deadline = Clock.now + limit
        var bytes: [UInt8] = []
        while bytes.count < count {
            let left = deadline - Clock.now
            guard left > .zero else { throw TurntableError(.line, what, "\(bytes.count) of \(count) bytes came within \(limit)") }
            guard try waitReadable(socket, within: left) else { continue }
            let piece = try read(socket, atMost: count - bytes.count, what: what)
            guard !piece.isEmpty else {
                throw TurntableError(
                    .line, what, bytes.isEmpty ? "the peer closed it" : "the peer closed it after \(bytes.count) of \(count) bytes")
            }
            bytes += piece
        }
        return bytes
    }

    /// Fills all of `buffer`, which nobody else uses meanwhile.
    public static func fill(_ buffer: UnsafeMutableRawBufferPointer, from socket: borrowing Descriptor, what: String) throws(TurntableError) {
        var done = 0
        while done < buffer.count {
            let result = unsafe Glibc.read(socket.rawValue, buffer.baseAddress! + done, buffer.count - done)
            if result < 0 && errno == EINTR { continue }
            try checked(result < 0 ? -Int(errno) : result, what)
            guard result > 0 else { throw TurntableError(.line, what, "it ended after \(done) of \(buffer.count) bytes") }
            done += result
        }
    }

    /// Writes all of `bytes`.
    public static func write(_ socket: borrowing Descriptor, _ bytes: [UInt8], what: String) throws(TurntableError) {
        // The closure's error comes out as a value: withUnsafeBytes does not rethrow typed errors.
        let failure: TurntableError? = unsafe bytes.withUnsafeBytes { bytes in
            do throws(TurntableError) { try unsafe write(socket, bytes, what: what) } catch { return error }
            return nil
        }
        if let failure { throw failure }
    }

    /// Writes all of `bytes` to a UNIX socket; the process there gets a descriptor of its own for what is open as `descriptor`.
    public static func write(
        _ socket: borrowing Descriptor, _ bytes: [UInt8], passing descriptor: Int32?, what: String
    ) throws(TurntableError) {
        guard let descriptor else { return try write(socket, bytes, what: what) }
        let sent = unsafe bytes.withUnsafeBytes { unsafe tt_send_descriptor(socket.rawValue, $0.baseAddress, $0.count, descriptor) }
        try write(socket, Array(bytes.dropFirst(Int(try checked(sent, what)))), what: what)
    }

    /// Writes all of `bytes`, which nobody changes meanwhile.
    public static func write(_ socket: borrowing Descriptor, _ bytes: UnsafeRawBufferPointer, what: String) throws(TurntableError) {
        var done = 0
        while done < bytes.count {
            let result = unsafe send(socket.rawValue, bytes.baseAddress! + done, bytes.count - done, Int32(MSG_NOSIGNAL))
            if result < 0 && errno == EINTR { continue }
            done += try checked(result < 0 ? -Int(errno) : result, what)
        }
    }

    private static func open(_ family: Int32, what: String) throws(TurntableError) -> Descriptor {
        let socket = Glibc.socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        return Descriptor(owning: try checked(socket < 0 ? -errno : socket, what))
    }

    private static func AF(_ family: sa_family_t) -> Int32 { Int32(family) }

    private static func withUnixAddress<Result>(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) throws(TurntableError) -> Result {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let capacity = MemoryLayout.size(ofValue: address.sun_path)
        guard path.utf8.count < capacity else {
            throw TurntableError(
                .usage, "using the socket path \(path)", "it has \(path.utf8.count) bytes, the limit is \(capacity - 1)",
                remedy: "choose a shorter run directory")
        }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
        return unsafe withUnsafePointer(to: &address) { address in
            unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
    }
}

/// The 4 or 16 bytes of an IPv4 or IPv6 address; nil if `text` is none.
public func addressBytes(_ text: String) -> [UInt8]? {
    for (family, count) in [(AF_INET, 4), (AF_INET6, 16)] {
        var bytes = [UInt8](repeating: 0, count: count)
        let result = unsafe bytes.withUnsafeMutableBytes { unsafe inet_pton(family, text, $0.baseAddress) }
        if result == 1 { return bytes }
    }
    return nil
}

/// One answer of getaddrinfo, copied out of its list.
struct ResolvedAddress: Sendable {
    var storage: sockaddr_storage
    var length: socklen_t
    var family: sa_family_t { storage.ss_family }

    init(storage: sockaddr_storage, length: socklen_t) {
        self.storage = storage
        self.length = length
    }

    /// As the kernel fills it in.
    init(_ storage: sockaddr_storage) {
        let isV6 = storage.ss_family == sa_family_t(AF_INET6)
        self.init(storage: storage, length: socklen_t(isV6 ? MemoryLayout<sockaddr_in6>.size : MemoryLayout<sockaddr_in>.size))
    }

    /// What tells two of them apart.
    var bytes: [UInt8] { unsafe withUnsafeBytes(of: storage) { unsafe Array($0.prefix(Int(length))) } }

    func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        unsafe withUnsafePointer(to: storage) { storage in
            unsafe storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0, length) }
        }
    }
}

func resolve(_ address: Address, passive: Bool, what: String) throws(TurntableError) -> [ResolvedAddress] {
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    unsafe hints.ai_flags = passive ? AI_PASSIVE : 0
    var list: UnsafeMutablePointer<addrinfo>?
    let failure = unsafe getaddrinfo(address.host, String(address.port), &hints, &list)
    guard failure == 0 else {
        throw TurntableError(
            .usage, what, unsafe String(cString: gai_strerror(failure)), remedy: "give an address or a name that resolves here")
    }
    defer { unsafe freeaddrinfo(list) }
    var found: [ResolvedAddress] = []
    var next = unsafe list
    while let entry = unsafe next {
        var storage = sockaddr_storage()
        unsafe withUnsafeMutableBytes(of: &storage) {
            unsafe $0.copyMemory(from: UnsafeRawBufferPointer(start: entry.pointee.ai_addr, count: Int(entry.pointee.ai_addrlen)))
        }
        found.append(ResolvedAddress(storage: storage, length: unsafe entry.pointee.ai_addrlen))
        unsafe next = entry.pointee.ai_next
    }
    return found
}

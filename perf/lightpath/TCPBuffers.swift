import Glibc

/// The largest buffers TCP may grow to in a namespace (net.ipv4.tcp_rmem and tcp_wmem); the kernel's 4 to 6 MiB hold a
/// stream at a fraction of a long line's rate. The calling thread is inside the namespace.
struct TCPBuffers {
    private static let paths = ["/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem"]

    private let earlier: [String]

    /// Four times bandwidth times round trip: twice for what the kernel's own structures take, and twice for the queue.
    static func automatic(rate: BitRate, delay: LineDelay) -> ByteSize {
        let wanted = 4 * rate.bytes(inNanoseconds: 2 * delay.nanoseconds)
        return ByteSize(bytes: min(max(wanted, LineLimits.minimumTCPBufferBytes), LineLimits.maximumTCPBufferBytes))
    }

    init(raisingTo maximum: ByteSize) throws(LineError) {
        var earlier: [String] = []
        for path in Self.paths {
            let text = try Self.read(path)
            let fields = text.split(whereSeparator: \.isWhitespace)
            guard fields.count == 3 else { throw .system("cannot understand '\(text)' in \(path)", errno: EINVAL) }
            try Self.write("\(fields[0]) \(fields[1]) \(maximum.bytes)", path)
            earlier.append(text)
        }
        self.earlier = earlier
    }

    func restore() throws(LineError) {
        for (path, text) in zip(Self.paths, earlier) { try Self.write(text, path) }
    }

    private static func read(_ path: String) throws(LineError) -> String {
        let file = OwnedDescriptor(try check(opened(path, O_RDONLY), "cannot open \(path)"))
        var bytes = [UInt8](repeating: 0, count: 128)
        // The array is at least as long as the count given.
        let count = unsafe Glibc.read(file.number, &bytes, bytes.count)
        guard count >= 0 else { throw .system("cannot read \(path)", errno: errno) }
        return String(decoding: bytes[..<count], as: UTF8.self)
    }

    private static func write(_ text: String, _ path: String) throws(LineError) {
        let file = OwnedDescriptor(try check(opened(path, O_WRONLY), "cannot open \(path)"))
        // The string is longer than zero and read only up to its count.
        guard unsafe Glibc.write(file.number, text, text.utf8.count) >= 0 else {
            throw .system("cannot write '\(text)' to \(path)", errno: errno, remedy: "choose other --tcp-buffers, or off")
        }
    }

    private static func opened(_ path: String, _ flags: Int32) -> Int32 {
        let number = unsafe open(path, flags | O_CLOEXEC)
        return number < 0 ? -errno : number
    }
}

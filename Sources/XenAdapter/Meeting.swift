// The source's and the target's part of the greeting in StreamGreeting.swift.

internal import CTurntableXen
public import TurntableCore
public import TurntableLinux
internal import WireFormat

public enum Meeting {
    /// What Xen's own helper writes first, and has been written for it when a greeting was not answered.
    public static let headerBytes = StreamGreeting.headerBytes
    /// Of an IPv4 address that a socket of both families sees.
    private static let mappedPrefix = "::ffff:"

    /// All addresses and any free port, also where there is no IPv6.
    public static func onAllAddresses<Value: ~Copyable>(
        _ body: (Address) throws(TurntableError) -> Value
    ) throws(TurntableError) -> Value {
        do throws(TurntableError) { return try body(Address(host: "::", port: 0)) } catch { return try body(Address(host: "0.0.0.0", port: 0)) }
    }

    /// Greets the target's helper and waits for its answer; nil if none comes, as with Xen's own, which has then been given its
    /// stream's first ``headerBytes`` bytes.
    /// - Parameters:
    ///   - own: the addresses to be reached at; all of this host's if it is empty.
    ///   - isLast: libxl will only say that its stream ends.
    ///   - isPV: what is carried is the stream of Xen's own helper.
    public static func greet(on stream: LibxlStream, at own: [String], isLast: Bool, isPV: Bool = false) throws(TurntableError) -> Met? {
        let listener = try onAllAddresses { (address) throws(TurntableError) in try Socket.listen(on: address) { _ in } }
        var chance = Chance()
        let token = (0..<StreamGreeting.tokenBytes).map { _ in UInt8.random(in: .min ... .max, using: &chance) }
        let addresses = Array((own.isEmpty ? hostAddresses() : own).prefix(Limits.xenAddresses))
        let greeting = StreamGreeting(token: token, port: Socket.localPort(listener), addresses: addresses, isLast: isLast, isPV: isPV)
        try stream.write(greeting.encoded(), what: "greeting the target")
        let deadline = Clock.now + Limits.xenMeetingTime
        while Clock.now < deadline, !stream.hasHungUp(within: .zero) {
            guard let socket = try Socket.accept(listener, within: Limits.pollTime) else { continue }
            // A stranger is no reason to stop waiting.
            if let answer = try? hear(socket, token) {
                let peer = Socket.peerName(socket)
                let host = peer.hasPrefix(mappedPrefix) ? String(peer.dropFirst(mappedPrefix.count)) : peer
                return Met(
                    address: Address(host: host, port: answer.port), token: token,
                    disks: answer.disksPort == 0 ? nil : Address(host: host, port: answer.disksPort))
            }
        }
        return nil
    }

    /// A target's helper that answered: where it receives, and what it knows the source by.
    public struct Met: Equatable, Sendable {
        public let address: Address
        public let token: [UInt8]
        /// Where the disks of a PV domain are received; nil if none can come.
        public let disks: Address?
    }

    private static func hear(_ socket: borrowing Descriptor, _ token: [UInt8]) throws(TurntableError) -> StreamGreeting.Answer {
        try Socket.setTimeouts(socket, receive: .seconds(2), send: .seconds(2))
        var bytes: [UInt8] = []
        while bytes.count < StreamGreeting.Answer.bytes {
            let piece = try Socket.read(socket, atMost: StreamGreeting.Answer.bytes - bytes.count, what: "hearing the other helper")
            guard !piece.isEmpty else { throw TurntableError(.line, "hearing the other helper", "it left") }
            bytes += piece
        }
        let answer = try StreamGreeting.Answer(decoding: bytes)
        guard answer.token == token else { throw TurntableError(.refused, "hearing the other helper", "it was not greeted") }
        return answer
    }

    /// Whether the other end of a stream is one of ours; its greeting is then taken from the stream, else nothing.
    static func isAwaited(on stream: LibxlStream) throws(TurntableError) -> StreamGreeting? {
        let what = "reading the source's greeting"
        guard let count = try StreamGreeting.recordBytes(after: try stream.peek(StreamGreeting.prefixBytes, what: what)) else { return nil }
        _ = try stream.read(StreamGreeting.prefixBytes, what: what)
        return try StreamGreeting(decoding: try stream.read(count, what: what))
    }

    /// The greeting of a source's helper; nil if Xen's own is at the other end, whose stream is untouched.
    public static func hearGreeting(on stream: LibxlStream) throws(TurntableError) -> Heard? {
        try isAwaited(on: stream).map { Heard(greeting: $0) }
    }

    /// A greeting that came.
    public struct Heard: Sendable {
        fileprivate let greeting: StreamGreeting
        /// libxl will only say that its stream ends.
        public var isLast: Bool { greeting.isLast }
        /// What comes is the stream of Xen's own helper.
        public var isPV: Bool { greeting.isPV }
        /// What the source is known by.
        public var token: [UInt8] { greeting.token }

        /// Tells the source on which port it is received, and its disks if they can come.
        public func answer(_ port: UInt16, disks: UInt16 = 0) throws(TurntableError) {
            var failure: TurntableError?
            for host in greeting.addresses {
                do throws(TurntableError) {
                    let socket = try Socket.connect(to: Address(host: host, port: greeting.port), within: .seconds(5)) { _ in }
                    let answer = StreamGreeting.Answer(token: greeting.token, port: port, disksPort: disks)
                    return try Socket.write(socket, answer.encoded(), what: "answering \(host)")
                } catch { failure = error }
            }
            throw TurntableError(
                .line, "answering the source's helper", failure?.why ?? "it named no address",
                remedy: "let the hosts reach each other, or set TURNTABLE_ADDRESS at the source")
        }
    }

    private static func hostAddresses() -> [String] {
        var text = [CChar](repeating: 0, count: Limits.xenGreetingBytes)
        _ = unsafe text.withUnsafeMutableBufferPointer { unsafe tt_xen_addresses($0.baseAddress, $0.count) }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(separator: "\n").map(String.init)
    }
}

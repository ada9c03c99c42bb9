internal import CTurntableLinux
internal import Glibc
internal import Protection
internal import TestSupport
internal import Testing
internal import Transport
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A transport under test. A new one needs an entry in `all` and nothing else.
struct LineKind: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var streams: Int
    var make: @Sendable () throws -> any Line

    static let all: [LineKind] = VerbsLine.address == nil ? everywhere : VerbsLine.kinds

    private static let everywhere: [LineKind] =
        [1, 4].map { streams in LineKind(testDescription: "loopback, \(streams) streams", streams: streams) { LoopbackLine() } }
        + [1, 4].flatMap { streams in
            SendMethod.allCases.map { method in
                LineKind(testDescription: "tcp \(method.rawValue), \(streams) streams", streams: streams) {
                    try TCPLine(method, streams: streams)
                }
            }
        }
        + [LineKind(testDescription: "tcp, sending as it finds best", streams: 2) { try TCPLine(nil, streams: 2) }]
        + [1, 4].map { streams in
            LineKind(testDescription: "tcp sealed, \(streams) streams", streams: streams) { try TCPLine(nil, streams: streams, isSealed: true) }
        }
        + [LineKind(testDescription: "tcp sealed over a link element, 2 streams", streams: 2) { try TCPLine(nil, streams: 2, isSealed: true, isLinked: true) }]

    /// Where the way of sending does not matter, and a stranger can write what a source would: not on a sealed line.
    static let receiving: [LineKind] = all.filter {
        $0.streams == 1 && !["spliced", "zero", "sealed"].contains(where: $0.testDescription.contains)
    }
}

/// Two ends of a transport, and what a stranger can do to them.
protocol Line: AnyObject, Sendable {
    var source: any SourceTransport { get }
    var target: any TargetTransport { get }
    /// A connection to `target` that has said nothing.
    func stranger() throws -> any RawConnection
    /// A source whose far end is read by hand, and takes little before its sender has to wait.
    func sourceOfDeafTarget() throws -> (any SourceTransport, accept: @Sendable () throws -> any RawConnection)
    /// How many connections `target` turned away.
    var turnedAway: Int { get }
}

/// A connection of plain bytes.
protocol RawConnection: AnyObject, Sendable {
    func write(_ bytes: [UInt8]) throws
    func read(_ count: Int) throws -> [UInt8]
    /// Whether the far end ended it, or ends it within a few seconds.
    func isEnded() -> Bool
    func close()
}

final class LoopbackLine: Line {
    let loopback = Loopback()
    var source: any SourceTransport { loopback }
    var target: any TargetTransport { loopback }
    var turnedAway: Int { loopback.turnedAway.count }
    func stranger() throws -> any RawConnection { RawLoopback(loopback.connect()) }
    func sourceOfDeafTarget() throws -> (any SourceTransport, accept: @Sendable () throws -> any RawConnection) {
        let loopback = loopback
        return (loopback, accept: { RawLoopback(try #require(loopback.acceptConnection(within: .seconds(5)))) })
    }
}

final class RawLoopback: RawConnection {
    private let connection: LoopbackConnection
    init(_ connection: LoopbackConnection) { self.connection = connection }
    func write(_ bytes: [UInt8]) throws { try connection.write(bytes) }
    func read(_ count: Int) throws -> [UInt8] { try connection.read(count, within: .seconds(10)) }
    func isEnded() -> Bool {
        failure { () throws(TurntableError) in try connection.read(1, within: .seconds(5)) }.map { !$0.why.contains("nothing came") }
            ?? false
    }
    func close() { connection.shutDown() }
}

final class TCPLine: Line {
    private static let anyPort = Address(host: "127.0.0.1", port: 0)
    private let options: LineOptions
    private let listening: TCPTargetTransport
    private let strangers = Monitor(0)
    private let security: LineSecurity
    /// On the way, if there is one.
    private let element: TestElement?
    let source: any SourceTransport
    var target: any TargetTransport { listening }
    var turnedAway: Int { strangers.read { $0 } }

    init(_ method: SendMethod?, streams: Int, isSealed: Bool = false, isLinked: Bool = false) throws {
        security = isSealed ? .sealed(try Identities.shared.alpha) : .none
        var options = LineOptions()
        options.sendMethod = method
        options.streams = streams
        self.options = options
        listening = try TCPTargetTransport(
            listening: Self.anyPort, security: isSealed ? .sealed(try Identities.shared.beta) : .none
        ) { [strangers] _ in strangers.update { $0 += 1 } }
        element = isLinked ? try TestElement(before: listening.port) : nil
        source = TCPSourceTransport(
            address: Address(host: "127.0.0.1", port: listening.port), options: options, security: security, peer: "beta.test",
            passage: element?.passage)
    }

    func stranger() throws -> any RawConnection {
        RawTCP(
            try Socket.connect(to: Address(host: "127.0.0.1", port: listening.port), within: .seconds(5)) {
                (_: borrowing Descriptor) throws(TurntableError) in
            })
    }

    func sourceOfDeafTarget() throws -> (any SourceTransport, accept: @Sendable () throws -> any RawConnection) {
        let listener = SmallListener(
            try Socket.listen(on: Self.anyPort) { (socket: borrowing Descriptor) throws(TurntableError) in
                try checked(tt_set_receive_buffer(socket.rawValue, 64 << 10), "sizing a small buffer")
            })
        let source = TCPSourceTransport(
            address: Address(host: "127.0.0.1", port: Socket.localPort(listener.socket)), options: options, security: .none)
        return (
            source,
            accept: {
                guard let socket = try Socket.accept(listener.socket, within: .seconds(5)) else {
                    throw TurntableError(.line, "accepting", "nobody came")
                }
                return RawTCP(socket)
            }
        )
    }

    private final class SmallListener: Sendable {
        let socket: Descriptor
        init(_ socket: consuming Descriptor) { self.socket = socket }
    }
}

final class RawTCP: RawConnection {
    private let socket: Descriptor
    init(_ socket: consuming Descriptor) { self.socket = socket }

    func write(_ bytes: [UInt8]) throws { try Socket.write(socket, bytes, what: "a test") }
    func read(_ count: Int) throws -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            guard try Socket.waitReadable(socket, within: .seconds(10)) else { throw TurntableError(.line, "a test", "nothing came") }
            let piece = try Socket.read(socket, atMost: count - bytes.count, what: "a test")
            if piece.isEmpty { throw TurntableError(.line, "a test", "closed after \(bytes.count) of \(count) bytes") }
            bytes += piece
        }
        return bytes
    }
    func isEnded() -> Bool {
        guard (try? Socket.waitReadable(socket, within: .seconds(5))) ?? true else { return false }
        // An end, or a reset: the far end closed with bytes unread.
        return (try? Socket.read(socket, atMost: 1, what: "a test"))?.isEmpty ?? true
    }
    func close() { Socket.shutDown(socket) }
}

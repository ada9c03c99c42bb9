// A link element: a process on the way between two sites that forwards migrations which show a token for the line, and nothing else.
// Control streams pass as they are, inside their TLS; of data streams it checks each frame's clear header (LinkGate.swift), and what the frame
// carries goes from one socket to the other by reference, unread.

public import Capability
public import Protection
internal import Synchronization
internal import TransportTCP
public import TurntableCore
public import TurntableLinux
internal import WireFormat

/// What happens at an element.
public enum LinkEvent: Sendable {
    /// A connection goes on: whose, and for which token.
    case passed(peer: String, token: String, stream: String)
    /// It ended: what went through towards the target.
    case ended(peer: String, token: String, stream: String, ByteCount)
    /// It was not let through, or stopped.
    case refused(peer: String, TurntableError)
}

public final class LinkElement: Sendable {
    public struct Description: Sendable {
        /// By the name that tokens have as their path.
        public var line: String
        public var key: LinkKey
        public var domains: TrustedDomains
        /// Where connections may go on to: targets, and other elements.
        public var next: [NextHop]
        /// Bytes that may wait here for the next part of the way: at least bandwidth × round trip of the part before.
        public var window = ByteCount.mebi(8)

        public init(line: String, key: LinkKey, domains: TrustedDomains, next: [NextHop]) {
            (self.line, self.key, self.domains, self.next) = (line, key, domains, next)
        }
    }

    let description: Description
    let gate: LinkGate
    let report: @Sendable (LinkEvent) -> Void
    private let listener: Descriptor
    public let port: UInt16
    private let isEnding = Atomic(false)
    private let connections = Atomic(0)

    /// - Parameter now: Unix seconds.
    public init(
        _ description: Description, listening address: Address, ledger: TokenLedger, now: @escaping @Sendable () -> Int,
        report: @escaping @Sendable (LinkEvent) -> Void
    ) throws(TurntableError) {
        self.description = description
        self.report = report
        gate = LinkGate(
            line: description.line, next: description.next, key: description.key, domains: description.domains, ledger: ledger, now: now)
        let window = description.window
        listener = try Socket.listen(on: address) { (socket: borrowing Descriptor) throws(TurntableError) in
            try LineOptions.setReceiveBuffer(socket, window)
        }
        port = Socket.localPort(listener)
    }

    /// Serves until ``end()``.
    public func serve() throws(TurntableError) {
        while !isEnding.load(ordering: .relaxed) {
            guard let socket = try Socket.accept(listener, within: Limits.pollTime) else { continue }
            let peer = Socket.peerName(socket)
            guard connections.add(1, ordering: .relaxed).newValue <= Limits.linkConnections else {
                connections.subtract(1, ordering: .relaxed)
                report(.refused(peer: peer, TurntableError(.refused, "a connection", "\(Limits.linkConnections) are open already")))
                continue
            }
            let raw = socket.release()
            _ = WorkerThread("tt-link") { [self] in
                LinkConnection(source: Descriptor(owning: raw), peer: peer, element: self).run()
                connections.subtract(1, ordering: .relaxed)
            }
        }
    }

    /// Says to the source why its connection does not go on, and stops it.
    func answer(_ source: borrowing Descriptor, _ error: TurntableError) {
        let answer = LinkAnswer(error.kind == .line ? .notNow : .refused, reason: "the line \(description.line): \(error)")
        try? Socket.write(source, answer.encoded(), what: "answering")
        Socket.shutDown(source)
    }

    public func end() { isEnding.store(true, ordering: .relaxed) }
    var hasEnded: Bool { isEnding.load(ordering: .relaxed) }
}

internal import CTurntableVerbs
internal import Glibc
internal import Protection
public import Transport
public import TransportTCP
public import TurntableCore
public import TurntableLinux
public import WireFormat

/// Listens for sources: control streams over TCP, as ``TCPTargetTransport`` takes them, data streams over RDMA. Those that
/// come over TCP are taken too: a source may have to fall back, and both are protected alike.
public final class VerbsTargetTransport: TargetTransport {
    private let tcp: TCPTargetTransport
    private let acceptor: VerbsAcceptor
    private let thread: WorkerThread
    public var budget: PinBudget { acceptor.budget }

    /// - Parameters:
    ///   - address: where `tcp` listens; over RDMA it is listened on at the same port.
    ///   - turnedAway: told of connections that were turned away: who, and why.
    public init(
        _ tcp: TCPTargetTransport, listening address: Address, protection: LineProtection, budget: PinBudget = PinBudget(),
        turnedAway: @escaping @Sendable (String) -> Void
    ) throws(TurntableError) {
        self.tcp = tcp
        let acceptor = try VerbsAcceptor(
            Address(host: address.host, port: tcp.port), protection, budget, secrets: { tcp.secret(of: $0) }, turnedAway)
        self.acceptor = acceptor
        thread = WorkerThread("tt-rdma") { acceptor.serve() }
    }

    deinit {
        acceptor.stop()
        thread.join()
    }

    public func accept(within limit: Nanoseconds) throws(TurntableError) -> IncomingConnection? {
        let deadline = Clock.now + limit
        while true {
            if let next = acceptor.next() { return next }
            let left = deadline - Clock.now
            guard left > .zero else { return nil }
            if let next = try tcp.accept(within: min(Limits.greetingPollTime, left)) { return next }
        }
    }
}

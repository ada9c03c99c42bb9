internal import CTurntableLinux
public import Transport
public import TurntableCore
public import TurntableLinux
internal import WireFormat

/// Listens for sources over TCP.
public final class TCPTargetTransport: TargetTransport {
    private let listener: Descriptor
    /// The port that was bound, also when 0 was asked for.
    public let port: UInt16
    private let arrived = Monitor((greeting: 0, greeted: [IncomingConnection]()))
    /// Told of connections that were turned away: who, and why.
    private let turnedAway: @Sendable (String) -> Void

    public init(listening address: Address, turnedAway: @escaping @Sendable (String) -> Void) throws(TurntableError) {
        listener = try Socket.listen(on: address) { (socket: borrowing Descriptor) throws(TurntableError) in
            // Before listening: accepted sockets inherit it, and the window's scale is fixed in the handshake.
            try checked(tt_set_receive_buffer(socket.rawValue, Int32(LineOptions.receiveBufferBytes)), "sizing receive buffers")
        }
        port = Socket.localPort(listener)
        self.turnedAway = turnedAway
    }

    public func accept(within limit: Nanoseconds) throws(TurntableError) -> IncomingConnection? {
        let deadline = Clock.now + limit
        while true {
            if let next = arrived.update({ $0.greeted.isEmpty ? nil : $0.greeted.removeFirst() }) { return next }
            guard Clock.now < deadline else { return nil }
            guard let socket = try Socket.accept(listener, within: min(Limits.greetingPollTime, deadline - Clock.now)) else { continue }
            greet(socket)
        }
    }

    /// Reads the preface on a thread of its own, so that a silent stranger holds nobody up.
    private func greet(_ socket: consuming Descriptor) {
        let peer = Socket.peerName(socket)
        let isFull = arrived.update { state in
            state.greeting += 1
            return state.greeting > Limits.greetings
        }
        if isFull {
            arrived.update { $0.greeting -= 1 }
            return turnedAway("a connection from \(peer): \(Limits.greetings) others have not said what they want yet")
        }
        let raw = socket.release()
        _ = WorkerThread("greeting") { [self] in
            let connection = identify(Descriptor(owning: raw), peer: peer)
            arrived.update { state in
                state.greeting -= 1
                if let connection { state.greeted.append(connection) }
            }
        }
    }

    private func identify(_ socket: consuming Descriptor, peer: String) -> IncomingConnection? {
        do throws(TurntableError) {
            let bytes = try readExactly(socket, Preface.bytes, within: Limits.helloTime, what: "a preface")
            let preface: Preface
            do { preface = try Preface.decode(bytes) } catch { throw TurntableError(.protocol, "a preface", error.description) }
            switch preface.role {
            case .control:
                try configureControl(socket)
                let control = TCPControlChannel(socket: socket, attachment: .random())
                let answer = Greeting.answer(to: preface, attachment: control.attachment)
                try control.send(answer)
                if case .refused(let refusal) = answer { throw TurntableError(.protocol, "a control stream", refusal.reason) }
                return .control(control, peer: peer)
            case .data:
                try Socket.setTimeouts(socket, receive: Limits.pollTime, send: Limits.pollTime)
                return .data(TCPFrameReceiver(socket: socket, stream: Int(preface.stream)), preface)
            }
        } catch {
            turnedAway("a connection from \(peer): \(error)")
            return nil
        }
    }
}

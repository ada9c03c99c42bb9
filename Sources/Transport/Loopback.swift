// A line within the process, for tests: the contract over bounded queues of bytes, with no socket and no kernel in it.
//
// It carries the same bytes as any other transport, so a stranger can write whatever it likes, and it promises no more
// than they do: a full queue blocks, and a cut line ends in the middle of a frame.

public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// Both ends of a line within the process. For tests.
@safe public final class Loopback: SourceTransport, TargetTransport {
    private let queueBytes: Int
    private let roundTrip: Nanoseconds
    private let rate: BitRate?
    private let state = Monitor(State())

    private struct State {
        var arriving: [LoopbackConnection] = []
        var queues: [LoopbackQueue] = []
        var turnedAway: [String] = []
    }

    /// - Parameters:
    ///   - queueBytes: what one direction of a connection holds before its sender waits.
    ///   - roundTrip: what the streams say of their line. Nothing is delayed.
    ///   - rate: what each stream carries, or nil for all that memory does.
    public init(queueBytes: Int = 1 << 20, roundTrip: Nanoseconds = .milliseconds(0.1), rate: BitRate? = nil) {
        self.rate = rate
        self.queueBytes = queueBytes
        self.roundTrip = roundTrip
    }

    /// What was turned away, and why.
    public var turnedAway: [String] { state.read { $0.turnedAway } }

    /// Cuts the line: every connection ends at both ends, and what was on its way is lost.
    public func cut() {
        // First what comes back, so that no end still answers to the loss of the other direction.
        let queues = state.read { $0.queues }
        for back in stride(from: 1, to: queues.count, by: 2) { queues[back].cut() }
        for queue in queues { queue.cut() }
    }

    /// A connection on which nothing was said yet, as a stranger has it.
    public func connect() -> LoopbackConnection {
        let there = LoopbackQueue(capacity: queueBytes), back = LoopbackQueue(capacity: queueBytes)
        let near = LoopbackConnection(incoming: back, outgoing: there)
        state.update {
            $0.arriving.append(LoopbackConnection(incoming: there, outgoing: back))
            $0.queues += [there, back]
        }
        return near
    }

    /// The far end of the next connection, before anything was read from it. Nil if there was none within `limit`.
    public func acceptConnection(within limit: Nanoseconds) -> LoopbackConnection? {
        state.wait(atMost: limit) { $0.arriving.isEmpty ? nil : $0.arriving.removeFirst() }
    }

    public func connectControl() throws(TurntableError) -> any ControlChannel {
        let connection = connect()
        try connection.write(Preface(role: .control).encoded())
        let control = LoopbackControl(connection)
        control.welcome(try Greeting.await(on: control))
        return control
    }

    public func connectStream(_ index: Int, attachment: AttachmentID, pages: any PageSource) throws(TurntableError) -> any FrameSender {
        let connection = connect()
        try connection.write(Preface(role: .data, stream: UInt16(index), attachment: attachment).encoded())
        return LoopbackSender(connection, pages: pages, roundTrip: roundTrip, rate: rate)
    }

    public func accept(within limit: Nanoseconds) throws(TurntableError) -> IncomingConnection? {
        let deadline = Clock.now + limit
        while true {
            // Only a connection that has said who it is, or never will, is taken: a silent one waits by itself.
            let ready = state.wait(atMost: min(Limits.greetingPollTime, deadline - Clock.now)) { state -> LoopbackConnection? in
                guard let index = state.arriving.firstIndex(where: { $0.isReadable(Preface.bytes) }) else { return nil }
                return state.arriving.remove(at: index)
            }
            if let ready, let connection = identify(ready) { return connection }
            if Clock.now >= deadline { return nil }
        }
    }

    private func identify(_ connection: LoopbackConnection) -> IncomingConnection? {
        do {
            let preface = try Preface.decode(try connection.read(Preface.bytes, within: Limits.helloTime))
            switch preface.role {
            case .control:
                let control = LoopbackControl(connection, attachment: .random())
                let answer = Greeting.answer(to: preface, Welcome(attachment: control.attachment), protection: .none)
                try control.send(answer)
                if case .refused(let refusal) = answer { throw TurntableError(.protocol, "a control stream", refusal.reason) }
                return .control(control, peer: "loopback")
            case .data: return .data(LoopbackReceiver(connection, stream: Int(preface.stream)), preface)
            }
        } catch {
            connection.shutDown()
            state.update { $0.turnedAway.append("\(error)") }
            return nil
        }
    }
}

/// One end of a connection of a ``Loopback``: bytes both ways. It ends when it is given up.
public final class LoopbackConnection: ByteConnection {
    private let incoming: LoopbackQueue
    private let outgoing: LoopbackQueue

    fileprivate init(incoming: LoopbackQueue, outgoing: LoopbackQueue) {
        self.incoming = incoming
        self.outgoing = outgoing
    }

    deinit { shutDown() }

    /// Ends both directions. What was sent before can still be read.
    public func shutDown() {
        incoming.close()
        outgoing.close()
    }

    /// Whether `count` bytes, or the end, can be read without waiting.
    func isReadable(_ count: Int) -> Bool { incoming.holds(count) }
    public func waitReadable(within limit: Nanoseconds) -> Bool { incoming.waitForBytes(within: limit) }
    public var sent: (unread: Int, read: Int) { outgoing.counts }
    public func read(into buffer: UnsafeMutableRawBufferPointer, within limit: Nanoseconds) throws(TurntableError) {
        try unsafe incoming.read(into: buffer, within: limit)
    }
    public func write(_ buffer: UnsafeRawBufferPointer) throws(TurntableError) { try unsafe outgoing.write(buffer) }
}

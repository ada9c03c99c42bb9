// One control stream with its data streams at a target: what they deliver goes to the session's Arrival, and ends with them.

internal import Synchronization
public import Transport
public import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// How many bytes of pages, blocks and device state may come in a session, over all its attachments.
final class ByteBudget: Sendable {
    private let most: ByteCount
    private let used = Atomic(0)

    init(_ most: ByteCount) { self.most = most }

    /// An error from the frame on that exceeds it.
    func take(_ bytes: Int) -> TurntableError? {
        guard used.add(bytes, ordering: .relaxed).newValue > most.value else { return nil }
        return TurntableError(.refused, "receiving", "more has come than the \(most) that its token grants", remedy: "ask for a larger budget")
    }
}

/// What came over one connection of a source, until the line is cut.
public final class TargetAttachment: Sendable {
    let control: any ControlChannel
    public let peer: String
    let state = Monitor(State())

    struct State {
        var receivers: [Int: any FrameReceiver] = [:]
        var threads: [WorkerThread] = []
        /// Set when the machine is prepared: streams may deliver.
        var arrival: Arrival?
        var budget: ByteBudget?
        var streams = Limits.streams
        var failure: TurntableError?
        /// The source came back over another line: nothing more comes over this one.
        var isReplaced = false
        /// Why a stream ended. No failure if it had delivered all that the hand-off counts.
        var streamEnds: [Int: TurntableError] = [:]
        var isEnded = false
        var handoff: Handoff?
        /// The source's journal says that the machine is this end's.
        var isConfirmed = false
        var digests: [Digests] = []
        var digestedStripes = 0
        /// Frames that arrive wake whoever waits for them.
        var frames: UInt64 = 0
    }

    var isEnded: Bool { state.read { $0.isEnded } }

    public init(_ control: any ControlChannel, peer: String) {
        self.control = control
        self.peer = peer
    }

    /// A data stream of this attachment arrived. One that the offer does not name ends the attachment. One that came already
    /// is only turned away: on a protected line somebody has recorded its beginning and said it again.
    public func add(_ receiver: any FrameReceiver, stream: Int, stall: Nanoseconds) {
        let isTaken = state.update { state in
            guard !state.isEnded, stream < state.streams, state.receivers[stream] == nil else { return false }
            state.receivers[stream] = receiver
            return true
        }
        guard isTaken else {
            if stream >= state.read({ $0.streams }) {
                fail(TurntableError(.protocol, "data stream \(stream)", "it is one too many; the offer names the streams"))
            }
            return receiver.shutDown()
        }
        let thread = WorkerThread("tt-receive-\(stream)") { [self] in receive(receiver, stream, stall) }
        state.update { $0.threads.append(thread) }
    }

    /// Lets the streams deliver, and reads the control stream.
    func begin(_ offer: Offer, _ arrival: Arrival, _ budget: ByteBudget?, stall: Nanoseconds) throws(TurntableError) {
        let excess = state.update { state in
            state.streams = Int(offer.streams)
            state.budget = budget
            state.arrival = arrival
            return state.receivers.keys.contains { $0 >= state.streams }
        }
        if excess { throw TurntableError(.protocol, "a data stream", "the offer names \(offer.streams) streams and more were opened") }
    }

    /// Answers heartbeats from now on, also while the machine is being prepared.
    func listen(_ offer: Offer, stall: Nanoseconds) {
        let thread = WorkerThread("tt-control") { [self] in hear(offer, stall) }
        state.update { $0.threads.append(thread) }
    }

    /// Nothing on this line writes the machine's memory by itself any more.
    func endAccess() { for receiver in state.read({ Array($0.receivers.values) }) { receiver.endAccess() } }

    /// Ends the attachment; when this returns none of its threads is left, and nothing of it arrives any more.
    func end() {
        let (receivers, threads) = state.update { state in
            state.isEnded = true
            defer { state.threads = [] }
            return (Array(state.receivers.values), state.threads)
        }
        for receiver in receivers { receiver.shutDown() }
        control.shutDown()
        for thread in threads { thread.join() }
    }

    func fail(_ error: TurntableError) {
        state.update { state in
            // Who gives up closes its streams: that is said, not what it looked like. And what comes after the end is no reason for it.
            let explains = error.kind == .cancelled && state.failure?.kind == .line
            if explains || (state.failure == nil && !state.isEnded) { state.failure = error }
        }
    }

    /// The source is back over another line, whether or not it was seen here that this one is dead.
    func replace() {
        state.update { $0.isReplaced = true }
        fail(TurntableError(.line, "the source", "it came back over another line"))
    }

    /// A stream's thread.
    private func receive(_ receiver: any FrameReceiver, _ stream: Int, _ stall: Nanoseconds) {
        var arrival: Arrival?
        while arrival == nil {
            if state.read({ $0.isEnded }) { return }
            arrival = state.wait(atMost: Limits.pollTime) { $0.arrival }
        }
        guard let arrival else { return }
        let budget = state.read { $0.budget }
        let sink = StreamArrival(arrival, stream: stream) { [self] failure in
            state.update { $0.frames += 1 }
            if let failure { fail(failure) }
        }
        defer { sink.abandon() }
        var lastHeard = Clock.now
        do throws(TurntableError) {
            while !state.read({ $0.isEnded }) {
                guard let header = try receiver.receive(into: sink) else {
                    let silence = Clock.now - lastHeard
                    // An idle source says so on every stream.
                    guard silence < stall else { throw TurntableError(.line, "data stream \(stream)", "silent for \(silence)") }
                    continue
                }
                lastHeard = Clock.now
                // What exceeds it never counts as arrived, so the machine is not taken over.
                if let error = budget?.take(header.payloadBytes) { return fail(error) }
                sink.finish(header)
                state.update { $0.frames += 1 }
            }
        } catch {
            state.update { $0.streamEnds[stream] = error }
        }
    }

    /// The control stream's thread.
    private func hear(_ offer: Offer, _ stall: Nanoseconds) {
        var lastHeard = Clock.now
        while !state.read({ $0.isEnded }) {
            do throws(TurntableError) {
                guard let message = try control.receive(within: Limits.pollTime) else {
                    let silence = Clock.now - lastHeard
                    if silence > stall { throw TurntableError(.line, "hearing from the source", "silent for \(silence)") }
                    continue
                }
                lastHeard = Clock.now
                let (arrival, hasHandoff) = state.read { ($0.arrival, $0.handoff != nil) }
                switch message {
                // A source that cannot be answered may have handed off before it left.
                case .ping(let stamp): try? control.send(.pong(Pong(stamp: stamp, received: arrival?.received ?? [])))
                case .abort(let reason) where !hasHandoff: throw TurntableError(.cancelled, "the source", reason)
                case .handoff(let handoff) where arrival != nil: state.update { $0.handoff = $0.handoff ?? handoff }
                case .confirmed(let query) where hasHandoff && query.epoch == offer.epoch && query.session == offer.session:
                    state.update { $0.isConfirmed = true }
                case .digests(let digests): try take(digests, arrival)
                default: throw TurntableError(.protocol, "the source", "it sent a message that is not for now")
                }
            } catch {
                return fail(error)
            }
        }
    }

    private func take(_ digests: Digests, _ arrival: Arrival?) throws(TurntableError) {
        guard let layout = arrival?.layout, Int(digests.region) < layout.regionCount,
            Int(digests.firstStripe) + digests.stripes.count <= layout.stripes(in: Int(digests.region))
        else { throw TurntableError(.protocol, "the source", "its digests are of memory that the machine does not have") }
        let most = (0..<layout.regionCount).reduce(0) { $0 + layout.stripes(in: $1) }
        let isTooMuch = state.update { state in
            state.digests.append(digests)
            state.digestedStripes += max(1, digests.stripes.count)
            return state.digestedStripes > most
        }
        if isTooMuch { throw TurntableError(.protocol, "the source", "it sent more digests than the machine has stripes") }
    }
}

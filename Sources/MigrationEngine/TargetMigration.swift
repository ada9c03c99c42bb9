// The target's side of a migration, from the offer to Committed.
//
//   preparing → copying → handedOff → completed
//
// Until Handoff everything made here is thrown away when the session ends. After Handoff the target owns the machine: it
// resumes as soon as every stream has delivered what Handoff counts, without asking back.

public import Transport
public import TurntableCore
internal import TurntableLinux
public import WireFormat

public final class TargetMigration: Sendable {
    private let control: any ControlChannel
    private let host: any TargetHost
    private let waits: MigrationWaits
    private let report: @Sendable (MigrationEvent) -> Void
    private let state = Monitor(State())

    private struct State {
        var phase = MigrationPhase.preparing
        var receivers: [Int: any FrameReceiver] = [:]
        /// Set when the machine is prepared: streams may deliver.
        var arrival: Arrival?
        var streams = Limits.streams
        var frames = [UInt64](repeating: 0, count: Limits.streams)
        var mayHaveRun = false
        var failure: TurntableError?
        /// Why a stream ended. No failure if it had delivered all that the hand-off counts.
        var streamEnds: [Int: TurntableError] = [:]
        var isEnded = false
        var offer: Offer?
        var handoff: Handoff?

        var anyFailure: TurntableError? { failure ?? streamEnds.first?.value }
    }

    public init(
        control: any ControlChannel, host: any TargetHost, waits: MigrationWaits = MigrationWaits(),
        report: @escaping @Sendable (MigrationEvent) -> Void
    ) {
        self.control = control
        self.host = host
        self.waits = waits
        self.report = report
    }

    public var phase: MigrationPhase { state.read { $0.phase } }

    /// What became of a migration that was received.
    public struct Outcome: Sendable {
        public var machine: String
        public var epoch: Epoch
        /// False if it was paused at the source, and is here.
        public var isRunning: Bool
        public var committed: Committed
    }

    /// A data stream of this session arrived. False if it is one too many.
    public func add(_ receiver: any FrameReceiver, stream: Int) -> Bool {
        let isWelcome = state.update { state in
            guard !state.isEnded, stream < state.streams, state.receivers[stream] == nil else { return false }
            state.receivers[stream] = receiver
            return true
        }
        if isWelcome {
            _ = WorkerThread("tt-receive-\(stream)") { [self] in receive(receiver, stream) }
        } else {
            fail(TurntableError(.protocol, "data stream \(stream)", "it is one too many or came twice; the offer names the streams"))
            receiver.shutDown()
        }
        return isWelcome
    }

    /// Ends the session before the hand-off. False if this end owns the machine already.
    public func cancel(_ reason: String) -> Bool {
        // In one step: what was handed off is not ended by a cancel that came too late.
        state.update { state in
            guard state.phase < .handedOff else { return false }
            state.failure = state.failure ?? TurntableError(.cancelled, "receiving", reason)
            return true
        }
    }

    /// Receives the machine. Throws if it did not come to run here; then nothing of it is left.
    public func run() throws(TurntableError) -> Outcome {
        var made: (any TargetMachine)?
        var epoch = Epoch(0)
        do throws(TurntableError) {
            let listener = WorkerThread("tt-control") { [self] in listen() }
            defer {
                endStreams()
                listener.join()
            }
            let offer = try awaitOffer()
            epoch = offer.epoch
            let machine = try host.prepare(offer, resumeWindow: waits.stall)
            made = machine
            let arrival = try prepare(offer, machine)
            try control.send(.offered(offer.epoch))
            enter(.copying)
            let handoff = try awaitHandoff(offer, machine)
            return try takeOver(offer, handoff, machine, arrival)
        } catch {
            if state.read({ $0.mayHaveRun }) { throw error }
            var cause = error
            if cause.kind == .line, let abort = abortOnItsWay() { cause = abort }
            made?.discard()
            try? control.send(.refused(Refusal(epoch: epoch, reason: cause.description)))
            throw cause
        }
    }

    /// A source that gives up closes its streams, and that can be seen before its reason is.
    private func abortOnItsWay() -> TurntableError? {
        if let failure = state.read({ $0.failure }), failure.kind != .line { return failure }
        let deadline = Clock.now + Limits.lastWordTime
        while Clock.now < deadline {
            guard let message = try? control.receive(within: deadline - Clock.now) else { return nil }
            if case .abort(let reason) = message { return TurntableError(.cancelled, "the source", reason) }
        }
        return nil
    }

    // MARK: - Preparing

    private func awaitOffer() throws(TurntableError) -> Offer {
        enter(.preparing)
        let offer = state.wait(atMost: Limits.helloTime) { state -> Result<Offer, TurntableError>? in
            state.failure.map { .failure($0) } ?? state.offer.map { .success($0) }
        }
        guard let offer else { throw TurntableError(.line, "waiting for an offer", "none came within \(Limits.helloTime)") }
        return try offer.get()
    }

    private func prepare(_ offer: Offer, _ machine: any TargetMachine) throws(TurntableError) -> Arrival {
        let offered = offer.regions.map { MemoryRegion(name: $0.name, pages: PageCount(Int($0.bytes) / pageBytes)) }
        guard machine.pages.regions == offered else {
            throw TurntableError(
                .refused, "preparing \(offer.machine)",
                "the target's memory is \(describe(machine.pages.regions)), the source's \(describe(offered))",
                remedy: "give both ends the same machine")
        }
        for population in offer.populations {
            let region = Int(population.region)
            let first = Int(population.firstStripe) * Limits.stripePages
            let end = min(first + Int(population.stripeCount) * Limits.stripePages, offered[region].pages.value)
            // In pieces, so that an end of the session is heeded between them.
            for start in stride(from: first, to: end, by: Self.populatedPages) {
                try machine.pages.populate(start..<min(start + Self.populatedPages, end), in: RegionIndex(region))
                try checkFailure()
            }
        }
        let arrival = Arrival(pages: machine.pages, streams: Int(offer.streams))
        let excess = state.update { state in
            state.streams = Int(offer.streams)
            state.arrival = arrival
            return state.receivers.keys.contains { $0 >= state.streams }
        }
        if excess { throw TurntableError(.protocol, "a data stream", "the offer names \(offer.streams) streams and more were opened") }
        return arrival
    }

    private static let populatedPages = (64 << 20) / pageBytes

    private func describe(_ regions: [MemoryRegion]) -> String {
        regions.map { "\($0.name) \($0.pages.bytes)" }.joined(separator: ", ")
    }

    // MARK: - Receiving

    /// A stream's thread.
    private func receive(_ receiver: any FrameReceiver, _ stream: Int) {
        var sink: Arrival?
        while sink == nil {
            if state.read({ $0.isEnded }) { return }
            sink = state.wait(atMost: Limits.pollTime) { $0.arrival }
        }
        guard let sink else { return }
        do throws(TurntableError) {
            while !state.read({ $0.isEnded }) {
                guard let header = try receiver.receive(into: sink) else { continue }
                state.update { $0.frames[stream] = header.sequence + 1 }
            }
        } catch {
            state.update { $0.streamEnds[stream] = error }
        }
    }

    private func awaitHandoff(_ offer: Offer, _ machine: any TargetMachine) throws(TurntableError) -> Handoff {
        var lastWords: Nanoseconds?
        while true {
            let handoff = state.wait(atMost: Limits.pollTime) { state -> Result<Handoff, TurntableError>? in
                // What has been handed off is ours, whatever came after it.
                state.handoff.map { .success($0) } ?? state.failure.map { .failure($0) }
            }
            guard let handoff = try handoff?.get() else {
                // A stream that ended may have been followed by a hand-off that is still on its way on the control stream:
                // that one's own end is waited for, as long as it takes a dead source's to arrive.
                if let end = state.read({ $0.streamEnds.first?.value }) {
                    let since = lastWords ?? Clock.now
                    lastWords = since
                    guard end.kind == .line, Clock.now - since < Limits.lastWordTime else { throw end }
                }
                try machine.checkAlive()
                continue
            }
            guard handoff.epoch == offer.epoch, handoff.session == offer.session, handoff.frames.count == Int(offer.streams) else {
                throw TurntableError(
                    .protocol, "the hand-off", "it is not of this offer (epoch \(handoff.epoch.value), \(handoff.frames.count) streams)")
            }
            return handoff
        }
    }

    /// The control stream's thread: answers at once, also while the machine is being prepared.
    private func listen() {
        var lastHeard = Clock.now
        while !state.read({ $0.isEnded }) {
            do throws(TurntableError) {
                guard let message = try control.receive(within: Limits.pollTime) else {
                    let silence = Clock.now - lastHeard
                    if silence > waits.stall { throw TurntableError(.line, "hearing from the source", "silent for \(silence)") }
                    continue
                }
                lastHeard = Clock.now
                switch (message, state.read { ($0.offer == nil, $0.handoff == nil) }) {
                // A source that cannot be answered may have handed off before it left.
                case (.ping(let stamp), _): try? control.send(.pong(stamp))
                case (.abort(let reason), (_, true)): throw TurntableError(.cancelled, "the source", reason)
                case (.offer(let offer), (true, _)): state.update { $0.offer = offer }
                case (.handoff(let handoff), (false, true)):
                    // A session that was ended here meanwhile is refused.
                    state.update { state in
                        guard state.failure == nil else { return }
                        state.handoff = handoff
                        state.phase = .handedOff
                    }
                case (.handoff, (false, false)): break  // said again: it was heard
                default: throw TurntableError(.protocol, "the source", "it sent a message that is not for now")
                }
            } catch {
                return fail(error)
            }
        }
    }

    // MARK: - Taking over

    private func takeOver(_ offer: Offer, _ handoff: Handoff, _ machine: any TargetMachine, _ arrival: Arrival) throws(TurntableError)
        -> Outcome
    {
        let arrived = Clock.now
        report(.phase(.handedOff))
        let complete = state.wait(atMost: waits.stall) { state -> Result<Void, TurntableError>? in
            for (stream, count) in handoff.frames.enumerated() where state.frames[stream] > count {
                return .failure(
                    TurntableError(.protocol, "data stream \(stream)", "it has \(state.frames[stream]) frames, the hand-off says \(count)"))
            }
            if handoff.frames.enumerated().allSatisfy({ state.frames[$0] == $1 }) { return .success(()) }
            // The source may be gone by now: what it sent before counts.
            let lost = state.streamEnds.first { state.frames[$0.key] < handoff.frames[$0.key] }
            return (state.failure ?? lost?.value).map { .failure($0) }
        }
        guard let complete else { throw TurntableError(.line, "waiting for the last pages", "they did not come within \(waits.stall)") }
        try complete.get()
        let delivered = Clock.now
        try unsafe machine.loadDeviceState(arrival.deviceState(bytes: Int(handoff.deviceStateBytes)))
        let loaded = Clock.now
        // From here on the machine may have run, so nothing below refuses any more.
        do { try machine.resume() } catch {
            state.update { $0.mayHaveRun = true }
            throw TurntableError(
                .relinquished, "resuming \(offer.machine)", "\(error); it is here and stopped, or runs",
                remedy: "look at it through its hypervisor")
        }
        let committed = Committed(
            epoch: offer.epoch, waitedForStreams: delivered - arrived, loadedDeviceState: loaded - delivered, resumed: Clock.now - loaded)
        enter(.completed)
        // The machine runs whether or not this gets through.
        try? control.send(.committed(committed))
        return Outcome(machine: offer.machine, epoch: offer.epoch, isRunning: machine.isRunning, committed: committed)
    }

    // MARK: - Ends

    /// Ends the session, unless the machine was handed off: then only what the streams lack can stop it.
    private func fail(_ error: TurntableError) {
        state.update { state in
            guard state.phase < .handedOff else { return }
            // Who gives up closes its streams: that is said, not what it looked like. And what comes after the end is no reason for it.
            let explains = error.kind == .cancelled && state.failure?.kind == .line
            if explains || (state.failure == nil && !state.isEnded) { state.failure = error }
        }
    }

    private func checkFailure() throws(TurntableError) {
        if let failure = state.read({ $0.anyFailure }) { throw failure }
    }

    private func endStreams() {
        let receivers = state.update { state in
            state.isEnded = true
            return Array(state.receivers.values)
        }
        for receiver in receivers { receiver.shutDown() }
    }

    private func enter(_ phase: MigrationPhase) {
        state.update { $0.phase = phase }
        report(.phase(phase))
    }
}

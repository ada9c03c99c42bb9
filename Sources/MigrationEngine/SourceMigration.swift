// The source's side of a migration, from the greeting to the answer after the hand-off.
//
//   connecting → preparing → copying ⇄ paused → handedOff → completed
//
// In `paused` nothing waits for the target. With the first byte of Handoff the state is handedOff: from there on the
// machine stays stopped here, whatever happens, unless the target refuses.

public import Transport
public import TurntableCore
internal import TurntableLinux
internal import WireFormat

public struct MigrationOptions: Sendable {
    public var streams = 1
    /// The longest the machine may stand still.
    public var budget = Nanoseconds.milliseconds(300)
    /// The bandwidth that was promised, if any.
    public var statedRate: BitRate?
    /// The round trip, if the caller knows it.
    public var roundTrip: Nanoseconds?
    public var waits = MigrationWaits()
    public init() {}
}

/// How long a migration waits for the other end. A test has less time than a line.
public struct MigrationWaits: Sendable {
    public var prepare = Limits.prepareTime
    public var stall = Limits.stallTime
    public var commit = Limits.commitTime
    public init() {}
}

public final class SourceMigration: Sendable {
    let machine: any SourceMachine
    let transport: any SourceTransport
    let options: MigrationOptions
    let report: @Sendable (MigrationEvent) -> Void
    let session = SessionID.random()
    let state = Monitor(State())

    struct State {
        var phase = MigrationPhase.connecting
        var isCancelled = false
        var control: (any ControlChannel)?
        var listener: WorkerThread?
        var senders: [StripeSender] = []
        /// What the target said, when it was more than a heartbeat.
        var answer: Answer?
        var meter = LineMeter(statedRate: nil)
        var lastHeard = Nanoseconds.zero
        var lastPing = Nanoseconds.zero
    }
    enum Answer {
        case offered
        case refused(Refusal)
        case committed(Committed)
        case lost(TurntableError)
    }

    public init(
        machine: any SourceMachine, transport: any SourceTransport, options: MigrationOptions,
        report: @escaping @Sendable (MigrationEvent) -> Void
    ) {
        self.machine = machine
        self.transport = transport
        self.options = options
        self.report = report
        state.update { $0.meter = LineMeter(statedRate: options.statedRate) }
    }

    public var phase: MigrationPhase { state.read { $0.phase } }

    /// Asks for an end before the hand-off. False if the right to run was given up already.
    public func cancel() -> Bool {
        let accepted = state.update { state in
            guard state.phase < .handedOff else { return false }
            state.isCancelled = true
            return true
        }
        if accepted { endStreams() }
        return accepted
    }

    /// Moves the machine. Throws if it did not; the error's kind says where it runs: everywhere but for
    /// ``TurntableError/Kind/relinquished`` it runs on here, if its hypervisor lives.
    public func run() throws(TurntableError) -> MigrationReport {
        let started = Clock.now
        // The streams end after the target was told why.
        defer { endConnections() }
        do throws(TurntableError) {
            return try migrate(try connect(), started)
        } catch {
            let (phase, isCancelled, control) = state.read { ($0.phase, $0.isCancelled, $0.control) }
            if phase >= .handedOff { throw error }
            var cause = isCancelled ? TurntableError(.cancelled, "moving \(machine.name)", "cancelled; the machine runs on here") : error
            if cause.kind == .line, let refusal = refusalOnItsWay() { cause = refusal }
            // Whatever else failed, it failed because of that.
            do { try machine.checkAlive() } catch { cause = error }
            try? control?.send(.abort(cause.description))
            throw cause
        }
    }

    private func connect() throws(TurntableError) -> any ControlChannel {
        enter(.connecting)
        let control = try transport.connectControl()
        state.update { $0.control = control }
        try checkCancelled()
        let listener = WorkerThread("tt-control") { [self] in listen(control) }
        state.update { $0.listener = listener }
        return control
    }

    private func migrate(_ control: any ControlChannel, _ started: Nanoseconds) throws(TurntableError)
        -> MigrationReport
    {
        if let roundTrip = options.roundTrip { state.update { $0.meter.sawRoundTrip(roundTrip) } }

        // Prepare: the streams' windows open while the target makes the machine's shell.
        enter(.preparing)
        let shared = SendState(pages: machine.pages, streams: options.streams)
        let dirtyLog = try machine.startDirtyLog(streams: options.streams, isContinued: false)
        if !dirtyLog.summary.isEmpty { report(.note("dirty log: \(dirtyLog.summary)")) }
        populate(shared)
        let epoch = machine.epoch.next
        try control.send(.offer(makeOffer(epoch: epoch, shared)))
        let senders = try connectStreams(control.attachment, shared, dirtyLog)
        let handshakes = senders.map(\.status.roundTrip)
        state.update { state in for time in handshakes { state.meter.sawRoundTrip(time) } }
        if state.read({ $0.meter.roundTrip }) > Self.longLine { for sender in senders { sender.start(.warmUp) } }
        try awaitOffered()

        // Copy, until what is left fits the budget.
        enter(.copying)
        var convergence = Convergence(budget: options.budget)
        var rounds: [RoundReport] = []
        var withdrawn = 0
        var prediction: BlackoutPrediction
        while true {
            let round = try sendRound(UInt32(rounds.count), senders, shared, dirtyLog, previous: rounds.last)
            rounds.append(round.report)
            report(.round(round.report))
            prediction = round.prediction
            switch convergence.decide(after: round.outcome, prediction: prediction, line: round.line) {
            case .anotherRound:
                try letOut(senders, pagesLeft: round.outcome.pagesLeft, line: round.line)
                continue
            case .refuse(let why):
                throw TurntableError(
                    .refused, "moving \(machine.name) within the downtime budget", why + "; the machine runs on here",
                    remedy: "raise --downtime, or calm the guest")
            case .pause: break
            }
            if let blackout = try handOff(epoch, session, senders, shared, dirtyLog, prediction) {
                let committed = try awaitCommitted(epoch)
                return finish(blackout, committed, prediction, rounds, withdrawn, senders, epoch, started)
            }
            withdrawn += 1
            enter(.copying)
            guard withdrawn < Limits.pauseAttempts else {
                throw TurntableError(
                    .refused, "moving \(machine.name) within the downtime budget",
                    "paused \(withdrawn) times, and each time what was left took longer than the budget of \(options.budget), "
                        + "last \(prediction.total); the machine runs on here",
                    remedy: "raise --downtime")
            }
        }
    }
}

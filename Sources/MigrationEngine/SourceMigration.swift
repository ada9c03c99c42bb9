// The source's side of a migration, from the greeting to the answer after the hand-off.
//
//   phase   connecting → preparing → copying ⇄ paused → handedOff → completed
//   right   owning → offering ⇄ paused → relinquished → committed | reclaimed
//
// A cut line ends an attachment, and the migration goes on with another (SourceSession.swift). In `paused` nothing waits
// for the target. Before the first byte of Handoff the right is given up (`relinquished`): from there on the machine stays
// still here, whatever happens, unless the target refuses.

public import Transport
public import TurntableCore
internal import TurntableLinux
public import WireFormat

public struct MigrationOptions: Sendable {
    public var streams = 1
    /// The longest the machine may stand still.
    public var budget = Nanoseconds.milliseconds(300)
    /// The bandwidth that was promised, if any.
    public var statedRate: BitRate?
    /// The round trip, if the caller knows it.
    public var roundTrip: Nanoseconds?
    /// How long a cut line is waited for; zero ends the migration with the line.
    public var resumeWindow = Limits.resumeWindow
    public var verification = Verification.after
    /// The target as the journal names it.
    public var peer = ""
    /// Permission for the move, for a target that demands it.
    public var token: [UInt8] = []
    public var waits = MigrationWaits()
    /// Whether a statement (JournalRecord.signedBytes, its signature) is signed by a host that may make it; on a line without
    /// protection nobody signs.
    public var believes: @Sendable (_ statement: [UInt8], _ signature: [UInt8]) -> Bool = { _, _ in true }
    /// Makes ready to tell the keepers of the machine's address whose it is from then on, which what this gives does: the target's
    /// once it is handed off, so that packets are there when it runs; this host's (`isHere`) if it was given back.
    public var announcing: @Sendable (_ machine: String, Epoch, _ isHere: Bool) throws(TurntableError) -> @Sendable () -> Void = { _, _, _ in {} }
    public init() {}
}

/// How long a migration waits for the other end. A test has less time than a line.
public struct MigrationWaits: Sendable {
    public var prepare = Limits.prepareTime
    public var readiness = Limits.readinessTime
    public var stall = Limits.stallTime
    public var commit = Limits.commitTime
    public init() {}
}

public final class SourceMigration: Sendable {
    let machine: any SourceMachine
    let transport: any SourceTransport
    let journals: Journals
    let options: MigrationOptions
    let report: @Sendable (MigrationEvent) -> Void
    let state = Monitor(State())

    struct State {
        var phase = MigrationPhase.connecting
        var right = SourceRight.owning
        var isCancelled = false
        var meter = LineMeter(statedRate: nil)
        /// The bandwidth that was promised last, if any.
        var statedRate: BitRate?
        /// By streams of attachments that are over.
        var earlier = StripeSender.Counts()
        // Of the attachment.
        var control: (any ControlChannel)?
        var listener: WorkerThread?
        var senders: [StripeSender] = []
        /// What the target said, when it was more than a heartbeat, and not yet acted on.
        var said: Answer?
        /// How its control stream ended.
        var lost: TurntableError?
        /// The machine could run at the target as soon as it is there.
        var isTargetReady = true
        /// What the target said before it left counts more than that it left.
        var answer: Answer? { said ?? lost.map { .lost($0) } }
        /// What it said of the memory, which it may say before it says that it runs the machine.
        var verified: Verified?
        var lastHeard = Nanoseconds.zero
        var lastPing = Nanoseconds.zero
        /// When the heartbeat behind the hand-off was sent, and how long its answer took: what the line took for the hand-off, and back.
        var handOffPing: Nanoseconds?
        var handOffRoundTrip: Nanoseconds?
        /// When the target's word came that it runs the machine.
        var committedAt: Nanoseconds?
    }
    enum Answer {
        case offered(Offered)
        case refused(Refusal)
        case committed(Committed)
        case lost(TurntableError)
    }

    public init(
        machine: any SourceMachine, transport: any SourceTransport, journals: Journals, options: MigrationOptions,
        report: @escaping @Sendable (MigrationEvent) -> Void
    ) {
        self.machine = machine
        self.transport = transport
        self.journals = journals
        self.options = options
        self.report = report
        state.update {
            $0.meter = LineMeter(statedRate: options.statedRate)
            $0.statedRate = options.statedRate
        }
    }

    public var phase: MigrationPhase { state.read { $0.phase } }
    public var right: SourceRight { state.read { $0.right } }

    /// All that this process has sent, also of a migration that failed.
    public var sent: SentReport {
        let counts = allSent
        return SentReport(bytesOnWire: counts.bytesOnWire, blocksSent: counts.blocks)
    }

    var allSent: StripeSender.Counts {
        let (senders, earlier) = state.read { ($0.senders, $0.earlier) }
        return senders.reduce(into: earlier) { $0 += $1.counts }
    }

    /// The bandwidth that was promised is another from now on: the streams follow at once.
    public func restate(_ rate: BitRate) throws(TurntableError) {
        let senders = state.update { state in
            state.statedRate = rate
            state.meter.restate(rate)
            return state.senders
        }
        for sender in senders { try sender.pace(at: rate.share(of: senders.count)) }
        report(.note("the line's rate is \(rate) from now on"))
    }

    /// Asks for an end before the hand-off. False if the right to run was given up already.
    public func cancel() -> Bool {
        let accepted = state.update { state in
            guard [.owning, .offering, .paused].contains(state.right) else { return false }
            state.isCancelled = true
            return true
        }
        if accepted { endStreams() }
        return accepted
    }

    /// Moves the machine. Throws if it did not; the error's kind says where it runs: everywhere but for
    /// ``TurntableError/Kind/relinquished`` it runs on here, if its hypervisor lives.
    public func run() throws(TurntableError) -> MigrationReport {
        let session: SourceSession
        do throws(TurntableError) { session = try openSession() } catch {
            endDisks()
            throw error
        }
        do throws(TurntableError) {
            let isKnown = right == .committed
            // An earlier process may not have come to say so; the rest is done also without.
            if isKnown { try? Confirmation.send(session.name, over: transport) }
            let report = isKnown ? finish(session, Committed(epoch: session.epoch), []) : try carryOn(session)
            endConnections()
            return report
        } catch {
            throw close(session, after: error)
        }
    }

    /// One attachment, from its greeting to the migration's end.
    func attach(_ session: SourceSession) throws(TurntableError) -> MigrationReport {
        let senders = try prepare(session)
        guard let offered = try awaitOffered(session) else {
            return finish(session, try awaitCommitted(session), senders)
        }
        try accept(offered, session)
        if session.isHandedOff { return finish(session, try handOffAgain(session, senders), senders) }

        // Copy, until what is left fits the budget.
        enter(.copying)
        var convergence = Convergence(budget: options.budget)
        while true {
            let round = try sendRound(session, senders)
            session.rounds.append(round.report)
            report(.round(round.report))
            session.prediction = round.prediction
            switch convergence.decide(after: round.outcome, prediction: round.prediction, line: round.line) {
            case .anotherRound: continue
            case .refuse(let why):
                throw TurntableError(
                    .refused, "moving \(machine.name) within the downtime budget", why + "; the machine runs on here",
                    remedy: "raise --downtime, or calm the guest")
            case .pause: if try awaitReadiness(session, senders) { continue }
            }
            if try handOff(session, senders) { return finish(session, try awaitCommitted(session), senders) }
            session.withdrawnPauses += 1
            enter(.copying)
            guard session.withdrawnPauses < Limits.pauseAttempts else {
                throw TurntableError(
                    .refused, "moving \(machine.name) within the downtime budget",
                    "paused \(session.withdrawnPauses) times, and each time what was left took longer than the budget of \(options.budget), "
                        + "last \(round.prediction.total); the machine runs on here",
                    remedy: "raise --downtime")
            }
        }
    }
}

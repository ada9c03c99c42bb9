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
    private let machine: any SourceMachine
    private let transport: any SourceTransport
    private let options: MigrationOptions
    private let report: @Sendable (MigrationEvent) -> Void
    private let state = Monitor(State())

    private struct State {
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
    private enum Answer {
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
            let (control, welcome) = try connect()
            return try migrate(control, welcome, started)
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

    private func connect() throws(TurntableError) -> (any ControlChannel, Welcome) {
        enter(.connecting)
        let control = try transport.connectControl()
        state.update { $0.control = control }
        try checkCancelled()
        let welcome = try greet(control)
        guard options.streams <= welcome.maximumStreams else {
            throw TurntableError(
                .refused, "opening \(options.streams) data streams", "the target takes \(welcome.maximumStreams)", remedy: "ask for fewer with --streams")
        }
        let listener = WorkerThread("tt-control") { [self] in listen(control) }
        state.update { $0.listener = listener }
        return (control, welcome)
    }

    private func migrate(_ control: any ControlChannel, _ welcome: Welcome, _ started: Nanoseconds) throws(TurntableError) -> MigrationReport {
        if let roundTrip = options.roundTrip { state.update { $0.meter.sawRoundTrip(roundTrip) } }

        // Prepare: the streams' windows open while the target makes the machine's shell.
        enter(.preparing)
        let shared = SendState(pages: machine.pages, streams: options.streams)
        let dirtyLog = try machine.startDirtyLog(streams: options.streams)
        if !dirtyLog.summary.isEmpty { report(.note("dirty log: \(dirtyLog.summary)")) }
        populate(shared)
        let epoch = machine.epoch.next
        try control.send(.offer(makeOffer(epoch: epoch, shared)))
        let senders = try connectStreams(welcome.session, shared, dirtyLog)
        let handshakes = senders.map(\.status.roundTrip)
        state.update { state in for time in handshakes { state.meter.sawRoundTrip(time) } }
        if state.read({ $0.meter.roundTrip }) > Self.longLine { for sender in senders { sender.start(.warmUp) } }
        try awaitOffered(control)

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
                throw TurntableError(.refused, "moving \(machine.name) within the downtime budget", why + "; the machine runs on here", remedy: "raise --downtime, or calm the guest")
            case .pause: break
            }
            if let blackout = try handOff(epoch, welcome.session, senders, shared, dirtyLog, prediction) {
                let committed = try awaitCommitted(epoch)
                return finish(blackout, committed, prediction, rounds, withdrawn, senders, epoch, started)
            }
            withdrawn += 1
            enter(.copying)
            guard withdrawn < Limits.pauseAttempts else {
                throw TurntableError(
                    .refused, "moving \(machine.name) within the downtime budget",
                    "paused \(withdrawn) times, and each time what was left took longer than the budget of \(options.budget), last \(prediction.total); the machine runs on here",
                    remedy: "raise --downtime")
            }
        }
    }

    private func greet(_ control: any ControlChannel) throws(TurntableError) -> Welcome {
        let remedy = "check that `turntable receive` listens there"
        let answer: ControlMessage?
        do { answer = try control.receive(within: Limits.helloTime) } catch {
            throw TurntableError(error.kind, "greeting the target", "\(error.what): \(error.why)", remedy: remedy)
        }
        switch answer {
        case .welcome(let welcome) where welcome.version == Preface.version: return welcome
        case .refused(let refusal): throw TurntableError(.refused, "the target", refusal.reason)
        case nil: throw TurntableError(.line, "greeting the target", "it said nothing for \(Limits.helloTime)", remedy: remedy)
        default: throw TurntableError(.protocol, "greeting the target", "it did not answer with a welcome", remedy: remedy)
        }
    }

    // MARK: - Preparing

    /// Opens the data streams side by side: each handshake takes a round trip.
    private func connectStreams(_ session: SessionID, _ shared: SendState, _ dirtyLog: any DirtyLog) throws(TurntableError) -> [StripeSender] {
        let opened = Monitor([Result<any FrameSender, TurntableError>?](repeating: nil, count: options.streams))
        let threads = (0..<options.streams).map { stream in
            WorkerThread("tt-connect-\(stream)") { [transport, machine] in
                let result = Result { () throws(TurntableError) in try transport.connectStream(stream, session: session, pages: machine.pages) }
                opened.update { $0[stream] = result }
            }
        }
        for thread in threads { thread.join() }
        var senders: [StripeSender] = []
        var failure: TurntableError?
        for (stream, result) in opened.read({ $0 }).enumerated() {
            switch result {
            case .success(let sender): senders.append(StripeSender(stream: stream, sender: sender, shared: shared, dirtyLog: dirtyLog))
            case .failure(let error): failure = error
            case nil: preconditionFailure("a thread that has ended has a result")
            }
        }
        state.update { $0.senders = senders }
        if let failure { throw failure }
        return senders
    }

    /// The first round is every page that may hold something.
    private func populate(_ shared: SendState) {
        for region in shared.pending.indices {
            machine.pages.forEachPopulatedRun(in: RegionIndex(region)) { shared.pending[region].insert($0) }
        }
    }

    private func makeOffer(epoch: Epoch, _ shared: SendState) -> Offer {
        var populations: [Offer.Population] = []
        for (region, pending) in shared.pending.enumerated() {
            var next = 0
            while let run = pending.nextRun(from: next, to: pending.pages) {
                next = run.upperBound
                let first = run.lowerBound / Limits.stripePages
                let end = (run.upperBound + Limits.stripePages - 1) / Limits.stripePages
                if let last = populations.last, last.region == region, Int(last.firstStripe + last.stripeCount) >= first || populations.count == Offer.maximumPopulations {
                    populations[populations.count - 1].stripeCount = UInt32(end) - last.firstStripe
                } else if populations.count < Offer.maximumPopulations {
                    populations.append(.init(region: UInt16(region), firstStripe: UInt32(first), stripeCount: UInt32(end - first)))
                }
            }
        }
        return Offer(
            epoch: epoch, machine: machine.name, streams: UInt16(options.streams),
            regions: machine.pages.regions.map { .init(name: $0.name, bytes: UInt64($0.pages.bytes.value)) },
            populations: populations, description: machine.description)
    }

    private func awaitOffered(_ control: any ControlChannel) throws(TurntableError) {
        let deadline = Clock.now + options.waits.prepare
        while Clock.now < deadline {
            heartbeat()
            let answer = state.wait(atMost: Limits.pollTime) { state -> Answer? in
                defer { state.answer = nil }
                return state.answer
            }
            switch answer {
            case .offered: return
            case .refused(let refusal): throw TurntableError(.refused, "the target", refusal.reason)
            case .lost(let error): throw error
            case .committed: throw TurntableError(.protocol, "the target", "it says that it runs a machine it was not given")
            case nil: try checkCancelled()
            }
        }
        throw TurntableError(.line, "waiting for the target to prepare", "no answer for \(options.waits.prepare)")
    }

    // MARK: - Copying

    private struct FinishedRound {
        var report: RoundReport
        var outcome: RoundOutcome
        var prediction: BlackoutPrediction
        var line: LineEstimate
    }

    private func sendRound(
        _ round: UInt32, _ senders: [StripeSender], _ shared: SendState, _ dirtyLog: any DirtyLog, previous: RoundReport?
    ) throws(TurntableError) -> FinishedRound {
        let started = Clock.now
        let before = total(senders)
        let acknowledgedBefore = acknowledged(senders)
        let pagesToSend = shared.pagesLeft.value
        for sender in senders { sender.start(.round(round, refresh: true)) }
        var lastReport = started
        for sender in senders {
            while try !sender.isDone(within: Self.tickTime) {
                try tick(senders)
                guard Clock.now - lastReport >= Self.progressTime else { continue }
                lastReport = Clock.now
                let rate = state.read { $0.meter.currentRate }
                let left = PageCount(max(0, pagesToSend - senders.reduce(0) { $0 + $1.pagesDoneInRound }))
                report(.progress(ProgressReport(
                    round: Int(round), pagesLeft: left.value, rateBitsPerSecond: rate.bitsPerSecond,
                    dirtyBytesPerSecond: previous?.dirtyBytesPerSecond ?? 0,
                    predictedBlackoutMilliseconds: previous?.predictedBlackoutMilliseconds ?? 0,
                    secondsLeft: rate.time(for: left.bytes).seconds)))
            }
        }
        try tick(senders)
        try settle(senders)
        let (meter, now) = (state.read { $0.meter }, Clock.now)
        state.update { $0.meter.pauseMeasuring() }
        try dirtyLog.drain(into: shared.pending)
        let elapsed = now - started
        let after = total(senders)
        let outcome = RoundOutcome(pagesLeft: shared.pagesLeft, elapsed: elapsed)
        let prediction = BlackoutPrediction(
            pagesLeft: outcome.pagesLeft, unsent: unsent(senders), line: meter.estimate, device: machine.deviceCost, drain: dirtyLog.standstill)
        let bytes = ByteCount(after.bytesOnWire - before.bytesOnWire)
        // By acknowledgements for a long round, which a full socket cannot flatter; a short one may be over before any.
        let delivered = acknowledged(senders) - acknowledgedBefore
        let rate = BitRate(elapsed > meter.roundTrip + LineMeter.window ? delivered : bytes, in: elapsed)
        let roundReport = RoundReport(
            round: Int(round), pagesSent: after.pages - before.pages, zeroPages: after.zeroPages - before.zeroPages,
            bytesOnWire: bytes.value, milliseconds: elapsed.milliseconds, rateBitsPerSecond: rate.bitsPerSecond,
            pagesLeft: outcome.pagesLeft.value, dirtyBytesPerSecond: outcome.dirtyBytesPerSecond,
            predictedBlackoutMilliseconds: prediction.total.milliseconds, standstillMilliseconds: dirtyLog.standstill.milliseconds)
        return FinishedRound(report: roundReport, outcome: outcome, prediction: prediction, line: meter.estimate)
    }

    /// Only on a line at least this long does a window take time to open.
    private static let longLine = Nanoseconds.milliseconds(5)
    private static let tickTime = Nanoseconds.milliseconds(20)
    private static let progressTime = Nanoseconds.milliseconds(200)

    /// While a window is still opening, bytes wait for it, not for the line: up to a round trip more, which no rate
    /// tells. Such a wait must be over before a pause, so it is waited for here, where the machine runs.
    private func settle(_ senders: [StripeSender]) throws(TurntableError) {
        let meter = state.read { $0.meter }
        guard meter.roundTrip != .forever else { return }
        let deadline = Clock.now + meter.roundTrip + meter.roundTrip
        while Clock.now < deadline {
            let isSettled = senders.allSatisfy { sender in
                let status = sender.status
                let product = meter.estimate.rate.bytesPerSecond * meter.roundTrip.seconds / Double(senders.count)
                let room = status.windowBytes - status.inFlightBytes
                let isOpen = status.windowBytes == ByteCount(0) || Double(status.windowBytes.value) >= product
                return isOpen || status.unsentBytes == ByteCount(0) && room >= machine.deviceCost.bytes
            }
            if isSettled { return }
            try tick(senders)
            Clock.sleep(Self.tickTime)
        }
    }

    /// When the streams hold more than another round would add, rounds only count themselves up: the line comes first.
    private func letOut(_ senders: [StripeSender], pagesLeft: PageCount, line: LineEstimate) throws(TurntableError) {
        let deadline = Clock.now + min(line.rate.time(for: unsent(senders)), Limits.letOutTime)
        while unsent(senders) > pagesLeft.bytes, Clock.now < deadline {
            try tick(senders)
            Clock.sleep(Self.tickTime)
        }
    }

    /// What is looked at while a round goes on.
    private func tick(_ senders: [StripeSender]) throws(TurntableError) {
        heartbeat()
        try checkCancelled()
        try checkTarget()
        try machine.checkAlive()
        let acknowledged = acknowledged(senders)
        let roundTrips = senders.map(\.status.roundTrip)
        state.update { state in
            state.meter.sawAcknowledged(acknowledged, at: Clock.now)
            for time in roundTrips { state.meter.sawRoundTrip(time) }
        }
    }

    // MARK: - Pause and hand-off

    /// The machine's standstill at the source. Nil if it turned out too long and the machine was let run on.
    private func handOff(
        _ epoch: Epoch, _ session: SessionID, _ senders: [StripeSender], _ shared: SendState, _ dirtyLog: any DirtyLog,
        _ prediction: BlackoutPrediction
    ) throws(TurntableError) -> SourceBlackout? {
        try checkTarget()
        enter(.paused)
        var blackout = SourceBlackout(began: Clock.now)
        do throws(TurntableError) {
            try machine.pause()
            blackout.paused = Clock.now
            try dirtyLog.drain(into: shared.pending)
            blackout.scanned = Clock.now
            blackout.lastPages = shared.pagesLeft
            let line = state.read { $0.meter.estimate }
            let now = BlackoutPrediction(pagesLeft: blackout.lastPages, unsent: unsent(senders), line: line, device: machine.deviceCost)
            guard blackout.scanned - blackout.began + now.total - now.pause <= options.budget else { return try withdraw(now) }

            for sender in senders { sender.start(.round(.max, refresh: false)) }
            let deviceState = try machine.saveDeviceState()
            blackout.deviceSaved = Clock.now
            blackout.deviceStateBytes = deviceState.count
            try finishJobs(senders)
            blackout.lastPagesSent = Clock.now
            senders[0].start(.deviceState(deviceState))
            try finishJobs(senders)

            let rest = line.rate.time(for: unsent(senders)) + line.oneWay + machine.deviceCost.load
            guard Clock.now - blackout.began + rest <= options.budget else { return try withdraw(now) }
        } catch {
            // Nothing was handed off: the machine runs on here, if it can.
            try? machine.resume()
            throw error
        }

        let control = state.read { $0.control }
        let handoff = Handoff(epoch: epoch, session: session, frames: senders.map(\.counts.frames), deviceStateBytes: UInt64(blackout.deviceStateBytes))
        // In one step: what was said until now counts, and nothing that is said from now on takes the right back.
        let isOpen = state.update { state in
            let isOpen = !state.isCancelled && state.answer == nil
            if isOpen { state.phase = .handedOff }
            return isOpen
        }
        if !isOpen {
            try machine.resume()
            try checkCancelled()
            try checkTarget()
        }
        blackout.handedOff = Clock.now
        // From the first byte on the machine is the target's. An error here no longer means that it was not sent.
        try? control?.send(.handoff(handoff))
        report(.phase(.handedOff))
        return blackout
    }

    private func withdraw(_ prediction: BlackoutPrediction) throws(TurntableError) -> SourceBlackout? {
        try machine.resume()
        report(.note("paused, but what was left would have taken \(prediction.total), over the budget of \(options.budget): the machine runs on"))
        return nil
    }

    private func finishJobs(_ senders: [StripeSender]) throws(TurntableError) {
        for sender in senders {
            while try !sender.isDone(within: Limits.pollTime) {
                try checkCancelled()
                try checkTarget()
            }
        }
    }

    private func awaitCommitted(_ epoch: Epoch) throws(TurntableError) -> Committed {
        let answer = state.wait(atMost: options.waits.commit) { $0.answer }
        let unknown = "the machine is stopped and preserved here; do not resume it before you know that the target does not run it"
        switch answer {
        case .committed(let committed) where committed.epoch == epoch:
            enter(.completed)
            let senders = state.read { $0.senders }
            for sender in senders { sender.start(.flush) }
            // All of it has arrived: a stream that cannot say so any more is no reason to keep the machine's remains.
            for sender in senders { _ = try? sender.isDone(within: Limits.stallTime) }
            machine.discard()
            return committed
        case .refused(let refusal) where refusal.epoch == epoch:
            // The target did not run it and gives the right back.
            try machine.resume()
            throw TurntableError(.refused, "the target", "\(refusal.reason); the machine runs on here")
        case .refused(let refusal):
            throw TurntableError(.relinquished, "the target", "it refused epoch \(refusal.epoch.value) instead of \(epoch.value); \(unknown)")
        case .committed(let committed):
            throw TurntableError(.relinquished, "the target", "it answered for epoch \(committed.epoch.value) instead of \(epoch.value); \(unknown)")
        case .lost(let error):
            throw TurntableError(.relinquished, "waiting for the target to say that it runs \(machine.name)", "\(error.why); \(unknown)")
        case .offered, nil:
            throw TurntableError(.relinquished, "waiting for the target to say that it runs \(machine.name)", "no answer for \(options.waits.commit); \(unknown)")
        }
    }

    private func finish(
        _ source: SourceBlackout, _ target: Committed, _ prediction: BlackoutPrediction, _ rounds: [RoundReport], _ withdrawn: Int,
        _ senders: [StripeSender], _ epoch: Epoch, _ started: Nanoseconds
    ) -> MigrationReport {
        let roundTrip = state.read { $0.meter.roundTrip }
        let oneWay = roundTrip / 2
        let ended = Clock.now
        let sum = total(senders)
        let blackout = BlackoutReport(
            pauseMilliseconds: (source.paused - source.began).milliseconds,
            lastScanMilliseconds: (source.scanned - source.paused).milliseconds,
            lastPagesMilliseconds: (source.handedOff - source.scanned).milliseconds,
            deviceSaveMilliseconds: (source.deviceSaved - source.scanned).milliseconds,
            oneWayMilliseconds: oneWay.milliseconds,
            drainMilliseconds: target.waitedForStreams.milliseconds,
            deviceLoadMilliseconds: target.loadedDeviceState.milliseconds,
            resumeMilliseconds: target.resumed.milliseconds,
            totalMilliseconds: (source.handedOff - source.began + oneWay + target.waitedForStreams + target.loadedDeviceState + target.resumed).milliseconds,
            predictedMilliseconds: prediction.total.milliseconds, budgetMilliseconds: options.budget.milliseconds,
            lastPages: source.lastPages.value, deviceStateBytes: source.deviceStateBytes)
        return MigrationReport(
            machine: machine.name, epoch: epoch.value, streams: senders.map(\.summary), roundTripMilliseconds: roundTrip.milliseconds,
            totalSeconds: (ended - started).seconds, memoryBytes: machine.pages.regions.reduce(0) { $0 + $1.pages.bytes.value },
            pagesSent: sum.pages, bytesOnWire: sum.bytesOnWire, bulkRateBitsPerSecond: rounds.first?.rateBitsPerSecond ?? 0,
            rounds: rounds, blackout: blackout, retransmissions: senders.reduce(0) { $0 + $1.status.retransmissions },
            withdrawnPauses: withdrawn, isRunning: machine.isRunning)
    }

    // MARK: - The control stream

    /// Reads the control stream until it ends.
    private func listen(_ control: any ControlChannel) {
        state.update { $0.lastHeard = Clock.now }
        while true {
            do throws(TurntableError) {
                guard let message = try control.receive(within: Limits.pollTime) else {
                    let (lastHeard, phase) = state.read { ($0.lastHeard, $0.phase) }
                    let silence = Clock.now - lastHeard
                    // A target that makes a machine says nothing until it has, and awaitCommitted has a limit of its own.
                    if phase == .copying || phase == .paused, silence > options.waits.stall { throw TurntableError(.line, "hearing from the target", "silent for \(silence)") }
                    continue
                }
                let now = Clock.now
                state.update { state in
                    state.lastHeard = now
                    switch message {
                    case .pong(let stamp): state.meter.sawRoundTrip(now - Nanoseconds(Int64(truncatingIfNeeded: stamp)))
                    case .offered where state.phase == .preparing: state.answer = .offered
                    case .refused(let refusal): state.answer = .refused(refusal)
                    case .abort(let reason) where state.phase < .handedOff: state.answer = .refused(Refusal(epoch: machine.epoch.next, reason: reason))
                    case .abort(let reason): state.answer = .lost(TurntableError(.line, "the target", reason))
                    case .committed(let committed): state.answer = .committed(committed)
                    case .welcome, .offer, .offered, .ping, .handoff:
                        state.answer = .lost(TurntableError(.protocol, "the target", "it sent a message that is not for now"))
                    }
                }
            } catch {
                // What the target said before it left counts more than that it left.
                return state.update { if $0.answer == nil { $0.answer = .lost(error) } }
            }
        }
    }

    private func heartbeat() {
        let (control, due) = state.update { state in
            let now = Clock.now
            let due = now - state.lastPing >= Limits.heartbeatTime
            if due { state.lastPing = now }
            return (state.control, due)
        }
        // Where this fails, the listening thread hears what the target said before it left.
        if due { try? control?.send(.ping(UInt64(bitPattern: Clock.now.value))) }
    }

    /// Throws what the target said instead of going on.
    private func checkTarget() throws(TurntableError) {
        switch state.read({ $0.answer }) {
        case .refused(let refusal): throw TurntableError(.refused, "the target", refusal.reason)
        case .lost(let error): throw error
        case .committed: throw TurntableError(.protocol, "the target", "it says that it runs a machine it was not given")
        case .offered, nil: return
        }
    }

    private func checkCancelled() throws(TurntableError) {
        if state.read({ $0.isCancelled }) { throw TurntableError(.cancelled, "moving \(machine.name)", "cancelled") }
    }

    private func enter(_ phase: MigrationPhase) {
        state.update { $0.phase = phase }
        report(.phase(phase))
    }

    /// A target that refuses closes its streams, and that can be seen before its reason is.
    private func refusalOnItsWay() -> TurntableError? {
        guard state.read({ $0.listener }) != nil, case .refused(let refusal)? = state.wait(atMost: Limits.lastWordTime, until: { $0.answer }) else { return nil }
        return TurntableError(.refused, "the target", refusal.reason)
    }

    private func endStreams() { for sender in state.read({ $0.senders }) { sender.stop() } }

    private func endConnections() {
        endStreams()
        let (control, listener) = state.read { ($0.control, $0.listener) }
        control?.shutDown()
        listener?.join()
    }

    private func acknowledged(_ senders: [StripeSender]) -> ByteCount { senders.reduce(ByteCount(0)) { $0 + $1.status.acknowledgedBytes } }
    private func unsent(_ senders: [StripeSender]) -> ByteCount { senders.reduce(ByteCount(0)) { $0 + $1.status.unsentBytes } }
    private func total(_ senders: [StripeSender]) -> StripeSender.Counts {
        senders.reduce(into: StripeSender.Counts()) { sum, sender in
            let counts = sender.counts
            sum.pages += counts.pages
            sum.zeroPages += counts.zeroPages
            sum.bytesOnWire += counts.bytesOnWire
        }
    }
}

/// The points in time of a blackout, as the source's clock saw them.
private struct SourceBlackout {
    var began: Nanoseconds
    var paused = Nanoseconds.zero
    var scanned = Nanoseconds.zero
    var deviceSaved = Nanoseconds.zero
    var lastPagesSent = Nanoseconds.zero
    var handedOff = Nanoseconds.zero
    var lastPages = PageCount(0)
    var deviceStateBytes = 0

    init(began: Nanoseconds) { self.began = began }
}

// The target's side of a migration, from the offer to Committed, over as many attachments as the line needs.
//
//   phase   preparing → copying → handedOff → completed
//   right   idle → offered → owning | refused
//
// Until the hand-off is complete here everything made is thrown away when the session ends, and a refusal is logged. When
// every stream has delivered what Handoff counts the target owns the machine: it resumes it without asking back.

internal import Transport
public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// How a target receives.
public struct TargetOptions: Sendable {
    public var waits = MigrationWaits()
    /// The longest it keeps what it has of a machine whose line is cut; the source may ask for less.
    public var resumeWindow = Limits.resumeWindow
    /// Asked of each offer before anything is done about it: throws if it may not be, or gives how many bytes may come, if that is bounded.
    public var admit: @Sendable (_ offer: Offer, _ peerName: String, _ peerKey: [UInt8]) throws(TurntableError) -> ByteCount? = {
        (_, _, _) throws(TurntableError) in nil
    }
    /// Signs a statement for whoever has to believe it later; empty without keys.
    public var sign: @Sendable ([UInt8]) -> [UInt8] = { _ in [] }
    /// Makes ready, before the machine is paused, to tell the keepers of its address that it is here. What this gives tells them,
    /// and must wait for nothing.
    public var announcing: @Sendable (_ machine: String, Epoch) throws(TurntableError) -> @Sendable () -> Void = { _, _ in {} }
    public init() {}
}

public final class TargetMigration: Sendable {
    public let offer: Offer
    /// The source as its certificate names it: nobody else goes on with its session.
    let sourceName: String
    let budget: ByteBudget?
    let host: any TargetHost
    let journals: Journals
    let options: TargetOptions
    let report: @Sendable (MigrationEvent) -> Void
    let state = Monitor(State())

    struct State {
        var phase = MigrationPhase.preparing
        var right = TargetRight.idle
        var isCancelled: String?
        /// A newer attachment than the one that is served.
        var next: TargetAttachment?
        var current: TargetAttachment?
        var isOver = false
        /// Tells the keepers of the machine's address that it is here.
        var announce: @Sendable () -> Void = {}
    }

    public init(
        _ offer: Offer, from sourceName: String = "", byteBudget: ByteCount? = nil, host: any TargetHost, journals: Journals,
        options: TargetOptions = TargetOptions(),
        report: @escaping @Sendable (MigrationEvent) -> Void
    ) {
        self.offer = offer
        self.sourceName = sourceName
        budget = byteBudget.map { ByteBudget($0) }
        self.host = host
        self.journals = journals
        self.options = options
        self.report = report
    }

    public var phase: MigrationPhase { state.read { $0.phase } }
    public var right: TargetRight { state.read { $0.right } }

    /// What became of a migration that was received.
    public struct Outcome: Sendable {
        public var machine: String
        public var epoch: Epoch
        /// False if it was paused at the source, and is here.
        public var isRunning: Bool
        public var committed: Committed
        /// Nil if memory was not compared.
        public var verification: VerificationReport?
    }

    /// Who it comes from, as its line tells.
    var peer: String? { state.read { $0.current?.peer } }

    private var window: Nanoseconds { min(max(offer.resumeWindow, .zero), options.resumeWindow) }

    /// Whether this is the session's own offer, said again by its own source.
    func isSame(_ again: Offer, from name: String) -> Bool {
        name == sourceName && again.session == offer.session && again.epoch == offer.epoch && again.streams == offer.streams
            && again.regions == offer.regions && again.disks == offer.disks
    }

    /// Whether it is the session's source that came over `attachment`: by its name, or without protection by its address.
    func isFrom(_ attachment: TargetAttachment) -> Bool {
        attachment.control.peerName == sourceName && (!sourceName.isEmpty || attachment.peer == peer)
    }

    /// The source is back, over a new line. False if this session is over.
    public func attach(_ attachment: TargetAttachment) -> Bool {
        let older = state.update { state -> (waiting: TargetAttachment?, served: TargetAttachment?)? in
            guard !state.isOver else { return nil }
            defer { state.next = attachment }
            return (state.next, state.current)
        }
        guard let older else { return false }
        older.waiting?.end()
        older.served?.replace()
        return true
    }

    /// Ends the session before the hand-off. False if this end owns the machine already.
    public func cancel(_ reason: String) -> Bool {
        // In one step: what is our own is not ended by a cancel that came too late.
        state.update { state in
            guard state.phase < .handedOff, state.right != .owning else { return false }
            state.isCancelled = state.isCancelled ?? reason
            return true
        }
    }

    /// Receives the machine. Throws if it did not come to run here; then nothing of it is left.
    public func run(_ first: TargetAttachment) throws(TurntableError) -> Outcome {
        var attachment = first
        var made: (any TargetMachine)?
        var journal: Journal?
        defer { end(attachment) }
        do throws(TurntableError) {
            serve(attachment)
            enter(.preparing)
            let opened = try journals.open(offer.machine)
            journal = opened
            let found = try host.find(offer)
            try checkEpoch(opened)
            let machine: any TargetMachine
            if let found { machine = found } else { machine = try host.prepare(offer, resumeWindow: window) }
            made = machine
            let announce = try options.announcing(offer.machine, offer.epoch)
            state.update { $0.announce = announce }
            let arrival = try prepare(machine, isFound: found != nil)
            if try opened.history().target(offer.epoch) == .idle {
                try opened.log(record(.offered, peer: attachment.peer))
            }
            state.update { $0.right = .offered }
            var received = found == nil ? [] : arrival.received
            while true {
                do throws(TurntableError) {
                    let handoff = try receive(attachment, machine, arrival, received)
                    return try takeOver(handoff, machine, arrival, opened, attachment)
                } catch {
                    attachment = try awaitReturn(attachment, machine, after: error)
                    try arrival.settle()
                    received = arrival.received
                }
            }
        } catch {
            throw giveUp(error, made, journal, attachment)
        }
    }

    // MARK: - Preparing

    /// Epochs only rise: an offer that this host has seen the end of, or a later one than, is an old one said again.
    private func checkEpoch(_ journal: Journal) throws(TurntableError) {
        let history = try journal.history()
        let mine = history.records(of: .target, offer.epoch)
        let isSame = mine.last.map { $0.kind == .offered && $0.session == offer.session } ?? false
        guard isSame || !offer.isHandedOff else {
            throw TurntableError(
                .refused, "taking \(offer.machine) under epoch \(offer.epoch.value)",
                "this host was never offered it, and cannot have been given it")
        }
        guard isSame || offer.epoch > history.highestEpoch else {
            throw TurntableError(
                .refused, "taking \(offer.machine) under epoch \(offer.epoch.value)",
                "the journal here has seen epoch \(history.highestEpoch.value) already", remedy: "send it again: that takes a new epoch")
        }
        // Nobody may run what may have run here under the same epoch, not even this host.
        guard !isSame || history.isComplete(.target, offer.epoch) else {
            throw TurntableError(
                .relinquished, "taking \(offer.machine) under epoch \(offer.epoch.value)",
                "this host was restarted since it was offered, and may have run it", remedy: "see `turntable resolve \(offer.machine)`")
        }
    }

    private func prepare(_ machine: any TargetMachine, isFound: Bool) throws(TurntableError) -> Arrival {
        let offered = offer.regions.map { MemoryRegion(name: $0.name, pages: PageCount(Int($0.bytes) / pageBytes)) }
        guard machine.pages.regions == offered else {
            throw TurntableError(
                .refused, "preparing \(offer.machine)",
                "the target's memory is \(describe(machine.pages.regions)), the source's \(describe(offered))",
                remedy: "give both ends the same machine")
        }
        for population in offer.populations where !isFound {
            let region = Int(population.region)
            let first = Int(population.firstStripe) * Limits.stripePages
            let end = min(first + Int(population.stripeCount) * Limits.stripePages, offered[region].pages.value)
            // In pieces, so that an end of the session is heeded between them.
            for start in stride(from: first, to: end, by: Self.populatedPages) {
                try machine.pages.populate(start..<min(start + Self.populatedPages, end), in: RegionIndex(region))
                try checkCancelled()
                if let failure = state.read({ $0.current })?.state.read({ $0.failure }), failure.kind != .line { throw failure }
            }
        }
        let disks = machine.disks.map { Offer.Disk(name: $0.name, bytes: UInt64($0.size.value)) }
        guard disks == offer.disks else {
            throw TurntableError(
                .refused, "preparing \(offer.machine)", "the target's disks are \(describe(disks)), the source's \(describe(offer.disks))",
                remedy: "give both ends the same disks")
        }
        return Arrival(
            pages: machine.pages, disks: machine.disks, streams: Int(offer.streams), memory: try machine.sessionMemory(bytes: Arrival.sessionBytes(offered)),
            isDigesting: offer.verification != .off)
    }

    private static let populatedPages = (64 << 20) / pageBytes

    private func describe(_ regions: [MemoryRegion]) -> String {
        regions.map { "\($0.name) \($0.pages.bytes)" }.joined(separator: ", ")
    }

    private func describe(_ disks: [Offer.Disk]) -> String {
        disks.isEmpty ? "none" : disks.map { "\($0.name) \(ByteCount(Int($0.bytes)))" }.joined(separator: ", ")
    }

    // MARK: - Receiving

    private func serve(_ attachment: TargetAttachment) {
        state.update { $0.current = attachment }
        attachment.listen(offer, stall: options.waits.stall)
    }

    /// One attachment, until every stream has delivered what the hand-off counts.
    private func receive(
        _ attachment: TargetAttachment, _ machine: any TargetMachine, _ arrival: Arrival, _ received: [UInt64]
    ) throws(TurntableError) -> (Handoff, arrived: Nanoseconds) {
        try attachment.begin(offer, arrival, budget, stall: options.waits.stall)
        let contents = received.isEmpty ? machine.contents : []
        // Before it, so that no round ends without this being known.
        let isReady = machine.isReady
        if !isReady { try attachment.control.send(.readiness(false)) }
        try attachment.control.send(.offered(Offered(epoch: offer.epoch, host: journals.host, received: received, contents: contents)))
        enter(.copying)
        tellOlderPages(of: machine, contents, arrival, attachment)
        let handoff = try awaitHandoff(attachment, machine, isReady: isReady)
        let arrived = Clock.now
        let complete = attachment.state.wait(atMost: options.waits.stall) { state -> Result<Void, TurntableError>? in
            for (stream, count) in handoff.frames.enumerated() where arrival.received(stream) > count {
                return .failure(
                    TurntableError(
                        .protocol, "data stream \(stream)", "it has \(arrival.received(stream)) frames, the hand-off says \(count)"))
            }
            if handoff.frames.enumerated().allSatisfy({ arrival.received($0) == $1 }) { return .success(()) }
            // The source may be gone by now: what it sent before counts, as long as a stream may still deliver it.
            let lost = state.streamEnds.first { arrival.received($0.key) < handoff.frames[$0.key] }
            let breach = state.isReplaced || state.failure?.kind != .line ? state.failure : nil
            return (breach ?? lost?.value).map { .failure($0) }
        }
        guard let complete else {
            throw TurntableError(.line, "waiting for the last pages", "they did not come within \(options.waits.stall)")
        }
        try complete.get()
        return (handoff, arrived)
    }

    /// - Parameter isReady: false if the source waits to hear that the machine is.
    private func awaitHandoff(
        _ attachment: TargetAttachment, _ machine: any TargetMachine, isReady: Bool
    ) throws(TurntableError) -> Handoff {
        var lastWords: Nanoseconds?
        var isReady = isReady
        while true {
            let handoff = attachment.state.wait(atMost: Limits.pollTime) { state -> Result<Handoff, TurntableError>? in
                // What has been handed off is ours, whatever came after it.
                state.handoff.map { .success($0) } ?? state.failure.map { .failure($0) }
            }
            guard let handoff = try handoff?.get() else {
                // A stream that ended may have been followed by a hand-off that is still on its way on the control stream:
                // that one's own end is waited for, as long as it takes a dead source's to arrive.
                if let end = attachment.state.read({ $0.streamEnds.first?.value }) {
                    let since = lastWords ?? Clock.now
                    lastWords = since
                    guard end.kind == .line, Clock.now - since < Limits.lastWordTime else { throw end }
                }
                try checkCancelled()
                try machine.checkAlive()
                if !isReady, machine.isReady {
                    isReady = true
                    // A line that is gone is heard of by who listens.
                    try? attachment.control.send(.readiness(true))
                }
                continue
            }
            guard handoff.attachment == attachment.control.attachment else {
                throw TurntableError(.line, "the hand-off", "it was said on another line, and somebody says it again")
            }
            guard handoff.epoch == offer.epoch, handoff.session == offer.session, handoff.frames.count == Int(offer.streams) else {
                throw TurntableError(
                    .protocol, "the hand-off", "it is not of this offer (epoch \(handoff.epoch.value), \(handoff.frames.count) streams)")
            }
            let isOpen = state.update { state in
                // A session that was ended here meanwhile is refused.
                if state.isCancelled == nil { state.phase = .handedOff }
                return state.isCancelled == nil
            }
            if !isOpen { try checkCancelled() }
            report(.phase(.handedOff))
            return handoff
        }
    }

    /// Keeps what is here until the source is back, if `error` is one of the line.
    private func awaitReturn(
        _ attachment: TargetAttachment, _ machine: any TargetMachine, after error: TurntableError
    ) throws(TurntableError) -> TargetAttachment {
        var cause = error
        if cause.kind == .line, let abort = abortOnItsWay(attachment) { cause = abort }
        try checkCancelled()
        // A hypervisor that ended explains a line that did, and no other error.
        if cause.kind == .line { try machine.checkAlive() }
        guard right == .offered, cause.kind == .line, window > .zero else { throw cause }
        attachment.end()
        state.update { $0.phase = .copying }
        let deadline = Clock.now + window
        report(.interrupted(cause.description, secondsLeft: window.seconds))
        while Clock.now < deadline {
            let next = state.wait(atMost: Limits.pollTime) { state -> TargetAttachment? in
                defer { state.next = nil }
                return state.next
            }
            if let next {
                serve(next)
                report(.note("the source is back"))
                return next
            }
            try checkCancelled()
            try machine.checkAlive()
        }
        throw TurntableError(cause.kind, cause.what, "\(cause.why); the source did not come back within \(window)")
    }

    /// A source that gives up closes its streams, and that can be seen before its reason is.
    func abortOnItsWay(_ attachment: TargetAttachment) -> TurntableError? {
        attachment.state.wait(atMost: Limits.lastWordTime) { state -> TurntableError?? in
            guard let failure = state.failure else { return nil }
            // The control stream has said its last.
            return .some(failure.kind == .line ? nil : failure)
        } ?? nil
    }

    // MARK: - Ends

    func record(_ kind: JournalRecord.Kind, peer: String, detail: String = "") -> JournalRecord {
        JournalRecord(role: .target, kind: kind, epoch: offer.epoch, session: offer.session, peer: peer, detail: detail)
    }

    private func checkCancelled() throws(TurntableError) {
        if let reason = state.read({ $0.isCancelled }) { throw TurntableError(.cancelled, "receiving", reason) }
    }

    private func end(_ attachment: TargetAttachment) {
        attachment.end()
        let next = state.update { state in
            state.isOver = true
            defer { state.next = nil }
            return state.next
        }
        next?.end()
    }

    func enter(_ phase: MigrationPhase) {
        state.update { $0.phase = phase }
        report(.phase(phase))
    }
}

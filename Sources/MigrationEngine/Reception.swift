// What a receiver does with those who connect: an offer becomes a session, or goes on with one whose line was cut; a query
// is answered from the journal.

public import Transport
public import TurntableCore
internal import TurntableLinux
public import WireFormat

public final class Reception: Sendable {
    /// What it tells whoever runs it.
    public struct Reports: Sendable {
        public var note: @Sendable (String) -> Void
        public var event: @Sendable (MigrationEvent) -> Void
        public var ended: @Sendable (Result<TargetMigration.Outcome, TurntableError>, _ peer: String) -> Void
        public init(
            note: @escaping @Sendable (String) -> Void, event: @escaping @Sendable (MigrationEvent) -> Void,
            ended: @escaping @Sendable (Result<TargetMigration.Outcome, TurntableError>, _ peer: String) -> Void
        ) {
            self.note = note
            self.event = event
            self.ended = ended
        }
    }

    private struct State {
        var sessions: [SessionID: TargetMigration] = [:]
        var attachments: [AttachmentID: TargetAttachment] = [:]
        /// Sessions whose end is being looked up: nothing begins with them meanwhile.
        var resolving: Set<SessionID> = []
        var isInterrupted = false
        var outcome: Result<Void, TurntableError>?
    }
    private let host: any TargetHost
    private let journals: Journals
    private let options: TargetOptions
    private let once: Bool
    private let reports: Reports
    private let state = Monitor(State())

    /// - Parameter once: it ends after one machine.
    public init(host: any TargetHost, journals: Journals, options: TargetOptions, once: Bool, reports: Reports) {
        self.host = host
        self.journals = journals
        self.options = options
        self.once = once
        self.reports = reports
    }

    /// What is not handed off yet ends; what is comes to its end. False if there is such.
    @discardableResult
    public func interrupt() -> Bool {
        let sessions = state.update { state in
            state.isInterrupted = true
            return Array(state.sessions.values)
        }
        return sessions.reduce(true) { $1.cancel("the receiver was interrupted") && $0 }
    }

    /// Serves until it is interrupted, or, for one machine, until that one is here or will not be.
    public func serve(_ transport: any TargetTransport) throws(TurntableError) {
        while true {
            let (isDone, isIdle) = state.read { (once && $0.outcome != nil || $0.isInterrupted, $0.sessions.isEmpty) }
            if isDone && isIdle { break }
            switch try transport.accept(within: Limits.pollTime) {
            case .control(let control, let peer)?:
                let attachment = TargetAttachment(control, peer: peer)
                state.update { $0.attachments[control.attachment] = attachment }
                _ = WorkerThread("tt-greet") { [self] in greet(attachment) }
            case .data(let receiver, let preface)?:
                guard let attachment = state.read({ $0.attachments[preface.attachment] }) else {
                    reports.note("turned away a data stream of a session that is not here")
                    receiver.shutDown()
                    continue
                }
                attachment.add(receiver, stream: Int(preface.stream), stall: options.waits.stall)
            // What has ended takes no streams any more.
            case nil: state.update { state in state.attachments = state.attachments.filter { !$0.value.isEnded } }
            }
        }
        switch state.read({ $0.outcome }) {
        case .success?: return
        case .failure(let error)?: throw error
        case nil: throw TurntableError(.cancelled, "receiving", "interrupted before a machine came")
        }
    }

    /// A connection's thread: hears what it is for, and serves it to its end.
    private func greet(_ attachment: TargetAttachment) {
        do throws(TurntableError) {
            switch try attachment.control.receive(within: Limits.helloTime) {
            case .offer(let offer)?: try take(offer, attachment)
            case .query(let query)?:
                try attachment.control.send(.resolution(try resolve(query)))
                attachment.end()
            case .confirmed(let query)?:
                try confirm(query, attachment.peer)
                attachment.end()
            case .abort(let reason)?: throw TurntableError(.cancelled, "the source", reason)
            case nil: throw TurntableError(.line, "waiting for an offer", "none came within \(Limits.helloTime)")
            default: throw TurntableError(.protocol, "the source", "it sent a message that is not for now")
            }
        } catch {
            attachment.end()
            reports.note("turned away \(attachment.peer): \(error)")
        }
    }

    private enum Place {
        case new(TargetMigration)
        case known(TargetMigration)
        /// An earlier offer of the same machine holds it: its source withdrew that, and could not say so.
        case held(TargetMigration)
        /// Somebody asks what became of the session.
        case later
        case none(String)
    }

    private func take(_ offer: Offer, _ attachment: TargetAttachment) throws(TurntableError) {
        let budget: ByteCount?
        do { budget = try options.admit(offer, attachment.control.peerName, attachment.control.peerKey) } catch {
            throw turnAway(offer, attachment, error.description)
        }
        while true {
            switch place(for: offer, budget, attachment) {
            case .none(let reason): throw turnAway(offer, attachment, reason)
            case .held(let older):
                guard older.cancel("the machine is offered anew, under epoch \(offer.epoch.value)") else {
                    throw turnAway(offer, attachment, "it is being taken over under epoch \(older.offer.epoch.value)")
                }
                Clock.sleep(Limits.greetingPollTime)
            case .known(let session):
                if session.attach(attachment) { return }
                // It has just ended, and is taken off the table any moment; then the journal knows.
                Clock.sleep(Limits.greetingPollTime)
            case .later: Clock.sleep(Limits.greetingPollTime)
            case .new(let session):
                let answer = Result { () throws(TurntableError) in try answerFromJournal(offer, attachment) }
                if case .success(nil) = answer { return run(session, attachment) }
                state.update { $0.sessions[offer.session] = nil }
                if try answer.get() == .owning { try? hearConfirmed(attachment) }
                return attachment.end()
            }
        }
    }

    private func turnAway(_ offer: Offer, _ attachment: TargetAttachment, _ reason: String) -> TurntableError {
        // No epoch: it gives no right back.
        try? attachment.control.send(.refused(Refusal(epoch: Epoch(0), reason: reason)))
        return TurntableError(.refused, "the offer of \(offer.machine)", reason)
    }

    private func place(for offer: Offer, _ budget: ByteCount?, _ attachment: TargetAttachment) -> Place {
        state.update { state in
            if let session = state.sessions[offer.session] {
                return session.isSame(offer, from: attachment.control.peerName) ? .known(session) : .none("it is not the offer of its session")
            }
            if state.resolving.contains(offer.session) { return .later }
            let older = state.sessions.values.first { $0.offer.machine == offer.machine && $0.offer.epoch < offer.epoch }
            if let older, older.isFrom(attachment) { return .held(older) }
            let isDone = once && state.outcome != nil
            if state.isInterrupted || isDone || state.sessions.count >= (once ? 1 : Limits.sessions) {
                return .none("this receiver is busy")
            }
            let session = TargetMigration(
                offer, from: attachment.control.peerName, byteBudget: budget, host: host, journals: journals, options: options, report: reports.event)
            state.sessions[offer.session] = session
            return .new(session)
        }
    }

    private func run(_ session: TargetMigration, _ attachment: TargetAttachment) {
        let outcome: Result<TargetMigration.Outcome, TurntableError>
        do throws(TurntableError) { outcome = .success(try session.run(attachment)) } catch { outcome = .failure(error) }
        reports.ended(outcome, attachment.peer)
        state.update { state in
            state.sessions[session.offer.session] = nil
            state.outcome = outcome.map { _ in }
        }
    }

    // MARK: - What became of an epoch

    /// A session that ended here: its source missed the answer. What it is, if there is one; then the source has it now.
    private func answerFromJournal(_ offer: Offer, _ attachment: TargetAttachment) throws(TurntableError) -> TargetRight? {
        let journal = try journals.open(offer.machine)
        let history = try journal.history()
        let record = history.records(of: .target, offer.epoch).last { $0.session == offer.session }
        switch (history.target(offer.epoch), record) {
        case (.owning, .some):
            // An earlier process wrote that and was killed before it let the machine run.
            if let machine = try host.find(offer) {
                try machine.resume()
                machine.forgetSession()
            }
            try journal.sync()
            try attachment.control.send(.committed(Committed(epoch: offer.epoch)))
            return .owning
        case (.refused, let record?):
            try journal.sync()
            try attachment.control.send(.refused(Refusal(epoch: offer.epoch, reason: record.detail, signature: record.signature)))
            return .refused
        default: return nil
        }
    }

    /// The source's word that it has the answer, between heartbeats.
    private func hearConfirmed(_ attachment: TargetAttachment) throws(TurntableError) {
        let deadline = Clock.now + Limits.helloTime
        while Clock.now < deadline {
            switch try attachment.control.receive(within: Limits.pollTime) {
            case .confirmed(let query)?: return try confirm(query, attachment.peer)
            case .ping?, nil: continue
            default: throw TurntableError(.protocol, "the source", "it sent a message that is not for now")
            }
        }
    }

    /// The source knows that the machine is this end's.
    private func confirm(_ query: Query, _ peer: String) throws(TurntableError) {
        let journal = try journals.open(query.machine)
        let history = try journal.history()
        let committed = history.records(of: .target, query.epoch).last { $0.kind == .committed }
        guard let committed, committed.session == query.session else {
            throw TurntableError(.protocol, "the source", "it confirms what this host has not taken over")
        }
        // It may have said so before, or no longer matter.
        guard history.unconfirmed == committed else { return }
        try journal.log(JournalRecord(role: .target, kind: .confirmed, epoch: query.epoch, session: query.session, peer: peer))
    }

    private func resolve(_ query: Query) throws(TurntableError) -> Resolution {
        let isLive = state.update { state in
            let isLive = state.sessions[query.session] != nil
            if !isLive { state.resolving.insert(query.session) }
            return isLive
        }
        defer { if !isLive { state.update { $0.resolving.remove(query.session) } } }
        return try TargetResolver(host: host, journals: journals, sign: options.sign).resolve(query, isLive: isLive)
    }
}

/// Says what became of an epoch, and refuses it where that is safe.
public struct TargetResolver: Sendable {
    private let host: any TargetHost
    private let journals: Journals
    private let sign: @Sendable ([UInt8]) -> [UInt8]

    public init(host: any TargetHost, journals: Journals, sign: @escaping @Sendable ([UInt8]) -> [UInt8]) {
        self.host = host
        self.journals = journals
        self.sign = sign
    }

    /// - Parameter isLive: a session of this process is about it. What was decided before is said all the same.
    public func resolve(_ query: Query, isLive: Bool = false) throws(TurntableError) -> Resolution {
        let journal = try journals.open(query.machine)
        let history = try journal.history()
        func answer(_ state: Resolution.State, _ detail: String, _ signature: [UInt8] = []) -> Resolution {
            Resolution(epoch: query.epoch, host: journals.host, state: state, detail: detail, signature: signature)
        }
        switch history.target(query.epoch) {
        case .owning:
            // It may have been decided this instant, and is not said before it is durable.
            try journal.sync()
            return answer(.committed, "the machine is this host's")
        case .refused:
            try journal.sync()
            let record = history.records(of: .target, query.epoch).last { $0.kind == .refused }
            return answer(.refused, record?.detail ?? "", record?.signature ?? [])
        case .offered where !history.mayRefuse(query.epoch):
            return answer(.unknown, "this host was restarted since it was offered the machine, and may have run it; nothing of it runs now")
        case .offered where isLive || host.isWaiting(query.machine, query.session), .idle where isLive:
            return answer(.waiting, "what it has of the machine waits here for the source to go on (`turntable send` there)")
        case .idle: return answer(.unknown, "this host's journal knows nothing of that epoch")
        case .offered:
            // It never ran here; and once this is durable it never will.
            var record = JournalRecord(
                role: .target, kind: .refused, epoch: query.epoch, session: query.session, detail: "nothing of the session is here any more"
            )
            record.signature = sign(record.signedBytes(machine: query.machine))
            let decided = try journal.decide(record)
            try journal.sync()
            return decided == .owning ? answer(.committed, "the machine is this host's") : answer(.refused, record.detail, record.signature)
        }
    }
}

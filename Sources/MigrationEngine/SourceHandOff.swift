// The pause and the hand-off. Between them nothing waits for the target.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

extension SourceMigration {
    /// The machine's standstill at the source, to the hand-off. False if it turned out too long and the machine was let
    /// run on.
    func handOff(_ session: SourceSession, _ senders: [StripeSender]) throws(TurntableError) -> Bool {
        try checkTarget()
        let announce = try options.announcing(machine.name, session.epoch, false)
        enter(.paused)
        var blackout = SourceBlackout(began: Clock.now)
        do throws(TurntableError) {
            state.update { $0.right = .paused }
            try machine.pause()
            blackout.paused = Clock.now
            try drain(session)
            blackout.scanned = Clock.now
            blackout.lastPages = session.ledger.pagesLeft
            let line = state.read { $0.meter.estimate }
            let now = BlackoutPrediction(
                pagesLeft: blackout.lastPages + (try session.changedPages()), waiting: waiting(senders, line), line: line, device: machine.deviceCost,
                verification: verificationTime)
            guard blackout.used(at: blackout.scanned, machine) + now.total - now.pause <= options.budget else { return try withdraw(tooLong(now)) }

            for sender in senders { sender.start(.round(.max, refresh: false)) }
            // Told before the device state is saved, which may close the disks, and sent beside it.
            if let reason = try sendLastBlocks(session, senders, &blackout) { return try withdraw(reason) }
            session.deviceState = try machine.saveDeviceState()
            blackout.deviceSaved = Clock.now
            if options.verification == .before { try sendDigests() }
            blackout.digested = Clock.now
            try finishJobs(senders)
            let unread = session.ledger.pagesLeft
            guard unread == PageCount(0) else { return try withdraw("\(unread.bytes) of a disk could not be read") }
            senders[0].start(.deviceState(session.deviceState))
            session.ledger.deviceState = session.deviceState
            try finishJobs(senders)

            let rest = line.rate.time(for: waiting(senders, line)) + line.oneWay + machine.deviceCost.load
            guard blackout.used(at: Clock.now, machine) + rest <= options.budget else { return try withdraw(tooLong(now)) }
        } catch {
            // Nothing was handed off: the machine runs on here, or it is said why not.
            do throws(TurntableError) { try letRunOn() } catch let stuck {
                throw TurntableError(stuck.kind, stuck.what, "\(stuck.why); before that, \(error)", remedy: stuck.remedy)
            }
            throw error
        }
        try relinquish(session)
        blackout.handedOff = Clock.now
        session.blackout = blackout
        say(makeHandoff(session))
        announce()
        return true
    }

    /// Gives the right to run up. Throws if somebody was faster: then the machine runs on here.
    private func relinquish(_ session: SourceSession) throws(TurntableError) {
        // In one step: what was said until now counts, and nothing that is said from now on takes the right back.
        let isOpen = state.update { state in
            let isOpen = !state.isCancelled && state.answer == nil
            if isOpen { (state.phase, state.right) = (.handedOff, .relinquished) }
            return isOpen
        }
        do throws(TurntableError) {
            if !isOpen {
                try checkCancelled()
                try checkTarget()
                throw TurntableError(.protocol, "the target", "it sent a message that is not for now")
            }
            // Survives this process before the first byte goes; the disk hears of it later (docs/promise.md).
            try session.journal.write(session.record(.handoff))
        } catch {
            try letRunOn()
            throw error
        }
        session.isHandedOff = true
    }

    /// From its first byte on the machine is the target's. An error here does not mean that it was not sent.
    private func say(_ handoff: Handoff) {
        let sent = Clock.now
        let control = state.update { state in
            state.handOffPing = sent
            return state.control
        }
        try? control?.send(.handoff(handoff))
        try? control?.send(.ping(UInt64(bitPattern: sent.value)))
        report(.phase(.handedOff))
    }

    private func makeHandoff(_ session: SourceSession) -> Handoff {
        Handoff(
            epoch: session.epoch, session: session.identifier, attachment: state.read { $0.control?.attachment ?? .none },
            frames: (0..<session.ledger.streams).map { session.ledger.started($0) }, deviceStateBytes: UInt64(session.deviceState.count))
    }

    /// After a cut: what the target lacks of a machine that is its own already.
    func handOffAgain(_ session: SourceSession, _ senders: [StripeSender]) throws(TurntableError) -> Committed {
        for sender in senders { sender.start(.round(.max, refresh: false)) }
        if options.verification == .before { try sendDigests() }
        try finishJobs(senders)
        senders[0].start(.deviceState(session.deviceState))
        try finishJobs(senders)
        state.update { $0.phase = .handedOff }
        say(makeHandoff(session))
        return try awaitCommitted(session)
    }

    private func withdraw(_ reason: String) throws(TurntableError) -> Bool {
        try letRunOn()
        report(.note("paused, but \(reason): the machine runs on"))
        return false
    }

    private func tooLong(_ prediction: BlackoutPrediction) -> String {
        "what was left would have taken \(prediction.total), over the budget of \(options.budget)"
    }

    /// Sends what the disks were written last, once the last pages are on their way. Gives the reason if that is lost.
    private func sendLastBlocks(
        _ session: SourceSession, _ senders: [StripeSender], _ blackout: inout SourceBlackout
    ) throws(TurntableError) -> String? {
        let deltas = try session.disks.map { (disk) throws(TurntableError) in try disk.lastDelta() }
        blackout.deltasTold = Clock.now
        guard !deltas.isEmpty else { return nil }
        try finishJobs(senders)
        for (disk, delta) in zip(session.disks, deltas) {
            disk.insert(delta.chunks, into: session.ledger.pending[disk.region.value])
            guard let reason = delta.lossReason else { continue }
            session.ledger.repeatAll(in: disk.region.value, session.content(of: machine.pages))
            return "\(reason), and all of the disk \(disk.source.name) is sent again"
        }
        blackout.lastBlocks = session.ledger.pagesLeft
        for sender in senders { sender.start(.round(.max, refresh: false)) }
        return nil
    }

    private func letRunOn() throws(TurntableError) {
        state.update { $0.right = .offering }
        try machine.resume()
    }

    private func finishJobs(_ senders: [StripeSender]) throws(TurntableError) {
        for sender in senders {
            while try !sender.isDone(within: Limits.pollTime) {
                heartbeat()
                if right != .relinquished { try checkCancelled() }
                try checkTarget()
            }
        }
    }

    /// Waits for what became of the hand-off. Returns if the target runs the machine.
    func awaitCommitted(_ session: SourceSession) throws(TurntableError) -> Committed {
        // Nothing waits for this one: the machine runs at the target meanwhile.
        try? session.journal.sync()
        let deadline = Clock.now + options.waits.commit
        var answer: Answer?
        while answer == nil, Clock.now < deadline {
            heartbeat()
            answer = state.wait(atMost: Limits.pollTime) { $0.answer }
        }
        let what = "waiting for the target to say that it runs \(machine.name)"
        switch answer {
        case .committed(let committed) where committed.epoch == session.epoch:
            // Not durable, not known: the ledger still says how to ask again.
            guard try session.journal.settle(session.record(.committed)) == .committed else { throw isFenced(session) }
            try session.journal.sync()
            let control = state.update { state in
                state.right = .committed
                state.said = nil
                return state.control
            }
            try? control?.send(.confirmed(session.name))
            return committed
        case .refused(let refusal): return try heed(refusal, session)
        case .committed(let committed):
            throw TurntableError(
                .relinquished, "the target",
                "it answered for epoch \(committed.epoch.value) instead of \(session.epoch.value); \(Self.preserved)")
        case .lost(let error): throw TurntableError(.line, what, error.why)
        case .offered: throw TurntableError(.line, what, "it sent a message that is not for now")
        case nil: throw TurntableError(.line, what, "no answer for \(options.waits.commit)")
        }
    }

    /// A no after the hand-off: if it is about this epoch, the target never ran the machine and gives the right back.
    func heed<Value>(_ refusal: Refusal, _ session: SourceSession) throws(TurntableError) -> Value {
        // Only the host that was offered the machine can say so; it answered this attachment's offer, or the host is known.
        guard refusal.epoch == session.epoch else {
            throw TurntableError(
                .line, "the target", "it refused epoch \(refusal.epoch.value) instead of \(session.epoch.value): \(refusal.reason)")
        }
        let record = session.record(.refused, detail: refusal.reason, signature: refusal.signature)
        guard options.believes(record.signedBytes(machine: machine.name), refusal.signature) else {
            throw TurntableError(.line, "the target", "it refused the machine, and did not sign that")
        }
        let stands = try session.journal.settle(record)
        guard stands.letsMemoryRun else { throw isFenced(session) }
        state.update { $0.right = .reclaimed }
        try machine.reclaim(session.epoch.next)
        try machine.resume()
        do throws(TurntableError) { try options.announcing(machine.name, session.epoch.next, true)() } catch {
            report(.note("the machine runs here again, and the keepers of its address do not hear it: \(error)"))
        }
        throw TurntableError(.refused, "the target", "\(refusal.reason); the machine runs on here")
    }

    /// Whichever of an answer and a fence is on record first counts for good.
    private func isFenced(_ session: SourceSession) -> TurntableError {
        TurntableError(
            .relinquished, "the target", "the journal here has another word on epoch \(session.epoch.value) by now",
            remedy: "see `turntable resolve \(machine.name)`")
    }

    /// The machine is the target's: compares memory if that is wanted and the target is there, and lets its remains go.
    func finish(_ session: SourceSession, _ committed: Committed, _ senders: [StripeSender]) -> MigrationReport {
        enter(.completed)
        for sender in senders { sender.start(.flush) }
        // All of it has arrived: a stream that cannot say so any more is no reason to keep the machine's remains.
        for sender in senders { _ = try? sender.isDone(within: Limits.stallTime) }
        endDisks()
        if options.verification != .off, state.read({ $0.control != nil }) { session.verification = verify(session) }
        let differs = (session.verification?.stripesDiffering ?? 0) > 0
        if !differs { machine.discard() }
        let report = makeReport(session, committed, senders)
        session.ledger.clear()
        machine.forgetSession()
        return report
    }
}

/// The points in time of a blackout, as the source's clock saw them.
struct SourceBlackout {
    var began: Nanoseconds
    var paused = Nanoseconds.zero
    var scanned = Nanoseconds.zero
    var deltasTold = Nanoseconds.zero
    var deviceSaved = Nanoseconds.zero
    var digested = Nanoseconds.zero
    var handedOff = Nanoseconds.zero
    var lastPages = PageCount(0)
    /// Of disks, beyond those of ``lastPages``.
    var lastBlocks = PageCount(0)

    init(began: Nanoseconds) { self.began = began }

    /// How much of the budget is used up.
    func used(at now: Nanoseconds, _ machine: any SourceMachine) -> Nanoseconds {
        machine.isCarriedBeside ? now - paused - max(.zero, deviceSaved - deltasTold) : now - began
    }
}

// The pause and the hand-off. Between them nothing waits for the target.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

extension SourceMigration {
    /// The machine's standstill at the source. Nil if it turned out too long and the machine was let run on.
    func handOff(
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
        let handoff = Handoff(
            epoch: epoch, session: session, frames: senders.map(\.counts.frames), deviceStateBytes: UInt64(blackout.deviceStateBytes))
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
            // It runs on here, so nothing below may be reached.
            throw TurntableError(.protocol, "the target", "it sent a message that is not for now")
        }
        blackout.handedOff = Clock.now
        // From the first byte on the machine is the target's. An error here no longer means that it was not sent.
        try? control?.send(.handoff(handoff))
        report(.phase(.handedOff))
        return blackout
    }

    func withdraw(_ prediction: BlackoutPrediction) throws(TurntableError) -> SourceBlackout? {
        try machine.resume()
        report(
            .note(
                "paused, but what was left would have taken \(prediction.total), over the budget of \(options.budget): the machine runs on")
        )
        return nil
    }

    func finishJobs(_ senders: [StripeSender]) throws(TurntableError) {
        for sender in senders {
            while try !sender.isDone(within: Limits.pollTime) {
                try checkCancelled()
                try checkTarget()
            }
        }
    }

    func awaitCommitted(_ epoch: Epoch) throws(TurntableError) -> Committed {
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
            throw TurntableError(
                .relinquished, "the target", "it refused epoch \(refusal.epoch.value) instead of \(epoch.value); \(unknown)")
        case .committed(let committed):
            throw TurntableError(
                .relinquished, "the target", "it answered for epoch \(committed.epoch.value) instead of \(epoch.value); \(unknown)")
        case .lost(let error):
            throw TurntableError(.relinquished, "waiting for the target to say that it runs \(machine.name)", "\(error.why); \(unknown)")
        case .offered, nil:
            throw TurntableError(
                .relinquished, "waiting for the target to say that it runs \(machine.name)",
                "no answer for \(options.waits.commit); \(unknown)")
        }
    }

    func finish(
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
            totalMilliseconds: (source.handedOff - source.began + oneWay + target.waitedForStreams + target.loadedDeviceState
                + target.resumed).milliseconds,
            predictedMilliseconds: prediction.total.milliseconds, budgetMilliseconds: options.budget.milliseconds,
            lastPages: source.lastPages.value, deviceStateBytes: source.deviceStateBytes)
        return MigrationReport(
            machine: machine.name, epoch: epoch.value, streams: senders.map(\.summary), roundTripMilliseconds: roundTrip.milliseconds,
            totalSeconds: (ended - started).seconds, memoryBytes: machine.pages.regions.reduce(0) { $0 + $1.pages.bytes.value },
            pagesSent: sum.pages, bytesOnWire: sum.bytesOnWire, bulkRateBitsPerSecond: rounds.first?.rateBitsPerSecond ?? 0,
            rounds: rounds, blackout: blackout, retransmissions: senders.reduce(0) { $0 + $1.status.retransmissions },
            withdrawnPauses: withdrawn, isRunning: machine.isRunning)
    }
}

/// The points in time of a blackout, as the source's clock saw them.
struct SourceBlackout {
    var began: Nanoseconds
    var paused = Nanoseconds.zero
    var scanned = Nanoseconds.zero
    var deviceSaved = Nanoseconds.zero
    var handedOff = Nanoseconds.zero
    var lastPages = PageCount(0)
    var deviceStateBytes = 0

    init(began: Nanoseconds) { self.began = began }
}

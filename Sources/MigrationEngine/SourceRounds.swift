// A round: every pending page is sent while the machine runs, and what was written meanwhile is left for the next.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

extension SourceMigration {
    struct FinishedRound {
        var report: RoundReport
        var outcome: RoundOutcome
        var prediction: BlackoutPrediction
        var line: LineEstimate
    }

    func sendRound(_ session: SourceSession, _ senders: [StripeSender]) throws(TurntableError) -> FinishedRound {
        let round = UInt32(session.rounds.count)
        let previous = session.rounds.last
        let (ledger, dirtyLog) = (session.ledger, session.dirtyLog)
        let started = Clock.now
        let before = total(senders)
        let acknowledgedBefore = acknowledged(senders)
        let pagesToSend = ledger.pagesLeft.value
        for sender in senders { sender.start(.round(round, refresh: true)) }
        var lastReport = started
        for sender in senders {
            while try !sender.isDone(within: Self.tickTime) {
                try tick(senders)
                guard Clock.now - lastReport >= Self.progressTime else { continue }
                lastReport = Clock.now
                let rate = state.read { $0.meter.currentRate }
                let left = PageCount(max(0, pagesToSend - senders.reduce(0) { $0 + $1.pagesDoneInRound }))
                report(
                    .progress(
                        ProgressReport(
                            round: Int(round), pagesLeft: left.value, rateBitsPerSecond: rate.bitsPerSecond,
                            dirtyBytesPerSecond: previous?.dirtyBytesPerSecond ?? 0,
                            predictedBlackoutMilliseconds: previous?.predictedBlackoutMilliseconds ?? 0,
                            secondsLeft: rate.time(for: left.bytes).seconds, sent: sent)))
            }
        }
        try tick(senders)
        // By acknowledgements, which a full socket cannot flatter.
        let (delivered, sending) = (acknowledged(senders) - acknowledgedBefore, Clock.now - started)
        let meter = state.update { state in
            state.meter.sawRound(delivered: delivered, in: sending)
            state.meter.pauseMeasuring()
            return state.meter
        }
        try settle(senders, meter)
        let elapsed = Clock.now - started
        try fetchDeltas(session, line: meter.estimate)
        try drain(session)
        let after = total(senders)
        let outcome = RoundOutcome(
            pagesLeft: ledger.pagesLeft + (try session.changedPages()),
            pagesMerged: PageCount(after.refreshedPages - before.refreshedPages), elapsed: elapsed)
        let prediction = BlackoutPrediction(
            pagesLeft: outcome.pagesLeft, waiting: waiting(senders, meter.estimate), line: meter.estimate, device: machine.deviceCost,
            drain: dirtyLog.standstill + session.lastDeltaTime, verification: verificationTime)
        let bytes = ByteCount(after.bytesOnWire - before.bytesOnWire)
        // A short round may be over before anything of it is acknowledged.
        let rate = BitRate(sending > meter.roundTrip + LineMeter.window ? delivered : bytes, in: sending)
        let roundReport = RoundReport(
            round: Int(round), pagesSent: after.pages - before.pages, zeroPages: after.zeroPages - before.zeroPages,
            blocksSent: after.blocks - before.blocks, olderPages: after.olderPages - before.olderPages,
            bytesOnWire: bytes.value, milliseconds: elapsed.milliseconds, rateBitsPerSecond: rate.bitsPerSecond,
            pagesLeft: outcome.pagesLeft.value, dirtyBytesPerSecond: outcome.dirtyBytesPerSecond,
            predictedBlackoutMilliseconds: prediction.total.milliseconds, standstillMilliseconds: dirtyLog.standstill.milliseconds)
        return FinishedRound(report: roundReport, outcome: outcome, prediction: prediction, line: meter.estimate)
    }

    /// Asks the disks what was written, where sending it takes longer than asking, or is too much for the pause.
    private func fetchDeltas(_ session: SourceSession, line: LineEstimate) throws(TurntableError) {
        let share = options.budget / Self.deltaShare
        for disk in session.disks {
            let isLost = disk.source.lossReason() != nil
            let changed = try disk.source.changedBytes()
            let worthwhile = max(disk.fetchTime, Convergence.worthwhileGain)
            guard isLost || line.rate.time(for: changed) > min(share, worthwhile) else { continue }
            let (ledger, region) = (session.ledger, disk.region)
            // A process that dies in it does not know what was told: then all of the disk is sent again.
            var lossReason: String?
            try ledger.scanning(0..<disk.pages.value, in: region, on: 0) { () throws(TurntableError) in
                let most = line.rate.bytes(in: share)
                lossReason = try disk.fetch(into: ledger.pending[region.value], waitingAtMost: most)
            }
            if let lossReason {
                report(.note("\(lossReason): all of the disk \(disk.source.name) is sent again"))
                ledger.repeatAll(in: region.value, session.content(of: machine.pages))
            }
        }
    }

    /// The part of the budget that what a disk was written may take, whatever asking costs.
    private static let deltaShare = Int64(4)

    /// Fetches all dirty marks.
    func drain(_ session: SourceSession) throws(TurntableError) {
        try session.ledger.scanning(nil, in: RegionIndex(0), on: 0) { () throws(TurntableError) in
            try session.dirtyLog.drain(into: session.ledger.pendingMemory)
        }
    }

    /// Only on a line at least this long does a window take time to open.
    static let longLine = Nanoseconds.milliseconds(5)
    static let tickTime = Nanoseconds.milliseconds(20)
    static let progressTime = Nanoseconds.milliseconds(200)

    /// What waits in a socket or in a queue on the line goes before the last pages and the hand-off, and while a window is
    /// still opening bytes wait for it, up to a round trip more, which no rate tells. Both must be over before a pause, so they
    /// are waited for here, where the machine runs; nor would rounds that only add to a queue be worth anything.
    private func settle(_ senders: [StripeSender], _ meter: LineMeter) throws(TurntableError) {
        let line = meter.estimate
        let opening = meter.roundTrip == .forever ? .zero : meter.roundTrip + meter.roundTrip
        let deadline = Clock.now + max(opening, min(line.rate.time(for: waiting(senders, line)), Limits.letOutTime))
        while Clock.now < deadline {
            let left = line.rate.time(for: waiting(senders, line))
            let isSettled = left <= Self.shortQueue && senders.allSatisfy { sender in
                let status = sender.status
                let room = status.windowBytes - status.inFlightBytes
                let isOpen = status.windowBytes == ByteCount(0) || status.windowBytes.value >= line.capacity.value / senders.count
                return isOpen || status.unsentBytes == ByteCount(0) && room >= machine.deviceCost.bytes
            }
            if isSettled { return }
            try check(senders)
            Clock.sleep(min(Self.tickTime, max(left, Self.shortQueue)))
        }
    }

    /// A queue that takes no longer than this is not waited for.
    private static let shortQueue = Convergence.worthwhileGain

    /// A pause before the target is ready would last until it is: so the machine runs on meanwhile. False if there was nothing to wait for;
    /// else what was written in that time wants another round.
    func awaitReadiness(_ session: SourceSession, _ senders: [StripeSender]) throws(TurntableError) -> Bool {
        let isTargetReady = { [state] in state.read { $0.isTargetReady } }
        guard !session.hasAwaitedReadiness, !(machine.mayPause() && isTargetReady()) else { return false }
        let deadline = Clock.now + options.waits.readiness
        while !(machine.mayPause() && isTargetReady()) {
            try check(senders)
            if Clock.now >= deadline, machine.mayPause() {
                report(.note("the target is not ready after \(options.waits.readiness): the machine moves all the same, and may stand still longer"))
                break
            }
            Clock.sleep(Self.tickTime)
        }
        session.hasAwaitedReadiness = true
        return true
    }

    /// What is looked at while a round goes on.
    func tick(_ senders: [StripeSender]) throws(TurntableError) {
        try check(senders)
        let acknowledged = acknowledged(senders)
        let roundTrips = senders.map(\.status.roundTrip)
        state.update { state in
            state.meter.sawAcknowledged(acknowledged, at: Clock.now)
            for time in roundTrips { state.meter.sawRoundTrip(time) }
        }
    }

    /// The same where nothing is sent, which says nothing of the line's rate.
    private func check(_ senders: [StripeSender]) throws(TurntableError) {
        heartbeat()
        try checkCancelled()
        try checkTarget()
        try machine.checkAlive()
        for sender in senders { try sender.checkFailure() }
    }

    func acknowledged(_ senders: [StripeSender]) -> ByteCount { senders.reduce(ByteCount(0)) { $0 + $1.status.acknowledgedBytes } }
    /// What goes over the line before whatever is sent now: in the sockets, and in a queue on the line.
    func waiting(_ senders: [StripeSender], _ line: LineEstimate) -> ByteCount {
        line.waiting(senders.map(\.status))
    }
    func total(_ senders: [StripeSender]) -> StripeSender.Counts {
        senders.reduce(into: StripeSender.Counts()) { $0 += $1.counts }
    }
}

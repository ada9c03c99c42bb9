// What outlives a cut line and, as far as it is in the ledger and the journal, this process: the session. A line that is
// cut is connected again for as long as the resume window says; a process that is killed is followed by another, which
// finds the session where the machine keeps it.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A migration at the source, over all its attachments. Its scheduler's alone, but for the ledger.
final class SourceSession {
    let ledger: SendLedger
    let journal: Journal
    let dirtyLog: any DirtyLog
    let disks: [SourceDisk]
    let older = OlderCopies()
    let started = Clock.now
    /// OFFER is in the journal.
    var isOffered = false
    /// HANDOFF is in the journal: the machine stays still.
    var isHandedOff = false
    /// The target has said Offered: a line that is cut is worth waiting for.
    var isEstablished = false
    var attachments = 0
    /// Frames that the target had when it was last asked, and rounds that ended: what tells progress from flapping.
    var framesReceived: UInt64 = 0
    var progress: UInt64 { framesReceived + UInt64(rounds.count) }
    var pagesSentAgain = 0
    var deviceState: [UInt8] = []
    var rounds: [RoundReport] = []
    var prediction: BlackoutPrediction?
    var withdrawnPauses = 0
    /// The target has been waited for until it was ready, or for long enough.
    var hasAwaitedReadiness = false
    var blackout = SourceBlackout(began: Clock.now)
    var verification: Verified?

    init(_ ledger: SendLedger, _ journal: Journal, _ dirtyLog: any DirtyLog, _ disks: [SourceDisk]) {
        self.ledger = ledger
        self.journal = journal
        self.dirtyLog = dirtyLog
        self.disks = disks
    }

    /// About how much the disks were written since they were frozen last.
    func changedPages() throws(TurntableError) -> PageCount {
        var pages = 0
        for disk in disks { pages += PageCount(covering: try disk.source.changedBytes()).value }
        return PageCount(pages)
    }
    /// How long asking them for their last changes takes.
    var lastDeltaTime: Nanoseconds { disks.reduce(.zero) { $0 + $1.source.lastDeltaTime } }

    /// Calls `body` with the runs of a region that may be other than zero.
    func content(of pages: any PageSource) -> (_ region: Int, _ body: (Range<Int>) -> Void) -> Void {
        let disks = disks
        return { region, body in
            let memory = pages.regions.count
            if region < memory {
                pages.forEachPopulatedRun(in: RegionIndex(region), body)
            } else {
                disks[region - memory].content.forEachRun(body)
            }
        }
    }

    var identifier: SessionID { ledger.session }
    var epoch: Epoch { ledger.epoch }
    var name: Query { Query(machine: journal.machine, epoch: epoch, session: identifier) }

    func record(_ kind: JournalRecord.Kind, peer: String = "", detail: String = "", signature: [UInt8] = []) -> JournalRecord {
        JournalRecord(
            role: .source, kind: kind, epoch: epoch, session: identifier, host: ledger.host, peer: peer, detail: detail,
            signature: signature)
    }
}

extension SourceMigration {
    /// Begins a session, or takes up the one that a killed process left.
    func openSession() throws(TurntableError) -> SourceSession {
        let journal = try journals.open(machine.name)
        let history = try journal.history()
        let disks = machine.disks.enumerated().map { SourceDisk($1, region: RegionIndex(machine.pages.regions.count + $0)) }
        let ledger = try openLedger()
        if ledger.isBegun {
            let right = history.source(ledger.epoch)
            if right == .reclaimed {
                // Killed between what gave the right back and the machine's resume.
                guard history.outcome(ledger.epoch)?.letsMemoryRun == true else {
                    machine.discard()
                    machine.forgetSession()
                    throw Fence.remainsAreGone(machine.name, ledger.epoch)
                }
                try machine.runAgain(ledger)
            } else if right != .owning {
                guard ledger.isOfTheseDisks else {
                    throw TurntableError(
                        .usage, "going on with the migration of \(machine.name)", "it was begun with other disks than "
                            + (machine.disks.isEmpty ? "none" : machine.disks.map(\.name).joined(separator: ", ")),
                        remedy: "name the same disks as before")
                }
                return try takeUp(ledger, journal, right, disks)
            }
        }
        if let elsewhere = history.elsewhere, elsewhere.epoch > machine.epoch {
            throw TurntableError(
                .refused, "moving \(machine.name)",
                "it was handed to another host under epoch \(elsewhere.epoch.value); what is here are its remains",
                remedy: "see `turntable resolve \(machine.name)`")
        }
        let epoch = history.nextOffer(at: machine.epoch, isInterrupted: false)
        // Marks begin to be logged before the first page is noted to be sent.
        let dirtyLog: any DirtyLog
        do { dirtyLog = try machine.startDirtyLog(streams: options.streams, isContinued: false) } catch {
            machine.forgetSession()
            throw error
        }
        var chance = Chance()
        ledger.begin(.random(using: &chance), epoch, streams: options.streams, wasRunning: machine.isRunning)
        let session = SourceSession(ledger, journal, dirtyLog, disks)
        ledger.restart(session.content(of: machine.pages))
        do throws(TurntableError) {
            for disk in disks { try disk.begin(ledger.pending[disk.region.value]) }
        } catch {
            ledger.clear()
            machine.forgetSession()
            throw error
        }
        if !dirtyLog.summary.isEmpty { report(.note("dirty log: \(dirtyLog.summary)")) }
        return session
    }

    private func openLedger() throws(TurntableError) -> SendLedger {
        let regions = machine.pages.regions
        let disks = machine.disks.map { SourceDisk.region($0) }
        guard regions.count + disks.count <= Limits.regions else {
            throw TurntableError(
                .unsupported, "moving \(machine.name)",
                "it has \(regions.count) regions of memory and \(disks.count) disks, the limit is \(Limits.regions)")
        }
        let memory = try machine.sessionMemory(bytes: LedgerMemory.bytes(regions))
        guard !disks.isEmpty else { return SendLedger(memory, regions: regions) }
        return SendLedger(memory, regions: regions, disks: (disks, try machine.diskMemory(bytes: LedgerMemory.diskBytes(disks))))
    }

    private func takeUp(
        _ ledger: SendLedger, _ journal: Journal, _ right: SourceRight, _ disks: [SourceDisk]
    ) throws(TurntableError) -> SourceSession {
        let isHandedOff = right != .offering
        let standing = right == .committed ? ", after the target took the machine over" : isHandedOff ? ", after its hand-off" : ""
        report(.note("taking up the migration that an earlier process began\(standing)"))
        try machine.takeUp(wasRunning: ledger.wasRunning)
        let dirtyLog = try machine.startDirtyLog(streams: ledger.streams, isContinued: true)
        let session = SourceSession(ledger, journal, dirtyLog, disks)
        let content = session.content(of: machine.pages)
        if !dirtyLog.isContinued, !isHandedOff {
            report(.note("this dirty log does not outlive its process: all of memory is sent again"))
            for region in machine.pages.regions.indices { ledger.repeatAll(in: region, content) }
        }
        for disk in disks where try !disk.takeUp() && !isHandedOff {
            report(.note("what changed of the disk \(disk.source.name) meanwhile is not known: all of it is sent again"))
            ledger.repeatAll(in: disk.region.value, content)
        }
        session.isOffered = true
        session.isEstablished = true
        session.isHandedOff = isHandedOff
        if isHandedOff { session.deviceState = ledger.deviceState }
        state.update { $0.right = right }
        // It may have been killed between the pause and the hand-off.
        if !isHandedOff { try machine.resume() }
        return session
    }

    /// Goes through attachments until the migration is over, or the line was gone for too long.
    func carryOn(_ session: SourceSession) throws(TurntableError) -> MigrationReport {
        var lostAt: Nanoseconds?
        var wait = Self.firstRetry
        while true {
            let before = session.progress
            do throws(TurntableError) { return try attach(session) } catch {
                let cause = try causeWorthResuming(error, session)
                endConnections()
                // A target that takes attachments and nothing else is no line that came back.
                if session.progress > before { (lostAt, wait) = (nil, Self.firstRetry) }
                let now = Clock.now
                let since = lostAt ?? now
                lostAt = since
                let left = options.resumeWindow - (now - since)
                guard left > .zero else {
                    throw TurntableError(
                        cause.kind, cause.what, "\(cause.why); the line did not come back within \(options.resumeWindow)",
                        remedy: cause.remedy)
                }
                report(.interrupted(cause.description, secondsLeft: left.seconds))
                try sleep(min(wait, left), session)
                wait = min(wait + wait, Self.lastRetry)
            }
        }
    }

    private static let firstRetry = Nanoseconds.milliseconds(100)
    private static let lastRetry = Nanoseconds.seconds(3)

    /// What ended an attachment, if the session can outlive it; else throws what ends the session.
    private func causeWorthResuming(_ error: TurntableError, _ session: SourceSession) throws(TurntableError) -> TurntableError {
        if state.read({ $0.right == .reclaimed }) { throw error }
        if session.isHandedOff {
            // Whatever it was, the machine may be the target's: only its answer ends this, or the window.
            guard error.kind != .relinquished else { throw error }
            return error
        }
        if state.read({ $0.isCancelled }) { throw error }
        // Whatever else failed, it failed because of that.
        try machine.checkAlive()
        if error.kind == .line, let refusal = refusalOnItsWay() { throw refusal }
        guard error.kind == .line, session.isEstablished, options.resumeWindow > .zero else { throw error }
        return error
    }

    private func sleep(_ time: Nanoseconds, _ session: SourceSession) throws(TurntableError) {
        let deadline = Clock.now + time
        while Clock.now < deadline {
            if !session.isHandedOff {
                try checkCancelled()
                try machine.checkAlive()
            }
            Clock.sleep(min(Limits.pollTime, deadline - Clock.now))
        }
    }

    /// Ends a session that failed: what it means for the machine, in the journal and in words.
    func close(_ session: SourceSession, after error: TurntableError) -> TurntableError {
        let (right, isCancelled, control) = state.read { ($0.right, $0.isCancelled, $0.control) }
        defer {
            endConnections()
            endDisks()
        }
        if right == .reclaimed {
            machine.forgetSession()
            return error
        }
        if session.isHandedOff {
            if error.kind == .relinquished { return error }
            return TurntableError(
                .relinquished, "waiting for the target to say that it runs \(machine.name)", "\(error.why); \(Self.preserved)",
                remedy: "see `turntable resolve \(machine.name)`")
        }
        var cause = isCancelled ? TurntableError(.cancelled, "moving \(machine.name)", "cancelled; the machine runs on here") : error
        do { try machine.checkAlive() } catch { cause = error }
        // The streams end after the target was told why, and before the ledger that they write.
        try? control?.send(.abort(cause.description))
        endConnections()
        if session.isOffered { try? session.journal.log(session.record(.withdrawn, detail: cause.description)) }
        state.update { $0.right = .owning }
        session.ledger.clear()
        machine.forgetSession()
        return cause
    }

    static let preserved = "the machine is stopped and preserved here; do not resume it before you know that the target does not run it"
}

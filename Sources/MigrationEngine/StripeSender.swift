internal import Synchronization
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What all streams of an attachment share: the pages to send, and those that the target holds.
struct SendState: Sendable {
    let pages: any PageSource
    let disks: [SourceDisk]
    let ledger: SendLedger
    let layout: MemoryLayoutTable
    let older: OlderCopies

    init(pages: any PageSource, disks: [SourceDisk], ledger: SendLedger, older: OlderCopies) {
        self.pages = pages
        self.disks = disks
        self.ledger = ledger
        self.older = older
        layout = MemoryLayoutTable(
            regionPages: pages.regions.map(\.pages.value), disks: disks.map(\.pages.value), streams: ledger.streams)
    }

    func disk(_ region: RegionIndex) -> SourceDisk? {
        layout.isDisk(region.value) ? disks[region.value - layout.memoryRegions] : nil
    }

    /// Calls `body` with the pages of each stripe that `stream` owns.
    func forEachStripe(of stream: Int, _ body: (RegionIndex, Range<Int>) throws(TurntableError) -> Void) throws(TurntableError) {
        for region in 0..<layout.regionCount {
            for stripe in 0..<layout.stripes(in: region) where layout.stream(ofStripe: stripe, region: region) == stream {
                let start = stripe * Limits.stripePages
                try body(RegionIndex(region), start..<min(start + Limits.stripePages, layout.pages(in: region)))
            }
        }
    }
}

/// A thread with its data stream: sends the stripes that the stream owns, round after round.
final class StripeSender: Sendable {
    enum Job: Sendable {
        case idle
        /// Frames of nothing, until the next job is wanted.
        case warmUp(atMost: ByteCount)
        /// The pending pages of the stream's stripes.
        case round(UInt32, refresh: Bool)
        case deviceState([UInt8])
        /// Until the transport needs no page any more.
        case flush
        case stop
    }

    /// Counts over the stream's life; read by the scheduler for its progress.
    struct Counts: Sendable {
        var pages = 0
        var zeroPages = 0
        /// Pages of disks that were sent as they are.
        var blocks = 0
        /// Pages, of memory and disks, that the target holds in an older copy.
        var olderPages = 0
        /// Pages written between the round's begin and their turn, which went with it.
        var refreshedPages = 0
        var bytesOnWire = 0

        static func += (sum: inout Counts, more: Counts) {
            sum.pages += more.pages
            sum.zeroPages += more.zeroPages
            sum.blocks += more.blocks
            sum.olderPages += more.olderPages
            sum.refreshedPages += more.refreshedPages
            sum.bytesOnWire += more.bytesOnWire
        }
    }

    private struct State {
        var job = Job.idle
        var isBusy = false
        var failure: TurntableError?
    }

    private let stream: Int
    private let sender: any FrameSender
    private let shared: SendState
    private let dirtyLog: any DirtyLog
    private let frames: StreamFrames
    /// Where a stripe of a disk is read to.
    private let stage: AlignedBuffer
    private let state = Monitor(State())
    private let thread = Monitor<WorkerThread?>(nil)
    private let wantsNextJob = Atomic(false)
    // Read by the scheduler while the thread sends; the counts in `state` follow at each frame.
    private let pagesDone = Atomic(0)

    func pace(at share: BitRate) throws(TurntableError) { try sender.pace(at: share) }

    init(stream: Int, sender: any FrameSender, shared: SendState, dirtyLog: any DirtyLog) {
        self.stream = stream
        self.sender = sender
        self.shared = shared
        self.dirtyLog = dirtyLog
        frames = StreamFrames(stream: stream, sender: sender, shared: shared)
        stage = AlignedBuffer(bytes: shared.disks.isEmpty ? 0 : Limits.stripePages * pageBytes)
        let worker = WorkerThread("tt-send-\(stream)") { [self] in serve() }
        thread.update { $0 = worker }
    }

    var status: LineStatus { sender.status }
    var summary: String { sender.summary }
    var counts: Counts { frames.counts }
    var pagesDoneInRound: Int { pagesDone.load(ordering: .relaxed) }

    /// Gives the thread its next job; it must be idle, or warming up.
    func start(_ job: Job) {
        wantsNextJob.store(true, ordering: .relaxed)
        _ = state.wait(atMost: .forever) { $0.isBusy ? nil : true }
        wantsNextJob.store(false, ordering: .relaxed)
        pagesDone.store(0, ordering: .relaxed)
        state.update { state in
            // A thread that was told to end takes no job; isDone() says so.
            if case .stop = state.job { return }
            state.job = job
            state.isBusy = true
        }
    }

    /// Whether the job is done; waits at most `limit` for it.
    func isDone(within limit: Nanoseconds) throws(TurntableError) -> Bool {
        let result = state.wait(atMost: limit) { state -> Result<Bool, TurntableError>? in
            if let failure = state.failure { return .failure(failure) }
            return state.isBusy ? nil : .success(true)
        }
        return try result?.get() ?? false
    }

    func checkFailure() throws(TurntableError) {
        if let failure = state.read({ $0.failure }) { throw failure }
    }

    /// Ends the stream and its thread, whatever it does.
    func stop() {
        sender.shutDown()
        wantsNextJob.store(true, ordering: .relaxed)
        state.update { state in
            state.job = .stop
            state.isBusy = false
            if state.failure == nil { state.failure = TurntableError(.cancelled, "data stream \(stream)", "it was stopped") }
        }
    }

    /// Returns when the thread has ended, after ``stop()``: then nothing of this stream touches the ledger any more.
    func join() {
        thread.update { worker in
            defer { worker = nil }; return worker
        }?.join()
    }

    // MARK: - The thread

    private func serve() {
        while true {
            let job = state.wait(atMost: Limits.heartbeatTime) { state -> Job? in
                if case .stop = state.job { return .stop }
                return state.isBusy ? state.job : nil
            }
            do throws(TurntableError) {
                switch job {
                case nil:
                    // An idle stream says that it is there.
                    try frames.sendNothing(Self.beat)
                    continue
                case .idle: break
                case .stop: return
                case .warmUp(let most): try warmUp(most)
                case .round(let round, let refresh): try sendRound(round, refresh: refresh)
                case .deviceState(let bytes): try frames.sendDeviceState(bytes)
                case .flush: try sender.flush()
                }
                state.update { $0.isBusy = false }
            } catch {
                state.update {
                    $0.failure = $0.failure ?? error
                    $0.isBusy = false
                }
                return
            }
        }
    }

    private static let beat = [UInt8](repeating: 0, count: 16)

    private func sendRound(_ round: UInt32, refresh: Bool) throws(TurntableError) {
        frames.beginRound(round)
        try shared.forEachStripe(of: stream) { (region, pages) throws(TurntableError) in
            let pending = shared.ledger.pending[region.value]
            guard pending.nextRun(from: pages.lowerBound, to: pages.upperBound) != nil else { return }
            if let older = shared.older[region] { try awaitDigests(older, pages) }
            if let disk = shared.disk(region) { return try sendBlocks(pages, of: disk, pending, isLast: !refresh) }
            // Clear the stripe's marks as late as possible: what was written since the round began goes now, once.
            if refresh {
                let before = pending.count(in: pages)
                try shared.ledger.scanning(pages, in: region, on: stream) { () throws(TurntableError) in
                    try dirtyLog.refresh(pages, in: region, into: pending, stream: stream)
                }
                frames.count(refreshed: pending.count(in: pages) - before)
            }
            try pending.forEachRun(in: pages) { (run) throws(TurntableError) in try addMemory(run, of: region) }
            pagesDone.add(pending.count(in: pages), ordering: .relaxed)
            pending.remove(pages)
        }
        try frames.flush()
    }

    /// Where the target may hold anything all of memory is pending: what the machine never touched is not read, which would make it.
    private func addMemory(_ run: Range<Int>, of region: RegionIndex) throws(TurntableError) {
        guard shared.ledger.isDistrusted(region.value) else { return try frames.add(run, of: region) }
        var populated: [Range<Int>] = []
        shared.pages.forEachPopulatedRun(in: region, within: run) { populated.append($0) }
        try run.split(by: populated) { (part, isPopulated) throws(TurntableError) in
            if isPopulated { try frames.add(part, of: region) } else { try frames.addZeroes(part, of: region) }
        }
    }

    /// Reads what is to be sent of a stripe of a disk, and sends it: all of it in the last round, else without what waits for that.
    private func sendBlocks(_ stripe: Range<Int>, of disk: SourceDisk, _ pending: PageBitmap, isLast: Bool) throws(TurntableError) {
        let memory = unsafe stage.bytes.baseAddress!
        var due: [Range<Int>] = []
        var lost: [Range<Int>] = []
        pending.forEachRun(in: stripe) { run in
            run.split(by: isLast ? [] : disk.waiting.runs(in: run)) { part, isWaiting in if !isWaiting { due.append(part) } }
        }
        try unsafe frames.beginBlocks(stripe, in: UnsafeRawPointer(memory))
        for run in due {
            try run.split(by: disk.content.runs(in: run)) { (part, mayHoldSomething) throws(TurntableError) in
                guard mayHoldSomething else { return try frames.addZeroes(part, of: disk.region) }
                // What is lost stays pending, and the next delta is of the whole disk.
                guard try unsafe disk.read(part, into: memory + (part.lowerBound - stripe.lowerBound) * pageBytes) else { return lost.append(part) }
                try frames.addBlocks(part, of: disk.region)
            }
        }
        try frames.endBlocks()
        for run in lost { due.removeAll { $0.overlaps(run) } }
        for run in due {
            pagesDone.add(run.count, ordering: .relaxed)
            pending.remove(run)
        }
    }

    /// Waits for the target to say what it has of these pages.
    private func awaitDigests(_ older: OlderCopy, _ pages: Range<Int>) throws(TurntableError) {
        while !older.isKnown(pages, within: Limits.pollTime) {
            if case .stop = state.read({ $0.job }) { throw TurntableError(.cancelled, "data stream \(stream)", "it was stopped") }
        }
    }

    private func warmUp(_ most: ByteCount) throws(TurntableError) {
        let nothing = [UInt8](repeating: 0, count: 64 << 10)
        var sent = 0
        while !wantsNextJob.load(ordering: .relaxed), sent < most.value {
            try frames.sendNothing(nothing)
            sent += nothing.count
        }
    }
}

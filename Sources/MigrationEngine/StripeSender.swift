internal import Synchronization
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What all streams of an attachment share: the pages to send, and those that the target holds.
struct SendState: Sendable {
    let pages: any PageSource
    let ledger: SendLedger
    let layout: MemoryLayoutTable

    init(pages: any PageSource, ledger: SendLedger) {
        self.pages = pages
        self.ledger = ledger
        layout = MemoryLayoutTable(regionPages: pages.regions.map(\.pages.value), streams: ledger.streams)
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
        case warmUp
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
        /// Pages written between the round's begin and their turn, which went with it.
        var refreshedPages = 0
        var bytesOnWire = 0

        static func += (sum: inout Counts, more: Counts) {
            sum.pages += more.pages
            sum.zeroPages += more.zeroPages
            sum.refreshedPages += more.refreshedPages
            sum.bytesOnWire += more.bytesOnWire
        }
    }

    private struct State {
        var job = Job.idle
        var isBusy = false
        var failure: TurntableError?
        var counts = Counts()
    }

    private let stream: Int
    private let sender: any FrameSender
    private let shared: SendState
    private let dirtyLog: any DirtyLog
    private let state = Monitor(State())
    private let thread = Monitor<WorkerThread?>(nil)
    private let wantsNextJob = Atomic(false)
    // Read by the scheduler while the thread sends; the counts in `state` follow at each frame.
    private let pagesDone = Atomic(0)

    init(stream: Int, sender: any FrameSender, shared: SendState, dirtyLog: any DirtyLog) {
        self.stream = stream
        self.sender = sender
        self.shared = shared
        self.dirtyLog = dirtyLog
        let worker = WorkerThread("tt-send-\(stream)") { [self] in serve() }
        thread.update { $0 = worker }
    }

    var status: LineStatus { sender.status }
    var summary: String { sender.summary }
    var counts: Counts { state.read { $0.counts } }
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
        let frame = FrameDraft(limits: sender.limits)
        while true {
            let job = state.wait(atMost: Limits.heartbeatTime) { state -> Job? in
                if case .stop = state.job { return .stop }
                return state.isBusy ? state.job : nil
            }
            do throws(TurntableError) {
                switch job {
                case nil:
                    // An idle stream says that it is there.
                    frame.setWarmUp(Self.beat)
                    try send(frame)
                    continue
                case .idle: break
                case .stop: return
                case .warmUp: try warmUp(frame)
                case .round(let round, let refresh): try sendRound(round, refresh: refresh, frame)
                case .deviceState(let bytes): try sendDeviceState(bytes, frame)
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

    private func sendRound(_ round: UInt32, refresh: Bool, _ frame: FrameDraft) throws(TurntableError) {
        frame.round = round
        try shared.forEachStripe(of: stream) { (region, pages) throws(TurntableError) in
            let pending = shared.ledger.pending[region.value]
            guard pending.nextRun(from: pages.lowerBound, to: pages.upperBound) != nil else { return }
            // Clear the stripe's marks as late as possible: what was written since the round began goes now, once.
            if refresh {
                let before = pending.count(in: pages)
                try shared.ledger.scanning(pages, in: region, on: stream) { () throws(TurntableError) in
                    try dirtyLog.refresh(pages, in: region, into: pending, stream: stream)
                }
                let added = pending.count(in: pages) - before
                state.update { $0.counts.refreshedPages += added }
            }
            var next = pages.lowerBound
            while let run = pending.nextRun(from: next, to: pages.upperBound) {
                try add(run, of: region, to: frame)
                next = run.upperBound
            }
            pagesDone.add(pending.count(in: pages), ordering: .relaxed)
            pending.remove(pages)
        }
        if !frame.isEmpty { try send(frame) }
    }

    /// Adds a run of pages, split where zero pages begin and end. A zero page that the target never got otherwise is
    /// zero there already.
    private func add(_ run: Range<Int>, of region: RegionIndex, to frame: FrameDraft) throws(TurntableError) {
        let held = shared.ledger.held[region.value]
        var start = run.lowerBound
        while start < run.upperBound {
            let isZero = isZeroPage(start, region)
            var end = start + 1
            while end < run.upperBound, isZeroPage(end, region) == isZero { end += 1 }
            if !isZero {
                held.insert(start..<end)
                try append(start..<end, of: region, .raw, to: frame)
            } else {
                var next = start
                while let stale = held.nextRun(from: next, to: end) {
                    try append(stale, of: region, .zero, to: frame)
                    held.remove(stale)
                    next = stale.upperBound
                }
            }
            start = end
        }
    }

    private func append(_ pages: Range<Int>, of region: RegionIndex, _ encoding: Encoding, to frame: FrameDraft) throws(TurntableError) {
        let extent = Extent(region: region, firstPage: PageIndex(pages.lowerBound), pageCount: PageCount(pages.count), encoding: encoding)
        if !frame.append(extent) {
            try send(frame)
            let fits = frame.append(extent)
            precondition(fits, "an extent of a stripe fits in an empty frame")
        }
        shared.ledger.note(extent, in: shared.ledger.started(stream), on: stream)
    }

    private func isZeroPage(_ page: Int, _ region: RegionIndex) -> Bool {
        unsafe isZero(shared.pages.address(of: PageIndex(page), in: region), bytes: pageBytes)
    }

    private func sendDeviceState(_ bytes: [UInt8], _ frame: FrameDraft) throws(TurntableError) {
        var offset = 0
        while offset < bytes.count {
            let end = min(offset + sender.limits.payloadBytes, bytes.count)
            frame.setDeviceState(Array(bytes[offset..<end]), offset: offset)
            try send(frame)
            offset = end
        }
    }

    private func warmUp(_ frame: FrameDraft) throws(TurntableError) {
        let nothing = [UInt8](repeating: 0, count: 64 << 10)
        var sent = 0
        while !wantsNextJob.load(ordering: .relaxed), sent < Limits.warmUpBytes {
            frame.setWarmUp(nothing)
            try send(frame)
            sent += nothing.count
        }
    }

    private func send(_ frame: FrameDraft) throws(TurntableError) {
        // Warm-up frames carry nothing that could be missed.
        if frame.kind != .warmUp { shared.ledger.willSend(on: stream) }
        try sender.send(frame)
        var raw = 0, zero = 0
        for extent in frame.extents {
            if extent.encoding == .raw { raw += extent.pageCount.value } else { zero += extent.pageCount.value }
        }
        let bytes = frame.headBytes + frame.payloadBytes
        state.update {
            $0.counts.pages += raw
            $0.counts.zeroPages += zero
            $0.counts.bytesOnWire += bytes
        }
        frame.startNext()
    }
}

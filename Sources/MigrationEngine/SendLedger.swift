// What a source must not forget when its process dies: which pages are still to be sent, which the target holds, and
// which are on their way. It lives in memory that outlives the process (SharedMemory), so it is written in an order that
// is right after every single store: a page is noted as on its way before it is no longer noted as to be sent, and memory
// whose dirty marks are being fetched is noted before the marks are cleared.

internal import Synchronization
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

final class SendLedger: @unchecked Sendable {
    /// Pages to send, of the regions of memory and then of disks.
    let pending: [PageBitmap]
    /// Pages that may not be zero at the target.
    let held: [PageBitmap]
    /// Pages on their way that the ring no longer has room for.
    private let doubtful: [PageBitmap]

    /// Of which all is pending, also what was never touched. Changes while no stream sends.
    private var distrusted: Set<Int> = []
    private let memory: LedgerMemory
    let regions: [MemoryRegion]
    private let memoryRegions: Int
    /// Of ``pending``.
    var pendingMemory: [PageBitmap] { Array(pending[..<memoryRegions]) }
    /// Frames that the target is known to have received; written by the control stream's thread.
    private let confirmed: [Confirmed]
    private final class Confirmed: Sendable { let frames = Atomic<UInt64>(0) }

    var pagesLeft: PageCount { PageCount(pending.reduce(0) { $0 + $1.count }) }

    /// - Parameter disks: which, and the memory of ``LedgerMemory/diskBytes(_:)`` for them.
    init(_ memory: SharedMemory, regions: [MemoryRegion], disks: (regions: [MemoryRegion], memory: SharedMemory)? = nil) {
        memoryRegions = regions.count
        let ledger = LedgerMemory(memory, regions)
        self.memory = ledger
        self.regions = regions + (disks?.regions ?? [])
        confirmed = (0..<Limits.streams).map { _ in Confirmed() }
        let bitmaps = [0, 1, 2].map { kind in
            ledger.bitmaps(kind) + (disks.map { LedgerMemory.bitmaps(kind, of: $0.regions, in: $0.memory) } ?? [])
        }
        (pending, held, doubtful) = (bitmaps[0], bitmaps[1], bitmaps[2])
    }

    // MARK: - The session

    var session: SessionID {
        get { SessionID(high: memory[.sessionHigh], low: memory[.sessionLow]) }
        set { (memory[.sessionHigh], memory[.sessionLow]) = (newValue.high, newValue.low) }
    }
    /// The target's host, once it has said Offered.
    var host: HostID {
        get { HostID(high: memory[.hostHigh], low: memory[.hostLow]) }
        set { (memory[.hostHigh], memory[.hostLow]) = (newValue.high, newValue.low) }
    }
    var epoch: Epoch { Epoch(memory[.epoch]) }
    var streams: Int { Int(memory[.streams]) }
    var wasRunning: Bool { memory[.wasRunning] != 0 }

    /// Whether an earlier process left a session of this very machine.
    var isBegun: Bool { memory[.magic] == LedgerMemory.magic && memory[.layout] == digest(regions[..<memoryRegions]) }
    /// Whether that session is of the same disks.
    var isOfTheseDisks: Bool { memory[.disks] == digest(regions[memoryRegions...]) }

    func begin(_ session: SessionID, _ epoch: Epoch, streams: Int, wasRunning: Bool) {
        clear()
        self.session = session
        memory[.epoch] = epoch.value
        memory[.streams] = UInt64(streams)
        memory[.wasRunning] = wasRunning ? 1 : 0
        memory[.layout] = digest(regions[..<memoryRegions])
        memory[.disks] = digest(regions[memoryRegions...])
        LedgerMemory.order()
        memory[.magic] = LedgerMemory.magic
    }

    /// Nothing is left of the session.
    func clear() {
        memory[.magic] = 0
        LedgerMemory.order()
        memory.clearHeader()
        for bitmap in pending + held + doubtful { bitmap.remove(0..<bitmap.pages) }
    }

    // MARK: - What is on its way

    /// Frames of the stream over all attachments, as far as sending them was begun.
    func started(_ stream: Int) -> UInt64 { memory[stream, .started] }

    /// The stream's next frame is about to be sent.
    func willSend(on stream: Int) { memory[stream, .started] += 1 }

    /// `extent` will travel in frame `sequence`. After this its pages may be taken out of ``pending``.
    func note(_ extent: Extent, in sequence: UInt64, on stream: Int) {
        var end = memory[stream, .end]
        var first = memory[stream, .first]
        if end - first == UInt64(LedgerMemory.ringEntries) {
            first = trim(stream, first, end)
            memory[stream, .first] = first
        }
        memory.setEntry(
            LedgerMemory.Entry(
                sequence: sequence, firstPage: UInt32(extent.firstPage.value), pages: UInt16(extent.pageCount.value),
                region: UInt16(extent.region.value)), at: end, on: stream)
        end += 1
        LedgerMemory.order()
        memory[stream, .end] = end
        LedgerMemory.order()
    }

    /// Makes room for one entry at least: what has arrived is forgotten; what may not have goes to the coarser bitmap.
    private func trim(_ stream: Int, _ first: UInt64, _ end: UInt64) -> UInt64 {
        let arrived = confirmed[stream].frames.load(ordering: .relaxed)
        var first = first
        // Before anything of them is forgotten.
        memory[stream, .floor] = max(memory[stream, .floor], arrived)
        LedgerMemory.order()
        while first < end, memory.entry(first, on: stream).sequence < arrived { first += 1 }
        if end - first < UInt64(LedgerMemory.ringEntries) { return first }
        if memory[stream, .doubtfulUntil] <= arrived { forEachDoubtful(stream) { region, run in doubtful[region].remove(run) } }
        for _ in 0..<LedgerMemory.ringEntries / 4 {
            let entry = memory.entry(first, on: stream)
            doubtful[Int(entry.region)].insert(entry.range)
            memory[stream, .doubtfulUntil] = entry.sequence + 1
            first += 1
        }
        LedgerMemory.order()
        return first
    }

    /// The target has received that many frames of each stream.
    func confirm(_ received: [UInt64]) {
        for (stream, count) in received.enumerated() where stream < confirmed.count {
            confirmed[stream].frames.store(count, ordering: .relaxed)
        }
    }

    /// Whether the target has less than it had once: it lost that, and what was in it is not remembered here any more.
    func isBehind(_ received: [UInt64]) -> Bool {
        received.enumerated().contains { stream, count in stream < streams && count < memory[stream, .floor] }
    }

    /// All of `populated` is to be sent, over whatever the target has of it.
    func repeatAll(in region: Int, _ populated: (Int, (Range<Int>) -> Void) -> Void) {
        populated(region) { pending[region].insert($0) }
        // What is zero by now may not be zero there.
        held[region].forEachRun { pending[region].insert($0) }
        LedgerMemory.order()
    }

    func repeatAll(_ populated: (Int, (Range<Int>) -> Void) -> Void) {
        for region in regions.indices { repeatAll(in: region, populated) }
    }

    /// The target may hold anything there: where it is to be zero, it is told so.
    func distrust(_ region: Int) {
        distrusted.insert(region)
        held[region].insert(0..<held[region].pages)
        pending[region].insert(0..<pending[region].pages)
        LedgerMemory.order()
    }

    func isDistrusted(_ region: Int) -> Bool { distrusted.contains(region) }

    /// A new attachment begins, and the target has received `received` frames of each stream: what was on its way beyond
    /// that is to be sent again. Returns the pages that are.
    func rewind(to received: [UInt64]) throws(TurntableError) -> PageCount {
        let before = pagesLeft
        guard received.count == streams else {
            throw TurntableError(.protocol, "the target", "it has \(received.count) streams of this session, which has \(streams)")
        }
        for (stream, count) in received.enumerated() {
            guard count <= started(stream) else {
                throw TurntableError(
                    .protocol, "the target", "it has \(count) frames of data stream \(stream); \(started(stream)) were sent")
            }
            for index in memory[stream, .first]..<memory[stream, .end] {
                let entry = memory.entry(index, on: stream)
                if entry.sequence >= count { put(entry.range, backIn: Int(entry.region)) }
            }
            if memory[stream, .doubtfulUntil] > count { forEachDoubtful(stream) { region, run in put(run, backIn: region) } }
            forEachDoubtful(stream) { region, run in doubtful[region].remove(run) }
            putBackScanned(stream)
            // Before it is forgotten what those frames held.
            memory[stream, .floor] = max(memory[stream, .floor], count)
            LedgerMemory.order()
            (memory[stream, .first], memory[stream, .end], memory[stream, .doubtfulUntil]) = (0, 0, 0)
            memory[stream, .started] = count
            memory[stream, .floor] = count
            confirmed[stream].frames.store(count, ordering: .relaxed)
        }
        return PageCount(pagesLeft.value - before.value)
    }

    /// The target has nothing of this session: all of `populated` is to be sent.
    func restart(_ populated: (Int, (Range<Int>) -> Void) -> Void) {
        for region in regions.indices {
            populated(region) { pending[region].insert($0) }
            held[region].remove(0..<held[region].pages)
            doubtful[region].remove(0..<doubtful[region].pages)
        }
        LedgerMemory.order()
        for stream in 0..<Limits.streams {
            (memory[stream, .first], memory[stream, .end], memory[stream, .doubtfulUntil], memory[stream, .started]) = (0, 0, 0, 0)
            (memory[stream, .scanEnd], memory[stream, .floor]) = (0, 0)
            confirmed[stream].frames.store(0, ordering: .relaxed)
        }
    }

    private func put(_ run: Range<Int>, backIn region: Int) {
        pending[region].insert(run)
        // It may be there or not: if it is zero by now, the target must be told so.
        held[region].insert(run)
    }

    private func forEachDoubtful(_ stream: Int, _ body: (Int, Range<Int>) -> Void) {
        let layout = MemoryLayoutTable(regionPages: regions.map(\.pages.value), streams: streams)
        for region in regions.indices {
            for stripe in 0..<layout.stripes(in: region) where layout.stream(ofStripe: stripe, region: region) == stream {
                let end = min((stripe + 1) * Limits.stripePages, layout.pages(in: region))
                var next = stripe * Limits.stripePages
                while let run = doubtful[region].nextRun(from: next, to: end) {
                    body(region, run)
                    next = run.upperBound
                }
            }
        }
    }

    // MARK: - Fetching dirty marks

    /// Runs `body`, which fetches and clears the dirty marks of `pages`: a process that dies in it has noted that all of
    /// them may have been written. Nil stands for all of memory.
    func scanning(
        _ pages: Range<Int>?, in region: RegionIndex, on stream: Int, _ body: () throws(TurntableError) -> Void
    ) throws(TurntableError) {
        memory[stream, .scanRegion] = pages == nil ? .max : UInt64(region.value)
        memory[stream, .scanFirst] = UInt64(pages?.lowerBound ?? 0)
        LedgerMemory.order()
        memory[stream, .scanEnd] = UInt64(pages?.upperBound ?? 1)
        LedgerMemory.order()
        try body()
        LedgerMemory.order()
        memory[stream, .scanEnd] = 0
    }

    private func putBackScanned(_ stream: Int) {
        let end = memory[stream, .scanEnd]
        guard end > 0 else { return }
        if memory[stream, .scanRegion] == .max {
            for bitmap in pendingMemory { bitmap.insert(0..<bitmap.pages) }
        } else {
            pending[Int(memory[stream, .scanRegion])].insert(Int(memory[stream, .scanFirst])..<Int(end))
        }
        memory[stream, .scanEnd] = 0
    }

    // MARK: - Device state

    /// Of a machine that was handed off: a later process cannot save it again.
    var deviceState: [UInt8] {
        get { memory.deviceState(min(Int(memory[.deviceStateBytes]), Limits.deviceStateBytes)) }
        set {
            memory.setDeviceState(newValue)
            LedgerMemory.order()
            memory[.deviceStateBytes] = UInt64(newValue.count)
        }
    }

    private func digest(_ regions: ArraySlice<MemoryRegion>) -> UInt64 {
        Digest.of(regions.flatMap { Array("\($0.name):\($0.pages.value);".utf8) })
    }
}

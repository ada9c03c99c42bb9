internal import TurntableCore
internal import TurntableLinux

/// The pages that a QEMU's guest, and QEMU for it, wrote, by soft-dirty bits: the fallback where there is no PAGEMAP_SCAN.
///
/// The bits are fetched and cleared in two steps. So that nothing writes in between, a drain stops the machine, and lets it
/// run again after the second: QEMU's stop also waits for every request to a disk, whose data must not arrive after its
/// page's bit was cleared. A machine that is paused already, by the operator or for the hand-off, is left so; only an operator
/// who pauses it within the drain's own few milliseconds finds it running again.
///
/// **Cost.** One short standstill at the end of each round, which the round's report tells, and which counts as part of the
/// pause when the blackout is predicted. Reading takes 8 bytes a page, clearing a walk over QEMU's page tables, and the
/// stop a flush of the disks; see docs/decisions/0006-soft-dirty-before-6.7.md. After it the first write to each page costs the guest a page fault.
/// Marks cannot be cleared for a part of memory, so a page written in the round before its stripe was sent goes again in the
/// next.
///
/// A log that was begun by a process that died cannot be continued: which pages left the table with their mark since its last
/// clear is told by counters that died with it.
///
/// Drains come from one thread.
final class SoftDirtyLog: DirtyLog, @unchecked Sendable {
    private let monitor: QMP
    private let memory: QEMUMemory
    private let scanner: SoftDirtyScanner
    private let bases: [UInt64]
    private(set) var standstill: Nanoseconds
    /// As of the last clear.
    private var pageTableEvents: UInt64
    let summary: String

    /// Begins to log. What was written before is forgotten without a standstill: the first round sends all memory anyway.
    init(monitor: QMP, memory: QEMUMemory) throws(TurntableError) {
        try DirtyLogMethod.softDirty.check(hugePagesIn: memory.regionOfHugePages())
        self.monitor = monitor
        self.memory = memory
        scanner = try SoftDirtyScanner(process: monitor.process)
        bases = try memory.bases(in: monitor.process)
        let began = Clock.now
        for (index, region) in memory.regions.enumerated() {
            try scanner.scan(bases[index]..<bases[index] + UInt64(region.pages.bytes.value), countsAbsent: false) { _ in }
        }
        pageTableEvents = SoftDirtyScanner.pageTableEvents()
        try scanner.clear()
        standstill = Clock.now - began
        summary = "\(DirtyLogMethod.softDirty.rawValue), the machine stands still about \(standstill) at the end of each round"
    }

    func drain(into bitmaps: [PageBitmap]) throws(TurntableError) {
        guard try monitor.execute("query-status")["status"]?.text == "running" else { return try fetchAndClear(into: bitmaps) }
        let began = Clock.now
        do throws(TurntableError) {
            try monitor.execute("stop")
            try fetchAndClear(into: bitmaps)
        } catch {
            // Whatever failed, it must not leave the machine standing.
            _ = try? monitor.execute("cont")
            throw error
        }
        try monitor.execute("cont")
        standstill = Clock.now - began
    }

    /// Marks cannot be cleared for a part of memory.
    func refresh(_ pages: Range<Int>, in region: RegionIndex, into bitmap: PageBitmap, stream: Int) throws(TurntableError) {}

    private func fetchAndClear(into bitmaps: [PageBitmap]) throws(TurntableError) {
        for (region, bitmap) in bitmaps.enumerated() { try fetch(0..<bitmap.pages, in: region, into: bitmap, countsAbsent: false) }
        // Read after all marks were fetched: a page that left the table with its mark did so before, and is counted by now.
        let events = SoftDirtyScanner.pageTableEvents()
        if events != pageTableEvents {
            // Some pages may have left the table with their mark, so every page that is not in it, but holds something, goes.
            for (region, bitmap) in bitmaps.enumerated() {
                var failure: TurntableError?
                memory.forEachPopulatedRun(in: RegionIndex(region)) { run in
                    do throws(TurntableError) {
                        try fetch(run, in: region, into: bitmap, countsAbsent: true)
                    } catch { failure = error }
                }
                if let failure { throw failure }
            }
            pageTableEvents = events
        }
        try scanner.clear()
    }

    private func fetch(_ pages: Range<Int>, in region: Int, into bitmap: PageBitmap, countsAbsent: Bool) throws(TurntableError) {
        let base = bases[region]
        let page = UInt64(pageBytes)
        let range = base + UInt64(pages.lowerBound) * page..<base + UInt64(pages.upperBound) * page
        try scanner.scan(range, countsAbsent: countsAbsent) { written in
            bitmap.insert(Int((written.lowerBound - base) / page)..<Int((written.upperBound - base) / page))
        }
    }
}

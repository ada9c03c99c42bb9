internal import MigrationEngine
internal import TurntableCore
internal import WireFormat

/// Xen's log of the frames that a domain wrote, and those that wrote for it. Fetched and cleared by one call, for all memory.
final class XenDirtyLog: DirtyLog, @unchecked Sendable {
    private let memory: XenMemory
    private let isPresent: PageBitmap
    /// Written past the log, by Xen (the page that it shares with the guest) and by dom0 (the rings of console and xenstore): they
    /// lie by themselves, apart from what is the guest's alone.
    private let isolated: [Range<Int>]
    /// As the hypervisor gives them; the scheduler's thread alone.
    private var words: [UInt64]
    /// Set between the pause and what follows: the last fetch is told so.
    var isLast = false

    /// Begins to log.
    init(_ memory: XenMemory) throws(TurntableError) {
        self.memory = memory
        let pages = memory.regions[0].pages
        isPresent = PageBitmap(pages: pages)
        for run in memory.runs { isPresent.insert(run) }
        isolated = memory.runs.filter { $0.count < Limits.stripePages }
        words = [UInt64](repeating: 0, count: (pages.value + 63) / 64)
        try memory.domain.setDirtyLog(on: true)
    }

    func drain(into bitmaps: [PageBitmap]) throws(TurntableError) {
        try memory.domain.fetchDirty(into: &words, frames: bitmaps[0].pages, isLast: isLast)
        try memory.checkGrowth()
        if isLast { for run in isolated { bitmaps[0].insert(run) } }
        for (index, word) in words.enumerated() where word != 0 {
            var left = word
            while left != 0 {
                let frame = index * 64 + left.trailingZeroBitCount
                left &= left - 1
                guard frame < bitmaps[0].pages else { break }
                // What was not there when the move began has been there, and is gone again.
                guard isPresent.contains(frame) else { continue }
                bitmaps[0].insert(frame..<frame + 1)
            }
        }
    }

    /// Marks are fetched for all memory or not at all.
    func refresh(_ pages: Range<Int>, in region: RegionIndex, into bitmap: PageBitmap, stream: Int) throws(TurntableError) {}
}

// A disk that comes along, at the source. Its blocks are pages of a region after those of memory, in the same ledger and the same
// queue. What plays the part of the dirty log is the disk's own: a delta tells what changed since the content was frozen last.

internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

final class SourceDisk: @unchecked Sendable {
    let source: any BlockSource
    let region: RegionIndex
    let pages: PageCount
    /// All that may be other than zero.
    let content: PageBitmap
    /// Written again and again: left for the pause. Changes between rounds only.
    let waiting: PageBitmap
    private var hot: HotChunks
    /// What asking for a delta took last.
    private(set) var fetchTime = Nanoseconds.zero
    private var losses = 0
    /// Whether the last delta said that changes were lost: the source of it is forgotten with that.
    private let endedInLoss = Monitor(false)

    init(_ source: any BlockSource, region: RegionIndex) {
        self.source = source
        self.region = region
        pages = PageCount(covering: source.size)
        content = PageBitmap(pages: pages)
        waiting = PageBitmap(pages: pages)
        hot = HotChunks(chunks: 0)
    }

    /// The region as the ledger and the offer name it.
    static func region(_ source: any BlockSource) -> MemoryRegion { MemoryRegion(name: "disk \(source.name)", pages: PageCount(covering: source.size)) }

    /// Freezes the content; all of it is to be sent.
    func begin(_ pending: PageBitmap) throws(TurntableError) {
        let all = try source.begin()
        hot = HotChunks(chunks: all.chunks)
        insert(all, into: pending)
        // From here on it is in the ledger.
        try source.settle()
    }

    /// Goes on where an earlier process was killed. False if that process's frozen content is gone, and all is to be sent again.
    func takeUp() throws(TurntableError) -> Bool {
        // What it held is not known here, and asked for only if the target loses everything.
        content.insert(0..<pages.value)
        let isThere = try source.takeUp()
        if !isThere { _ = try source.begin() }
        hot = HotChunks(chunks: ChunkSet(size: source.size, chunkBytes: source.chunkBytes).chunks)
        return isThere
    }

    /// Fetches what changed while the machine runs, and chooses what waits for the pause: at most `most` bytes.
    func fetch(into pending: PageBitmap, waitingAtMost most: ByteCount) throws(TurntableError) -> String? {
        let began = Clock.now
        let changes = try source.nextDelta()
        insert(changes.chunks, into: pending)
        try source.settle()
        endedInLoss.update { $0 = false }
        fetchTime = Clock.now - began
        waiting.remove(0..<pages.value)
        if let reason = changes.lossReason {
            losses += 1
            guard losses <= Limits.lostDeltas else {
                throw TurntableError(
                    .refused, "sending the disk \(source.name)", "\(losses) times its changes were lost: \(reason)",
                    remedy: "give its volume group more free space")
            }
            return reason
        }
        hot.tell(changes.chunks)
        if let chosen = hot.chosen(of: changes.chunks, atMost: most) { insert(chosen, into: waiting) }
        return nil
    }

    /// What the machine, which stands still, wrote last. Blocks may be read meanwhile.
    func lastDelta() throws(TurntableError) -> BlockChanges {
        try endedInLoss.update { (endedInLoss) throws(TurntableError) in
            let changes = try source.lastDelta()
            endedInLoss = changes.lossReason != nil
            return changes
        }
    }

    /// Reads pages that lie within the disk, but for the end of the last one, which is filled up with zeroes. False if the frozen content is
    /// lost.
    func read(_ run: Range<Int>, into buffer: UnsafeMutableRawPointer) throws(TurntableError) -> Bool {
        let bytes = run.lowerBound * pageBytes..<min(run.upperBound * pageBytes, source.size.value)
        do throws(TurntableError) {
            try unsafe source.read(bytes, into: UnsafeMutableRawBufferPointer(start: buffer, count: bytes.count))
        } catch {
            // Of what was frozen, or of what the last delta has just let go.
            guard source.lossReason() != nil || endedInLoss.read({ $0 }) else { throw error }
            return false
        }
        let rest = run.count * pageBytes - bytes.count
        if rest > 0 { unsafe (buffer + bytes.count).initializeMemory(as: UInt8.self, repeating: 0, count: rest) }
        return true
    }

    func insert(_ chunks: ChunkSet, into bitmap: PageBitmap) {
        var next = 0
        while let extent = chunks.nextExtent(from: next, atMost: source.size.value) {
            let run = extent.pagesOfBytes
            bitmap.insert(run)
            if bitmap !== waiting { content.insert(run) }
            next = extent.upperBound
        }
    }
}

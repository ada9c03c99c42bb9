/// Which parts of a disk are meant: one bit for each chunk of `chunkBytes`. The last chunk may be shorter than the others.
///
/// Not locked: one thread at a time.
public final class ChunkSet {
    public let size: ByteCount
    public let chunkBytes: Int
    public let chunks: Int
    private let marks: PageBitmap

    /// No chunk of a disk that was found to have at most ``Limits/diskChunks``.
    public init(size: ByteCount, chunkBytes: Int) {
        precondition(chunkBytes > 0 && size.value >= 0)
        self.size = size
        self.chunkBytes = chunkBytes
        chunks = size.value / chunkBytes + (size.value % chunkBytes > 0 ? 1 : 0)
        precondition(chunks <= Limits.diskChunks)
        marks = PageBitmap(pages: PageCount(chunks))
    }

    public func insert(_ range: Range<Int>) { marks.insert(range) }
    /// Every chunk that holds a byte of `range`.
    public func insert(bytes range: Range<Int>) {
        guard !range.isEmpty else { return }
        insert(range.lowerBound / chunkBytes..<(range.upperBound - 1) / chunkBytes + 1)
    }
    public func insertAll() { marks.insert(0..<chunks) }
    public func contains(_ chunk: Int) -> Bool { marks.contains(chunk) }
    public var count: Int { marks.count }

    /// Calls `body` with each run of chunks.
    public func forEachRun<Failure>(_ body: (Range<Int>) throws(Failure) -> Void) throws(Failure) { try marks.forEachRun(body) }

    /// Bytes of all chunks in the set.
    public var bytes: ByteCount {
        let isLastShort = chunks > 0 && marks.contains(chunks - 1)
        return ByteCount(marks.count * chunkBytes - (isLastShort ? chunks * chunkBytes - size.value : 0))
    }

    /// The bytes of the disk from `position` on that the set covers: the first run, cut off after `most` bytes. Nil past the last.
    public func nextExtent(from position: Int, atMost most: Int) -> Range<Int>? {
        guard position < size.value, let run = marks.nextRun(from: position / chunkBytes, to: chunks) else { return nil }
        let start = max(position, run.lowerBound * chunkBytes)
        return start..<min(run.upperBound * chunkBytes, size.value, start + most)
    }
}

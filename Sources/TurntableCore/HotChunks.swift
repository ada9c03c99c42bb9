/// Learns which chunks of a disk are written again and again: those of two deltas in a row, until they are missing in two. Sending
/// them before the writer stops is in vain.
///
/// Not locked: one thread at a time.
public struct HotChunks {
    /// What was in the last delta, and not in the one before it, or the other way around.
    private let warm: PageBitmap
    private let hot: PageBitmap

    public init(chunks: Int) {
        warm = PageBitmap(pages: PageCount(chunks))
        hot = PageBitmap(pages: PageCount(chunks))
    }

    /// A chunk goes from cold over warm to hot with each delta that it is in, and back with each that it is not in.
    public func tell(_ delta: ChunkSet) {
        precondition(delta.chunks == hot.pages)
        let concerned = PageBitmap(pages: PageCount(hot.pages))
        for bitmap in [warm, hot] { bitmap.forEachRun { concerned.insert($0) } }
        delta.forEachRun { concerned.insert($0) }
        concerned.forEachRun { for chunk in $0 { tell(chunk, isWritten: delta.contains(chunk)) } }
    }

    private func tell(_ chunk: Int, isWritten: Bool) {
        let bit = chunk..<chunk + 1
        switch (isWritten, warm.contains(chunk), hot.contains(chunk)) {
        case (true, true, _):
            warm.remove(bit)
            hot.insert(bit)
        case (true, false, true): break
        case (true, false, false): warm.insert(bit)
        case (false, true, _): warm.remove(bit)
        case (false, false, _):
            hot.remove(bit)
            warm.insert(bit)
        }
    }

    public func contains(_ chunk: Int) -> Bool { hot.contains(chunk) }

    /// The hot chunks of a delta, the first of them up to `most` bytes; nil if there are none.
    public func chosen(of delta: ChunkSet, atMost most: ByteCount) -> ChunkSet? {
        let chosen = ChunkSet(size: delta.size, chunkBytes: delta.chunkBytes)
        var left = most.value / delta.chunkBytes
        hot.forEachRun { run in
            for chunk in run where left > 0 && delta.contains(chunk) {
                chosen.insert(chunk..<chunk + 1)
                left -= 1
            }
        }
        return chosen.count > 0 ? chosen : nil
    }
}

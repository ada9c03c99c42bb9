import Testing
import TurntableCore

@Suite struct HotChunksTests {
    private let size = ByteCount.kibi(4 * 16)

    private func delta(_ chunks: Int...) -> ChunkSet {
        let set = ChunkSet(size: size, chunkBytes: 4096)
        for chunk in chunks { set.insert(chunk..<chunk + 1) }
        return set
    }

    @Test func twoDeltasInARowMakeAChunkHot() {
        let hot = HotChunks(chunks: 16)
        hot.tell(delta(1, 2))
        #expect(!hot.contains(1))
        hot.tell(delta(1, 3))
        #expect(hot.contains(1) && !hot.contains(2) && !hot.contains(3))
    }

    @Test func twoDeltasWithoutItMakeItCold() {
        let hot = HotChunks(chunks: 16)
        hot.tell(delta(5))
        hot.tell(delta(5))
        #expect(hot.contains(5))
        hot.tell(delta(5))
        #expect(hot.contains(5))
        hot.tell(delta())
        #expect(!hot.contains(5))
        hot.tell(delta(5))
        #expect(hot.contains(5))
        hot.tell(delta())
        hot.tell(delta())
        hot.tell(delta(5))
        #expect(!hot.contains(5))
    }

    @Test func noMoreAreChosenThanFit() throws {
        let hot = HotChunks(chunks: 16)
        for _ in 0..<2 { hot.tell(delta(0, 7, 15)) }
        let all = try #require(hot.chosen(of: delta(7, 9, 15), atMost: ByteCount(3 * 4096)))
        #expect(all.contains(7) && all.contains(15) && all.count == 2)
        #expect(hot.chosen(of: delta(7, 15), atMost: ByteCount(8191))?.count == 1)
        #expect(hot.chosen(of: delta(7), atMost: ByteCount(100)) == nil)
        #expect(hot.chosen(of: delta(1), atMost: .kibi(64)) == nil)
    }
}

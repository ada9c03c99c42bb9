internal import Foundation
internal import TestSupport
internal import Testing
internal import TurntableCore

@testable import BlockDelta

struct ExceptionStoreTests {
    static func changed(_ bytes: [UInt8], originChunks: Int) throws(ExceptionStoreError) -> ChunkSet {
        let header = try ExceptionStoreHeader(decoding: bytes)
        return try changedChunks(
            inStoreOf: bytes.count, originBytes: ByteCount(originChunks * header.chunkBytes), header: header,
            read: { (offset, count) throws(ExceptionStoreError) in Array(bytes[offset..<offset + count]) }, refuse: { $0 })
    }

    @Test(arguments: [4 << 10, 64 << 10, 512 << 10], UInt64(1)...4) func findsEveryChunk(chunkBytes: Int, seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        // Up to four areas of 4 KiB chunks; the data of large chunks need not be there.
        let count = chunkBytes == 4 << 10 ? Int.random(in: 0...1024, using: &random) : Int.random(in: 0...40, using: &random)
        let chunks = (0..<5000).shuffled(using: &random).prefix(count)
        let found = try Self.changed(Store(chunkBytes: chunkBytes, saving: Array(chunks)).bytes(), originChunks: 5000)
        #expect(found.members == chunks.sorted(), "seed \(seed)")
        #expect(found.chunkBytes == chunkBytes)
    }

    /// An area that is just full is followed by another; the last of a store need not be.
    @Test(arguments: [255, 256, 257, 512, 513]) func endsOfAreas(count: Int) throws {
        let store = Store(chunkBytes: 4096, saving: Array(0..<count))
        #expect(try Self.changed(store.bytes(), originChunks: 600).count == count)
    }
    @Test func aStoreThatIsFullToItsEnd() throws {
        let store = Store(chunkBytes: 4096, saving: Array(0..<256))
        #expect(try Self.changed(store.bytes(chunks: 258), originChunks: 600).count == 256)
    }
    /// The kernel clears an area before it uses it, and what is behind the end of the list is of no meaning.
    @Test func whatFollowsTheEndIsNotRead() throws {
        var bytes = Store(chunkBytes: 4096, saving: [7]).bytes()
        for index in 4096 + 32..<2 * 4096 { bytes[index] = 0xFF }
        #expect(try Self.changed(bytes, originChunks: 8).members == [7])
    }

    @Test(arguments: [
        ("magic", 0), ("version", 8), ("chunkSize", 12), ("oldChunk", 4096), ("newChunk", 4104),
    ]) func refusesWithTheOffset(kind: String, offset: Int) throws {
        var store = Store(chunkBytes: 4096, saving: [1, 2])
        switch kind {
        case "magic": store.magic = 0x7041_6E52
        case "version": store.version = 2
        case "chunkSize": store.headerChunkBytes = 3 * 4096
        case "oldChunk": store.exceptions[0].old = 10
        default: store.exceptions[0].new = 1
        }
        let error = #expect(throws: ExceptionStoreError.self) { try Self.changed(store.bytes(chunks: 300), originChunks: 10) }
        #expect(error?.kind.rawValue == kind && error?.offset == offset)
    }

    @Test(arguments: [0, 512, 2048, 32 << 20, 1 << 31]) func refusesChunkSizes(bytes: Int) throws {
        var store = Store(chunkBytes: 4096, saving: [])
        store.headerChunkBytes = bytes
        let error = #expect(throws: ExceptionStoreError.self) { try ExceptionStoreHeader(decoding: store.bytes()) }
        #expect(error?.kind == .chunkSize)
    }

    @Test func dataOutsideTheStoreOrInAnArea() throws {
        for new in [UInt64(1), 258, 300, .max] {
            var store = Store(chunkBytes: 4096, saving: [1])
            store.exceptions[0].new = new
            let error = #expect(throws: ExceptionStoreError.self) { try Self.changed(store.bytes(chunks: 300), originChunks: 10) }
            #expect(error?.kind == .newChunk && error?.value == new)
        }
    }

    @Test func anInvalidSnapshotIsSaidToBe() throws {
        var store = Store(chunkBytes: 4096, saving: [1])
        store.valid = 0
        #expect(try !ExceptionStoreHeader(decoding: store.bytes()).isValid)
    }

    @Test func tooShort() {
        let error = #expect(throws: ExceptionStoreError.self) { try ExceptionStoreHeader(decoding: [0x53, 0x6E]) }
        #expect(error?.kind == .short)
    }

    /// Every single wrong byte gives a set or a typed error, never a trap.
    @Test func anyByteMayBeWrong() {
        let whole = Store(chunkBytes: 4096, saving: [3, 4, 9]).bytes()
        var random = SeededGenerator(seed: 11)
        for offset in Array(0..<16) + Array(4096..<4096 + 64) {
            var bytes = whole
            bytes[offset] = UInt8.random(in: 0...255, using: &random)
            _ = try? Self.changed(bytes, originChunks: 16)
        }
    }
}

struct ChunkSetTests {
    @Test func theLastChunkIsShort() {
        let set = ChunkSet(size: ByteCount(10 * 4096 + 512), chunkBytes: 4096)
        #expect(set.chunks == 11)
        set.insertAll()
        #expect(set.bytes == set.size)
        #expect(set.nextExtent(from: 0, atMost: 1 << 20) == 0..<10 * 4096 + 512)
        #expect(set.nextExtent(from: 10 * 4096 + 512, atMost: 1 << 20) == nil)
    }

    @Test(arguments: UInt64(1)...20) func extentsCoverJustTheSet(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let chunkBytes = [4096, 65536].randomElement(using: &random)!
        let size = Int.random(in: 1...2_000_000, using: &random)
        let set = ChunkSet(size: ByteCount(size), chunkBytes: chunkBytes)
        var expected = [Bool](repeating: false, count: size)
        for _ in 0..<Int.random(in: 0...10, using: &random) {
            let first = Int.random(in: 0..<set.chunks, using: &random)
            let range = first..<Int.random(in: first...min(first + 8, set.chunks), using: &random)
            set.insert(range)
            for byte in range.lowerBound * chunkBytes..<max(range.lowerBound * chunkBytes, min(size, range.upperBound * chunkBytes)) {
                expected[byte] = true
            }
        }
        let most = Int.random(in: 1...40, using: &random) * 4096
        var found = [Bool](repeating: false, count: size)
        var position = 0
        while let extent = set.nextExtent(from: position, atMost: most) {
            #expect(extent.lowerBound >= position && !extent.isEmpty && extent.count <= most)
            for byte in extent { found[byte] = true }
            position = extent.upperBound
        }
        #expect(found == expected, "seed \(seed)")
        #expect(set.bytes.value == expected.count { $0 }, "seed \(seed)")
    }
}

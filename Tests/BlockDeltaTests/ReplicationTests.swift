internal import Foundation
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux

@testable import BlockDelta

/// A disk in memory whose writer works while it is copied, and whose snapshots may overflow.
private final class FakeDisk: BlockSource, @unchecked Sendable {
    let name = "disk0"
    let lastDeltaTime = Nanoseconds.milliseconds(1)
    let chunkBytes = 4096
    var size: ByteCount { ByteCount(live.count) }
    private(set) var live: [UInt8]
    private var frozen: [UInt8] = []
    private var written: ChunkSet
    private var random: SeededGenerator
    private var isStopped = false
    private(set) var isEnded = false
    /// Writes between two reads.
    var writesEach = 1
    /// Reads until the snapshot overflows; each time anew.
    var overflowAfter: Int?
    private var readsLeft = 0
    private var isLost = false

    /// Every second run of 500 chunks is zero, and no part of the content that is told first.
    private static func isEmpty(_ chunk: Int) -> Bool { chunk / 500 % 2 == 1 }

    init(chunks: Int, seed: UInt64) {
        random = SeededGenerator(seed: seed)
        live = random.bytes(chunks * 4096)
        for chunk in 0..<chunks where Self.isEmpty(chunk) {
            live.replaceSubrange(chunk * 4096..<(chunk + 1) * 4096, with: repeatElement(0, count: 4096))
        }
        written = ChunkSet(size: ByteCount(chunks * 4096), chunkBytes: 4096)
    }

    private func freeze() -> ChunkSet {
        let changed = written
        frozen = live
        written = ChunkSet(size: size, chunkBytes: chunkBytes)
        readsLeft = overflowAfter ?? .max
        isLost = false
        return changed
    }
    private func everything() -> ChunkSet {
        let all = ChunkSet(size: size, chunkBytes: chunkBytes)
        all.insertAll()
        return all
    }
    private func work() {
        guard !isStopped else { return }
        for _ in 0..<writesEach {
            let chunk = Int.random(in: 0..<live.count / 4096, using: &random)
            live[chunk * 4096 + Int.random(in: 0..<4096, using: &random)] &+= 1
            written.insert(chunk..<chunk + 1)
        }
    }

    func begin() -> ChunkSet {
        _ = freeze()
        let content = ChunkSet(size: size, chunkBytes: chunkBytes)
        for chunk in 0..<content.chunks where !Self.isEmpty(chunk) { content.insert(chunk..<chunk + 1) }
        return content
    }
    func takeUp() -> Bool { false }
    func changedBytes() -> ByteCount { written.bytes }
    func nextDelta() -> BlockChanges {
        let wasLost = isLost
        let changed = freeze()
        return wasLost ? BlockChanges(everything(), lossReason: "it overflowed") : BlockChanges(changed)
    }
    func lastDelta() -> BlockChanges {
        #expect(isStopped)
        let changed = freeze()
        readsLeft = .max
        return BlockChanges(changed)
    }
    func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError) {
        if readsLeft == 0 {
            isLost = true
            throw TurntableError(.unsupported, "reading the snapshot", "Input/output error")
        }
        readsLeft -= 1
        buffer.copyBytes(from: frozen[range])
        work()
    }
    func lossReason() -> String? { isLost ? "it overflowed" : nil }
    func end() { isEnded = true }
    func stop() { isStopped = true }
}

struct ReplicationTests {
    @Test(arguments: UInt64(1)...10) func theCopyIsExact(seed: UInt64) throws {
        let disk = FakeDisk(chunks: 3000, seed: seed)
        disk.writesEach = 3
        // What the target held is gone, also where the disk has nothing.
        let image = try ImageFile([UInt8](repeating: 0xA5, count: disk.size.value))
        let store = MemoryStore()
        var reports: [PassReport] = []
        do {
            let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: disk.size, overwriting: true, journals: SinkJournals { _ in store })
            try Replication(from: disk, to: sink, report: { reports.append($0) }).run(
                fits: { left, _ in left < .kibi(256) }, stopWriter: { disk.stop() })
        }
        #expect(try image.contents() == disk.live, "seed \(seed)")
        #expect(disk.isEnded && reports.last?.isLast == true && reports.count >= 3)
        #expect(String(decoding: store.contents(), as: UTF8.self).split(separator: "\n").last?.contains(" complete ") == true)
    }

    @Test func anOverflowIsSaidAndMadeUpFor() throws {
        let disk = FakeDisk(chunks: 3000, seed: 1)
        disk.overflowAfter = 5  // the whole disk takes more
        let image = try ImageFile()
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: disk.size)
        var reports: [PassReport] = []
        try Replication(
            from: disk, to: sink,
            report: {
                reports.append($0)
                disk.overflowAfter = nil
            }
        ).run(fits: { left, _ in left < .mebi(1) }, stopWriter: { disk.stop() })
        #expect(try image.contents() == disk.live)
        #expect(reports[1].lossReason == "it overflowed" && reports[1].bytes == disk.size.value)
        #expect(reports.filter { $0.lossReason != nil }.count == 1)
    }

    @Test func overflowsWithoutEndAreRefused() throws {
        let disk = FakeDisk(chunks: 3000, seed: 1)
        disk.overflowAfter = 5
        let image = try ImageFile()
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: disk.size)
        let error = failure { () throws(TurntableError) in
            try Replication(from: disk, to: sink, report: { _ in }).run(fits: { _, _ in true }, stopWriter: { disk.stop() })
        }
        #expect(error?.kind == .refused && error?.why.contains("overflowed") == true && disk.isEnded)
    }

    @Test func aWriterThatIsTooFastIsRefused() throws {
        let disk = FakeDisk(chunks: 1000, seed: 1)
        disk.writesEach = 300
        let image = try ImageFile()
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: disk.size)
        let error = failure { () throws(TurntableError) in
            try Replication(from: disk, to: sink, report: { _ in }).run(fits: { left, _ in left < .kibi(64) }, stopWriter: { disk.stop() })
        }
        #expect(error?.kind == .refused && error?.why.contains("\(Limits.diskPasses) passes") == true && disk.isEnded)
    }

    @Test func itCanBeCancelled() throws {
        let disk = FakeDisk(chunks: 3000, seed: 1)
        let image = try ImageFile()
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: disk.size)
        var asked = 0
        let cancelled = Replication(
            from: disk, to: sink, report: { _ in },
            isCancelled: {
                asked += 1
                return asked > 4
            })
        let error = failure { () throws(TurntableError) in try cancelled.run(fits: { _, _ in true }, stopWriter: { disk.stop() }) }
        #expect(error?.kind == .cancelled && disk.isEnded)
    }
}

internal import Foundation
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux

@testable import BlockDelta

/// A file of its own for each test.
struct ImageFile: ~Copyable {
    let path = FileManager.default.temporaryDirectory.appending(path: "turntable-image-\(UUID().uuidString)").path
    init(sparse bytes: Int) throws {
        try self.init([])
        truncate(path, bytes)
    }
    init(_ bytes: [UInt8]? = nil) throws { if let bytes { try Data(bytes).write(to: URL(filePath: path)) } }
    deinit { try? FileManager.default.removeItem(atPath: path) }
    func contents() throws -> [UInt8] { Array(try Data(contentsOf: URL(filePath: path))) }
    /// Bytes that the file system has given it.
    func allocatedBytes() -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_blocks) * 512 : -1
    }
}

struct SinkTests {
    private func put(_ sink: VolumeSink, _ bytes: [UInt8], at offset: Int) throws {
        try sink.write(offset..<offset + bytes.count) { buffer in buffer.copyBytes(from: bytes) }
    }

    @Test(arguments: UInt64(1)...5) func writesWhatItWasGiven(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let size = 8 << 20
        var expected = random.bytes(size)
        let image = try ImageFile(expected)
        let sink = try VolumeSink(image.path, size: ByteCount(size), overwriting: true)
        for _ in 0..<200 {
            let length = Int.random(in: 1...32, using: &random) * 4096
            let offset = Int.random(in: 0...(size - length) / 4096, using: &random) * 4096
            if Bool.random(using: &random) {
                let bytes = Bool.random(using: &random) ? random.bytes(length) : [UInt8](repeating: 0, count: length)
                try put(sink, bytes, at: offset)
                expected.replaceSubrange(offset..<offset + length, with: bytes)
            } else {
                try sink.zero(offset..<offset + length)
                expected.replaceSubrange(offset..<offset + length, with: [UInt8](repeating: 0, count: length))
            }
        }
        try sink.flush(BlockProgress(pass: 1, position: size))
        #expect(try image.contents() == expected, "seed \(seed)")
    }

    /// Many writes to one place: the last one counts, whichever thread took it.
    @Test func writesToOnePlaceStayInOrder() throws {
        let image = try ImageFile(sparse: 1 << 20)
        let sink = try VolumeSink(image.path, size: .mebi(1))
        var expected = [UInt8](repeating: 0, count: 8 * 4096)
        for value in 1...250 {
            let range = value % 2 * 4096..<(value % 2 + 1 + value % 3) * 4096
            try put(sink, [UInt8](repeating: UInt8(value), count: range.count), at: range.lowerBound)
            expected.replaceSubrange(range, with: repeatElement(UInt8(value), count: range.count))
        }
        try sink.flush(BlockProgress(pass: 1, position: 0))
        #expect(try Array(image.contents().prefix(expected.count)) == expected)
    }

    @Test func zeroesTakeNoRoom() throws {
        let image = try ImageFile()
        let sink = try VolumeSink(image.path, size: .mebi(8))
        for mebibyte in 0..<8 { try put(sink, [UInt8](repeating: 0, count: 1 << 20), at: mebibyte << 20) }
        try put(sink, [UInt8](repeating: 7, count: 64 << 10), at: 3 << 20)
        try sink.flush(BlockProgress(pass: 1, position: 0))
        #expect(try image.contents().count == 8 << 20)
        #expect(image.allocatedBytes() <= 128 << 10, "\(image.allocatedBytes())")
    }

    @Test func whatHeldDataBecomesZero() throws {
        let image = try ImageFile([UInt8](repeating: 9, count: 2 << 20))
        let sink = try VolumeSink(image.path, size: .mebi(2), overwriting: true)
        try put(sink, [UInt8](repeating: 0, count: 1 << 20), at: 0)
        try sink.zero(1 << 20..<2 << 20)
        try sink.flush(BlockProgress(pass: 1, position: 0))
        #expect(try image.contents().allSatisfy { $0 == 0 } && image.allocatedBytes() == 0)
    }

    @Test func refusesTargets() throws {
        let small = try ImageFile(sparse: 4096)
        #expect(failure { () throws(TurntableError) in try VolumeSink(small.path, size: .mebi(1)) }?.why == "it has 4.0 KiB")
        let full = try ImageFile([UInt8](repeating: 1, count: 1 << 20))
        let error = failure { () throws(TurntableError) in try VolumeSink(full.path, size: .mebi(1)) }
        #expect(error?.kind == .refused && error?.why == "it holds something at byte 0")
        #expect(failure { () throws(TurntableError) in try VolumeSink("/dev/null", size: .mebi(1)) }?.kind == .usage)
        #expect(failure { () throws(TurntableError) in try VolumeSink("/", size: .mebi(1)) } != nil)
        #expect(failure { () throws(TurntableError) in try VolumeSink("/dev/turntable-no-such", size: .mebi(1)) } != nil)
        #expect(!FileManager.default.fileExists(atPath: "/dev/turntable-no-such"))
        #expect(try full.contents().allSatisfy { $0 == 1 }, "a refused target is as it was")
    }

    /// As QEMU holds its images.
    @Test func refusesAnImageThatIsLocked() throws {
        let image = try ImageFile(sparse: 1 << 20)
        let first = try VolumeSink(image.path, size: .mebi(1))
        let error = failure { () throws(TurntableError) in try VolumeSink(image.path, size: .mebi(1)) }
        #expect(error?.kind == .refused && error?.why == "somebody uses it")
        withExtendedLifetime(first) {}
    }

    /// A target that takes no writes: the error names it, and comes before anything is said to be durable.
    @Test func aTargetThatFails() throws {
        // A memory file that is sealed against writing; glibc shows these to GNU sources only.
        typealias MakeMemoryFile = @convention(c) (UnsafePointer<CChar>, UInt32) -> Int32
        let (allowSealing, addSeals, sealWrite): (UInt32, Int32, Int32) = (2, 1033, 8)
        let make = unsafeBitCast(try #require(dlsym(nil, "memfd_create")), to: MakeMemoryFile.self)
        let file = Descriptor(owning: make("turntable-test", allowSealing))
        #expect(ftruncate(file.rawValue, 1 << 20) == 0)
        #expect(fcntl(file.rawValue, addSeals, sealWrite) == 0)
        let store = MemoryStore()
        let path = "/proc/self/fd/\(file.rawValue)"
        let sink = try VolumeSink(path, size: .mebi(1), journal: SinkJournal(store, disk: "vg/lv"))
        let before = store.contents()
        try put(sink, [UInt8](repeating: 1, count: 4096), at: 0)
        let error = failure { () throws(TurntableError) in try sink.flush(BlockProgress(pass: 1, position: 4096)) }
        #expect(error?.what.contains(path) == true && error?.what.contains("writing") == true, "\(String(describing: error))")
        #expect(store.contents() == before)
        #expect(throws: TurntableError.self) { try put(sink, [1], at: 8192) }
    }

    /// The source's error is the caller's, and the sink goes on.
    @Test func aSourceThatFails() throws {
        let image = try ImageFile()
        let sink = try VolumeSink(image.path, size: .mebi(1))
        for _ in 0..<2 * Limits.blockWrites {
            let error = failure { () throws(TurntableError) in
                try sink.write(0..<4096) { _ throws(TurntableError) in throw TurntableError(.line, "reading", "gone") }
            }
            #expect(error?.kind == .line)
        }
        try put(sink, [UInt8](repeating: 5, count: 4096), at: 0)
        try sink.flush(BlockProgress(pass: 1, position: 4096))
        #expect(try image.contents()[0] == 5)
    }
}

struct SinkJournalTests {
    @Test func remembersWhatWasNotedLast() throws {
        let store = MemoryStore()
        let journal = SinkJournal(store, disk: "vg/lv")
        #expect(try journal.last() == nil)
        for position in [0, 4096, 1 << 40] { try journal.note(BlockProgress(pass: 2, position: position)) }
        #expect(try SinkJournal(store, disk: "vg/lv").last() == BlockProgress(pass: 2, position: 1 << 40))
        try journal.note(BlockProgress(pass: 3, position: 0, isComplete: true))
        #expect(try journal.last()?.isComplete == true)
        #expect(failure { () throws(TurntableError) in try SinkJournal(store, disk: "vg/other").last() }?.kind == .refused)
    }

    /// Whatever a crash leaves of the last line, the one before counts, and notes go on behind it.
    @Test func aTornLine() throws {
        let store = MemoryStore()
        try SinkJournal(store, disk: "vg/lv").note(BlockProgress(pass: 1, position: 4096))
        let whole = store.contents()
        try SinkJournal(store, disk: "vg/lv").note(BlockProgress(pass: 1, position: 8192))
        let both = store.contents()
        for length in whole.count..<both.count {
            let torn = MemoryStore()
            try torn.append(Array(both[..<length]))
            let journal = SinkJournal(torn, disk: "vg/lv")
            #expect(try journal.last()?.position == 4096)
            try journal.note(BlockProgress(pass: 1, position: 12288))
            #expect(try journal.last()?.position == 12288)
        }
        var damaged = both
        damaged[whole.count + 30] ^= 1
        let other = MemoryStore()
        try other.append(damaged)
        #expect(try SinkJournal(other, disk: "vg/lv").last()?.position == 4096)
    }

    /// A target with an unfinished copy may be written again; one with a finished copy holds something.
    @Test func anInterruptedCopyMayBeginAgain() throws {
        let image = try ImageFile([UInt8](repeating: 1, count: 1 << 20))
        let store = MemoryStore()
        let journal = SinkJournal(store, disk: "vg/lv")
        #expect(failure { () throws(TurntableError) in try VolumeSink(image.path, size: .mebi(1), journal: journal) }?.kind == .refused)
        try journal.note(BlockProgress(pass: 1, position: 4096))
        let interrupted: BlockProgress?
        do { interrupted = try VolumeSink(image.path, size: .mebi(1), journal: journal).interrupted }
        #expect(interrupted == BlockProgress(pass: 1, position: 4096))
        try journal.note(BlockProgress(pass: 5, position: 0, isComplete: true))
        #expect(failure { () throws(TurntableError) in try VolumeSink(image.path, size: .mebi(1), journal: journal) }?.kind == .refused)
    }
}

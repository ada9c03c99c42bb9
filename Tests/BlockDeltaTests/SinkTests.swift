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
        try put(sink, bytes, at: offset, [BlockPart(offset..<offset + bytes.count, isZero: false)])
    }

    private func put(_ sink: VolumeSink, _ bytes: [UInt8], at offset: Int, _ parts: [BlockPart], done: @escaping @Sendable (TurntableError?) -> Void = { _ in }) throws {
        let buffer = try sink.claim(offset..<offset + bytes.count)
        UnsafeMutableRawBufferPointer(start: buffer.address, count: bytes.count).copyBytes(from: bytes)
        sink.submit(buffer, parts, done: done)
    }

    /// Over something, and over a new file, of which the sink knows that it is zero where nothing was written.
    @Test(arguments: UInt64(1)...6) func writesWhatItWasGiven(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let size = 8 << 20
        let isNew = seed % 2 == 0
        var expected = isNew ? [UInt8](repeating: 0, count: size) : random.bytes(size)
        let image = try ImageFile(isNew ? nil : expected)
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: ByteCount(size), overwriting: true)
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
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: .mebi(1))
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
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: .mebi(8))
        for mebibyte in 0..<8 { try put(sink, [UInt8](repeating: 0, count: 1 << 20), at: mebibyte << 20) }
        try put(sink, [UInt8](repeating: 7, count: 64 << 10), at: 3 << 20)
        try sink.flush(BlockProgress(pass: 1, position: 0))
        #expect(try image.contents().count == 8 << 20)
        #expect(image.allocatedBytes() <= 128 << 10, "\(image.allocatedBytes())")
    }

    @Test func whatHeldDataBecomesZero() throws {
        let image = try ImageFile([UInt8](repeating: 9, count: 2 << 20))
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: .mebi(2), overwriting: true)
        try put(sink, [UInt8](repeating: 0, count: 1 << 20), at: 0)
        try sink.zero(1 << 20..<2 << 20)
        try sink.flush(BlockProgress(pass: 1, position: 0))
        #expect(try image.contents().allSatisfy { $0 == 0 } && image.allocatedBytes() == 0)
    }

    @Test func refusesTargets() throws {
        let small = try ImageFile(sparse: 4096)
        #expect(failure { () throws(TurntableError) in try VolumeSink(small.path, as: "disk0", of: "web", size: .mebi(1)) }?.why == "it has 4.0 KiB")
        let full = try ImageFile([UInt8](repeating: 1, count: 1 << 20))
        let error = failure { () throws(TurntableError) in try VolumeSink(full.path, as: "disk0", of: "web", size: .mebi(1)) }
        #expect(error?.kind == .refused && error?.why == "it holds something at byte 0")
        #expect(failure { () throws(TurntableError) in try VolumeSink("/dev/null", as: "disk0", of: "web", size: .mebi(1)) }?.kind == .usage)
        #expect(failure { () throws(TurntableError) in try VolumeSink("/", as: "disk0", of: "web", size: .mebi(1)) } != nil)
        #expect(failure { () throws(TurntableError) in try VolumeSink("/dev/turntable-no-such", as: "disk0", of: "web", size: .mebi(1)) } != nil)
        #expect(!FileManager.default.fileExists(atPath: "/dev/turntable-no-such"))
        #expect(try full.contents().allSatisfy { $0 == 1 }, "a refused target is as it was")
    }

    @Test func takesAnOlderCopyThatIsToBeCompared() throws {
        let older = try ImageFile([UInt8](repeating: 1, count: 1 << 20))
        let sink = try VolumeSink(older.path, as: "disk0", of: "web", size: .mebi(1), recycling: true)
        #expect(sink.isUnfinishedCopy && !sink.isZeroed)
        let empty = try ImageFile(sparse: 1 << 20)
        #expect(try !VolumeSink(empty.path, as: "disk0", of: "web", size: .mebi(1), recycling: true).isUnfinishedCopy, "there is nothing to compare")
    }

    /// As QEMU holds its images.
    @Test func refusesAnImageThatIsLocked() throws {
        let image = try ImageFile(sparse: 1 << 20)
        let first = try VolumeSink(image.path, as: "disk0", of: "web", size: .mebi(1))
        let error = failure { () throws(TurntableError) in try VolumeSink(image.path, as: "disk0", of: "web", size: .mebi(1)) }
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
        let sink = try VolumeSink(path, as: "disk0", of: "web", size: .mebi(1), journals: SinkJournals { _ in store })
        let before = store.contents()
        try put(sink, [UInt8](repeating: 1, count: 4096), at: 0)
        let error = failure { () throws(TurntableError) in try sink.flush(BlockProgress(pass: 1, position: 4096)) }
        #expect(error?.what.contains(path) == true && error?.what.contains("writing") == true, "\(String(describing: error))")
        #expect(store.contents() == before)
        #expect(throws: TurntableError.self) { try put(sink, [1], at: 8192) }
    }

    /// What is claimed and not written leaves the target as it was, and the buffers come back.
    @Test func whatIsAbandonedIsNotWritten() throws {
        let image = try ImageFile()
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: .mebi(1))
        for _ in 0..<2 * Limits.blockWrites { sink.abandon(try sink.claim(0..<4096)) }
        try put(sink, [UInt8](repeating: 5, count: 4096), at: 4096)
        try sink.flush(BlockProgress(pass: 1, position: 8192))
        #expect(try image.contents()[0] == 0 && image.contents()[4096] == 5)
    }

    /// Of a claimed range only the parts are touched; those to be zero are, whatever is in the buffer.
    @Test(arguments: UInt64(1)...10) func writesTheParts(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let size = 2 << 20
        var expected = random.bytes(size)
        let image = try ImageFile(expected)
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: ByteCount(size), overwriting: true)
        for start in [0, 1 << 20] {
            let bytes = random.bytes(1 << 20)
            var parts: [BlockPart] = []
            var position = start
            while position < start + 1 << 20 {
                let end = min(start + 1 << 20, position + Int.random(in: 1...40, using: &random) * 4096)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: break
                case 1:
                    parts.append(BlockPart(position..<end, isZero: false))
                    expected.replaceSubrange(position..<end, with: bytes[position - start..<end - start])
                default:
                    parts.append(BlockPart(position..<end, isZero: true))
                    expected.replaceSubrange(position..<end, with: repeatElement(0, count: end - position))
                }
                position = end
            }
            try put(sink, bytes, at: start, parts)
        }
        try sink.flush(BlockProgress(pass: 1, position: size))
        #expect(try image.contents() == expected, "seed \(seed)")
        let buffer = AlignedBuffer(bytes: 1 << 20)
        try sink.read(1 << 20..<2 << 20, into: buffer.bytes)
        #expect(Array(buffer.bytes) == Array(expected[(1 << 20)...]))
    }

    /// Everything that was submitted has been said to be written when flush returns.
    @Test func saysWhatIsWritten() throws {
        let image = try ImageFile()
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: .mebi(4))
        let said = Monitor(0)
        for mebibyte in 0..<4 {
            let range = mebibyte << 20..<(mebibyte + 1) << 20
            try put(sink, [UInt8](repeating: 3, count: range.count), at: range.lowerBound, [BlockPart(range, isZero: false)]) { failure in
                if failure == nil { said.update { $0 += 1 } }
            }
        }
        try sink.flush(BlockProgress(pass: 1, position: 4 << 20))
        #expect(said.read { $0 } == 4)
    }

    /// Several threads, each with its own part of the disk.
    @Test func isWrittenBySeveralThreads() throws {
        let image = try ImageFile()
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: .mebi(16))
        let threads = (0..<8).map { owner in
            WorkerThread("test-stream") {
                for turn in 1...20 {
                    for mebibyte in [2 * owner, 2 * owner + 1] {
                        let range = mebibyte << 20..<(mebibyte + 1) << 20
                        guard let buffer = try? sink.claim(range) else { continue }
                        UnsafeMutableRawBufferPointer(start: buffer.address, count: range.count).initializeMemory(as: UInt8.self, repeating: UInt8(owner * 20 + turn))
                        sink.submit(buffer, [BlockPart(range, isZero: false)]) { _ in }
                    }
                }
            }
        }
        for thread in threads { thread.join() }
        try sink.flush(BlockProgress(pass: 1, position: 16 << 20))
        let contents = try image.contents()
        for mebibyte in 0..<16 { #expect(contents[mebibyte << 20..<(mebibyte + 1) << 20].allSatisfy { $0 == UInt8(mebibyte / 2 * 20 + 20) }) }
    }

    /// Disks need not end with a page.
    @Test(arguments: [512, 1 << 20 + 512, 3 << 20 + 4096 + 1536]) func oddSizes(size: Int) throws {
        var random = SeededGenerator(seed: 7)
        let content = random.bytes(size)
        let image = try ImageFile(random.bytes(size))
        let sink = try VolumeSink(image.path, as: "disk0", of: "web", size: ByteCount(size), overwriting: true)
        for start in stride(from: 0, to: size, by: 1 << 20) { try put(sink, Array(content[start..<min(size, start + 1 << 20)]), at: start) }
        try sink.flush(BlockProgress(pass: 1, position: size))
        #expect(try image.contents() == content)
        let last = max(0, size - 1536) / 4096 * 4096
        let buffer = AlignedBuffer(bytes: size - last)
        try sink.read(last..<size, into: buffer.bytes)
        #expect(Array(buffer.bytes) == Array(content[last...]))
        try sink.zero(last..<size)
        try sink.flush(BlockProgress(pass: 2, position: 0))
        #expect(try image.contents() == content[..<last] + [UInt8](repeating: 0, count: size - last))
    }

    @Test func whatIsKnownToBeZero() throws {
        let made = try ImageFile(), sparse = try ImageFile(sparse: 1 << 20), written = try ImageFile([UInt8](repeating: 0, count: 1 << 20))
        #expect(try VolumeSink(made.path, as: "disk0", of: "web", size: .mebi(1)).isZeroed)
        #expect(try VolumeSink(sparse.path, as: "disk0", of: "web", size: .mebi(1)).isZeroed)
        #expect(try !VolumeSink(written.path, as: "disk0", of: "web", size: .mebi(1), overwriting: true).isZeroed, "zeroes that were written are not known")
    }
}

struct SinkJournalTests {
    @Test func remembersWhatWasNotedLast() throws {
        let store = MemoryStore()
        let journal = SinkJournal(store, copy: "abc")
        #expect(try journal.last() == nil)
        for position in [0, 4096, 1 << 40] { try journal.note(BlockProgress(pass: 2, position: position)) }
        #expect(try SinkJournal(store, copy: "abc").last() == BlockProgress(pass: 2, position: 1 << 40))
        try journal.note(BlockProgress(pass: 3, position: 0, isComplete: true))
        #expect(try journal.last()?.isComplete == true)
        let other = SinkJournal(store, copy: "other")
        #expect(try other.last() == nil)
        try other.note(BlockProgress(pass: 1, position: 0))
        #expect(try other.last()?.pass == 1 && journal.last() == nil)
    }

    /// Whatever a crash leaves of the last line, the one before counts, and notes go on behind it.
    @Test func aTornLine() throws {
        let store = MemoryStore()
        try SinkJournal(store, copy: "abc").note(BlockProgress(pass: 1, position: 4096))
        let whole = store.contents()
        try SinkJournal(store, copy: "abc").note(BlockProgress(pass: 1, position: 8192))
        let both = store.contents()
        for length in whole.count..<both.count {
            let torn = MemoryStore()
            try torn.append(Array(both[..<length]))
            let journal = SinkJournal(torn, copy: "abc")
            #expect(try journal.last()?.position == 4096)
            try journal.note(BlockProgress(pass: 1, position: 12288))
            #expect(try journal.last()?.position == 12288)
        }
        var damaged = both
        damaged[whole.count + 30] ^= 1
        let other = MemoryStore()
        try other.append(damaged)
        #expect(try SinkJournal(other, copy: "abc").last()?.position == 4096)
    }

    private func open(_ path: String, of machine: String = "web", as disk: String = "disk0", _ store: MemoryStore) throws(TurntableError) -> VolumeSink {
        try VolumeSink(path, as: disk, of: machine, size: .mebi(1), journals: SinkJournals { _ in store })
    }

    private func isRefused(_ path: String, of machine: String = "web", as disk: String = "disk0", _ store: MemoryStore) -> Bool {
        do throws(TurntableError) {
            _ = try open(path, of: machine, as: disk, store)
            return false
        } catch {
            return error.kind == .refused && error.why.contains("holds something")
        }
    }

    /// What a power cut left of a copy may be written again, and compared; by the same disk only, and not when it was complete.
    @Test func anInterruptedCopyMayBeginAgain() throws {
        let image = try ImageFile(), store = MemoryStore()
        do {
            let sink = try open(image.path, store)
            #expect(sink.isZeroed && !sink.isUnfinishedCopy && sink.interrupted == nil)
            let buffer = try sink.claim(0..<4096)
            UnsafeMutableRawBufferPointer(start: buffer.address, count: 4096).initializeMemory(as: UInt8.self, repeating: 1)
            sink.submit(buffer, [BlockPart(0..<4096, isZero: false)]) { _ in }
            try sink.flush(BlockProgress(pass: 1, position: 4096))
        }
        let noted = store.contents()
        #expect(isRefused(image.path, of: "db", store) && isRefused(image.path, as: "disk1", store))
        #expect(store.contents() == noted, "a refused copy changes nothing")
        do {
            let sink = try open(image.path, store)
            #expect(sink.isUnfinishedCopy && !sink.isZeroed && sink.interrupted == BlockProgress(pass: 1, position: 4096))
            try sink.flush(BlockProgress(pass: 5, position: 0, isComplete: true))
        }
        #expect(isRefused(image.path, store))
    }

    /// Another file that has the name since is not what was interrupted.
    @Test func anotherFileIsNotTheCopy() throws {
        let image = try ImageFile(), store = MemoryStore()
        do { _ = try open(image.path, store) }
        try FileManager.default.removeItem(atPath: image.path)
        try Data([UInt8](repeating: 7, count: 1 << 20)).write(to: URL(filePath: image.path))
        #expect(isRefused(image.path, store))
    }

    @Test func journalsAreFilesOfTheStateDirectory() throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "turntable-state-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let image = try ImageFile()
        for disk in ["disk0", "disk0", "/machine/peripheral/disk1/virtio backend"] {
            _ = try VolumeSink(image.path, as: disk, of: "web", size: .mebi(1), journals: SinkJournals(directory: "\(directory)/disks"))
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: "\(directory)/disks").count == 2)
    }
}

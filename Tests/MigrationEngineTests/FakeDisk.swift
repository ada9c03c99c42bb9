internal import TestSupport
internal import TurntableCore
internal import TurntableLinux

/// A disk in memory that is written while it is read, with a mark for each chunk that was.
final class FakeDisk: BlockSource, @unchecked Sendable {
    let name = "fake0"
    let size: ByteCount
    let chunkBytes = 8192
    let lastDeltaTime = Nanoseconds.zero

    private struct State {
        var bytes: [UInt8]
        var marks: Set<Int> = []
        var loss: String?
        var begins = 0
        var deltas = 0
        var ends = 0
        var reads = 0
        var bytesRead = 0
        var isFrozen = false
    }
    private let state: Monitor<State>

    init(_ bytes: [UInt8]) {
        precondition(bytes.count % 512 == 0)
        size = ByteCount(bytes.count)
        state = Monitor(State(bytes: bytes))
    }

    var bytes: [UInt8] { state.read { $0.bytes } }
    var deltas: Int { state.read { $0.deltas } }
    var isEnded: Bool { state.read { $0.ends > 0 && !$0.isFrozen } }
    var bytesRead: Int { state.read { $0.bytesRead } }

    func write(_ bytes: [UInt8], at offset: Int) {
        state.update { state in
            state.bytes.replaceSubrange(offset..<offset + bytes.count, with: bytes)
            for chunk in offset / chunkBytes...(offset + bytes.count - 1) / chunkBytes { state.marks.insert(chunk) }
        }
    }
    /// What was written is forgotten, and the frozen content with it.
    func lose(_ reason: String) { state.update { $0.loss = reason } }

    func begin() -> ChunkSet {
        state.update { state in
            state.begins += 1
            state.isFrozen = true
            state.marks = []
            return content(of: state.bytes)
        }
    }
    func takeUp() -> Bool { state.update { $0.isFrozen } }
    func nextDelta() -> BlockChanges {
        state.update { state in
            state.deltas += 1
            defer { (state.marks, state.loss) = ([], nil) }
            if let loss = state.loss { return BlockChanges(content(of: state.bytes, all: true), lossReason: loss) }
            return BlockChanges(chunks(state.marks))
        }
    }
    func lastDelta() -> BlockChanges { nextDelta() }
    func changedBytes() -> ByteCount { state.read { ByteCount($0.marks.count * chunkBytes) } }
    func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError) {
        precondition(range.count == buffer.count && Int(bitPattern: buffer.baseAddress) % blockAlignment == 0)
        let isLost = state.update { state in
            state.reads += 1
            state.bytesRead += range.count
            buffer.copyBytes(from: state.bytes[range])
            return state.loss != nil
        }
        if isLost { throw TurntableError(.unsupported, "reading the fake disk", "it is lost") }
    }
    func lossReason() -> String? { state.read { $0.loss } }
    func end() {
        state.update {
            $0.ends += 1
            $0.isFrozen = false
        }
    }

    private func content(of bytes: [UInt8], all: Bool = false) -> ChunkSet {
        let set = ChunkSet(size: size, chunkBytes: chunkBytes)
        for chunk in 0..<set.chunks where all || bytes[chunk * chunkBytes..<min((chunk + 1) * chunkBytes, bytes.count)].contains(where: { $0 != 0 }) {
            set.insert(chunk..<chunk + 1)
        }
        return set
    }
    private func chunks(_ marks: Set<Int>) -> ChunkSet {
        let set = ChunkSet(size: size, chunkBytes: chunkBytes)
        for chunk in marks { set.insert(chunk..<chunk + 1) }
        return set
    }
}

/// A disk in memory that is written by one slow thread.
final class FakeSink: BlockSink, @unchecked Sendable {
    let name = "fake0"
    let size: ByteCount
    let isZeroed: Bool
    private struct Job {
        var buffer: BlockBuffer
        var parts: [BlockPart]
        var done: @Sendable (TurntableError?) -> Void
    }
    private struct State {
        var bytes: [UInt8]
        var jobs: [Job] = []
        var claimed: [Int: Range<Int>] = [:]
        var failure: TurntableError?
        var failsAfter = Int.max
        var flushFailure: TurntableError?
        var blocksWritten = 0
        var isDurable = false
        var isOver = false
    }
    private let state: Monitor<State>
    private let buffers = (0..<4).map { _ in AlignedBuffer(bytes: Limits.blockExtentBytes) }

    init(size: ByteCount, holding bytes: [UInt8]?) {
        self.size = size
        isZeroed = bytes == nil
        state = Monitor(State(bytes: bytes ?? [UInt8](repeating: 0, count: size.value)))
        _ = WorkerThread("sink") { [self] in work() }
    }

    var bytes: [UInt8] { state.read { $0.bytes } }
    var blocksWritten: Int { state.read { $0.blocksWritten } }
    var isDurable: Bool { state.read { $0.isDurable } }
    func fail(after blocks: Int) { state.update { $0.failsAfter = blocks } }
    func failToFlush() { state.update { $0.flushFailure = TurntableError(.unsupported, "flushing the fake sink", "as the test wants") } }
    func stop() { state.update { $0.isOver = true } }

    private func work() {
        while true {
            let job: Job?? = state.wait(atMost: .seconds(60)) { state in
                state.jobs.isEmpty ? (state.isOver ? .some(nil) : nil) : .some(state.jobs.removeFirst())
            }
            guard case .some(.some(let job)) = job else { return }
            Clock.sleep(.milliseconds(1))
            let failure = state.update { state -> TurntableError? in
                if state.blocksWritten >= state.failsAfter {
                    state.failure = TurntableError(.unsupported, "writing the fake sink", "as the test wants")
                }
                for part in job.parts where state.failure == nil {
                    let offset = part.range.lowerBound - job.buffer.range.lowerBound
                    let bytes = UnsafeRawBufferPointer(start: job.buffer.address + offset, count: part.range.count)
                    state.bytes.replaceSubrange(part.range, with: part.isZero ? [UInt8](repeating: 0, count: part.range.count) : Array(bytes))
                }
                state.blocksWritten += 1
                state.isDurable = false
                state.claimed[job.buffer.index] = nil
                return state.failure
            }
            job.done(failure)
        }
    }

    func claim(_ range: Range<Int>) throws(TurntableError) -> BlockBuffer {
        let result = state.wait(atMost: .seconds(10)) { state -> Result<Int, TurntableError>? in
            if let failure = state.failure { return .failure(failure) }
            guard !state.claimed.values.contains(where: { $0.overlaps(range) }) else { return nil }
            guard let index = (0..<4).first(where: { state.claimed[$0] == nil }) else { return nil }
            state.claimed[index] = range
            return .success(index)
        }
        guard let result else { throw TurntableError(.unsupported, "claiming a buffer", "none was free") }
        let index = try result.get()
        return BlockBuffer(index: index, range: range, address: buffers[index].bytes.baseAddress!)
    }
    func submit(_ buffer: BlockBuffer, _ parts: [BlockPart], done: @escaping @Sendable (TurntableError?) -> Void) {
        state.update { $0.jobs.append(Job(buffer: buffer, parts: parts, done: done)) }
    }
    func abandon(_ buffer: BlockBuffer) { state.update { $0.claimed[buffer.index] = nil } }
    func zero(_ range: Range<Int>) { state.update { $0.bytes.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count)) } }
    func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) { buffer.copyBytes(from: bytes[range]) }
    func flush(_ progress: BlockProgress) throws(TurntableError) {
        let failure = state.wait(atMost: .seconds(10)) { state -> TurntableError?? in
            guard state.jobs.isEmpty, state.claimed.isEmpty else { return nil }
            return .some(state.failure ?? state.flushFailure)
        }
        if let failure = failure ?? nil { throw failure }
        state.update { $0.isDurable = true }
    }
}

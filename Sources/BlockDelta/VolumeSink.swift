public import TurntableCore
internal import TurntableLinux

/// A logical volume, a block device or an image file that is written as a disk elsewhere is read.
///
/// Writes go past the page cache, a few at a time on threads of their own (``Limits/blockWriters``) from buffers that are made
/// once (``Limits/blockWrites``). Two that touch the same bytes never wait or run at once, so they happen in order. What is
/// zero is not written where a new target has nothing yet (``WrittenUnits``), and elsewhere the target is told to forget it, so that
/// a thin volume or a sparse file stays small.
///
/// A target is refused if it is smaller than the disk, mounted, used by somebody, or if it holds something, which is looked for
/// where file systems and partition tables have their signatures.
///
/// Unchecked: what threads share is in ``queue``, or set once.
public final class VolumeSink: BlockSink, @unchecked Sendable {
    public let name: String
    public let size: ByteCount
    public let isZeroed: Bool
    /// What an earlier copy to this target had noted, if it was not complete.
    public let interrupted: BlockProgress?

    public var isUnfinishedCopy: Bool { (interrupted != nil || isRecycling) && !isZeroed }

    private let isRecycling: Bool
    private let file: DirectFile
    private let journal: SinkJournal?
    private let buffers: [AlignedBuffer]
    private let queue = Monitor(Queue())
    private var threads: [WorkerThread] = []

    fileprivate struct Job {
        var range: Range<Int>
        /// Nil: zeroes.
        var buffer: Int?
        var parts: [BlockPart] = []
        var done: (@Sendable (TurntableError?) -> Void)?
    }
    fileprivate struct Queue {
        var waiting: [Job] = []
        /// Waiting, under way, or being filled.
        var ranges: [Range<Int>] = []
        var freeBuffers = Array(0..<Limits.blockWrites)
        var failure: TurntableError?
        var isOver = false
    }

    /// - Parameters:
    ///   - path: what is not there is made as a file.
    ///   - name: what the machine calls the disk.
    ///   - machine: whose disk it is, for the journal.
    ///   - size: of the disk that is copied.
    ///   - isOverwriting: what the target holds is no reason to refuse it.
    ///   - isRecycling: what it holds is an older copy of the disk. It is overwritten too.
    ///   - users: that they have it open is none either.
    ///   - journals: where progress is noted. What an interrupted copy of the same disk left is no reason to refuse the target either.
    public init(
        _ path: String, as name: String, of machine: String, size: ByteCount, overwriting isOverwriting: Bool = false,
        recycling isRecycling: Bool = false, sharing users: SinkUsers = .none, journals: SinkJournals? = nil
    ) throws(TurntableError) {
        file = try SinkTarget.open(path, size: size, sharing: users)
        self.isRecycling = isRecycling
        let identity = try file.identity()
        journal = try journals?.journal(of: machine, disk: name, at: path, identity: identity)
        interrupted = try journal?.last().flatMap { $0.isComplete ? nil : $0 }
        if !isOverwriting, !isRecycling, interrupted == nil { try SinkTarget.checkEmpty(file, size: size) }
        isZeroed = try file.isKnownToBeZero()
        self.name = name
        self.size = size
        let written = isZeroed ? WrittenUnits(of: size) : nil
        buffers = (0..<Limits.blockWrites).map { _ in AlignedBuffer(bytes: Limits.blockExtentBytes) }
        try journal?.note(BlockProgress(pass: 0, position: 0))
        for _ in 0..<Limits.blockWriters {
            let worker = Worker(file: file, buffers: buffers, queue: queue, written: written)
            threads.append(WorkerThread("block-writer") { worker.run() })
        }
    }

    deinit {
        queue.update { $0.isOver = true }
        for thread in threads { thread.join() }
    }

    public func claim(_ range: Range<Int>) throws(TurntableError) -> BlockBuffer {
        precondition(!range.isEmpty && range.count <= Limits.blockExtentBytes && range.upperBound <= size.value)
        let index: Int = try waitForRoom { queue in
            guard !queue.freeBuffers.isEmpty, !queue.ranges.contains(where: { $0.overlaps(range) }) else { return nil }
            queue.ranges.append(range)
            return queue.freeBuffers.removeLast()
        }
        guard let address = unsafe buffers[index].bytes.baseAddress else { preconditionFailure("buffers are not empty") }
        return unsafe BlockBuffer(index: index, range: range, address: address)
    }

    public func submit(_ buffer: BlockBuffer, _ parts: [BlockPart], done: @escaping @Sendable (TurntableError?) -> Void) {
        precondition(parts.allSatisfy { buffer.range.lowerBound <= $0.range.lowerBound && $0.range.upperBound <= buffer.range.upperBound })
        queue.update { $0.waiting.append(Job(range: buffer.range, buffer: buffer.index, parts: parts, done: done)) }
    }

    public func abandon(_ buffer: BlockBuffer) { queue.update { $0.finish(Job(range: buffer.range, buffer: buffer.index)) } }

    public func zero(_ range: Range<Int>) throws(TurntableError) {
        precondition(range.upperBound <= size.value)
        var position = range.lowerBound
        while position < range.upperBound {
            let piece = position..<min(range.upperBound, position + Limits.blockZeroBytes)
            try waitForRoom { (queue) -> Void? in
                guard queue.ranges.count < Limits.blockWrites, !queue.ranges.contains(where: { $0.overlaps(piece) }) else { return nil }
                queue.ranges.append(piece)
                return ()
            }
            // Not in the wait above, which wakes nobody.
            queue.update { $0.waiting.append(Job(range: piece)) }
            position = piece.upperBound
        }
    }

    public func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError) {
        try unsafe file.read(at: range.lowerBound, into: buffer)
    }

    public func flush(_ progress: BlockProgress) throws(TurntableError) {
        try waitForRoom { (queue) -> Void? in queue.ranges.isEmpty ? () : nil }
        try file.sync()
        try journal?.note(progress)
    }

    private func waitForRoom<Value>(_ body: (inout Queue) -> Value?) throws(TurntableError) -> Value {
        let outcome: Result<Value, TurntableError>? = queue.wait(atMost: Limits.blockTime) { queue in
            if let failure = queue.failure { return .failure(failure) }
            return body(&queue).map { .success($0) }
        }
        guard let outcome else {
            throw TurntableError(
                .unsupported, "writing to \(file.path)", "nothing was written for \(Limits.blockTime.seconds) s",
                remedy: "look at the kernel's log for the device")
        }
        return try outcome.get()
    }

    // MARK: - Threads

    /// What the threads share with the sink, which they do not keep alive. The buffers and the file outlive them: the sink
    /// waits for them at its end.
    private struct Worker: @unchecked Sendable {
        let file: DirectFile
        let buffers: [AlignedBuffer]
        let queue: Monitor<Queue>
        /// Nil if anything may be anywhere.
        let written: WrittenUnits?

        func run() {
            while true {
                let next: Job?? = queue.wait(atMost: .seconds(3600)) { queue in
                    if let job = queue.takeNext() { return .some(job) }
                    return queue.isOver ? .some(nil) : nil
                }
                guard let next else { continue }
                guard let job = next else { return }
                let failure = queue.read { $0.failure } ?? perform(job)
                if let failure { queue.update { $0.failure = $0.failure ?? failure } }
                // Before the range is free: whoever waits for that finds that it was said.
                job.done?(failure)
                queue.update { $0.finish(job) }
            }
        }

        private func perform(_ job: Job) -> TurntableError? {
            do throws(TurntableError) {
                guard let index = job.buffer else {
                    try zero(job.range)
                    return nil
                }
                try write(job, from: buffers[index])
                return nil
            } catch {
                return error
            }
        }

        /// What is zero for less than ``zeroUnitBytes`` is written with what is beside it.
        private func write(_ job: Job, from buffer: AlignedBuffer) throws(TurntableError) {
            var run: Range<Int>?
            for part in job.parts where !part.range.isEmpty {
                let local = part.range.lowerBound - job.range.lowerBound..<part.range.upperBound - job.range.lowerBound
                if part.isZero {
                    if part.range.count >= zeroUnitBytes {
                        try writeRun(&run, job, buffer)
                        try zero(part.range)
                        continue
                    }
                    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[local]).initializeMemory(as: UInt8.self, repeating: 0)
                }
                if let before = run, before.upperBound == local.lowerBound {
                    run = before.lowerBound..<local.upperBound
                } else {
                    try writeRun(&run, job, buffer)
                    run = local
                }
            }
            try writeRun(&run, job, buffer)
        }

        private func writeRun(_ run: inout Range<Int>?, _ job: Job, _ buffer: AlignedBuffer) throws(TurntableError) {
            guard let local = run else { return }
            run = nil
            try unsafe writeData(UnsafeRawBufferPointer(rebasing: buffer.bytes[local]), at: job.range.lowerBound + local.lowerBound)
        }

        /// In runs of units that are zero or not.
        private func writeData(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(TurntableError) {
            var start = 0
            while start < bytes.count {
                let isEmpty = unsafe isUnitZero(bytes, start)
                var end = min(start + zeroUnitBytes, bytes.count)
                while end < bytes.count, unsafe isUnitZero(bytes, end) == isEmpty { end = min(end + zeroUnitBytes, bytes.count) }
                if isEmpty {
                    try zero(offset + start..<offset + end)
                } else {
                    written?.insert(offset + start..<offset + end)
                    try unsafe file.write(at: offset + start, UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
                }
                start = end
            }
        }

        private func zero(_ range: Range<Int>) throws(TurntableError) {
            guard let written else { return try file.zero(range) }
            for run in written.runs(in: range) { try file.zero(run) }
        }

        private func isUnitZero(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Bool {
            let count = min(zeroUnitBytes, bytes.count - start)
            // The test takes whole cache lines; the odd end of an odd disk is written.
            return unsafe count % 64 == 0 && isZero(bytes.baseAddress! + start, bytes: count)
        }
    }
}

/// The unit in which zeroes are looked for: smaller ones cost more calls than they save writes.
private let zeroUnitBytes = 64 << 10

/// Where a target that was all zero has been written: nothing else has to be made zero.
private final class WrittenUnits: Sendable {
    private let units: Monitor<PageBitmap>

    init(of size: ByteCount) { units = Monitor(PageBitmap(pages: PageCount((size.value + zeroUnitBytes - 1) / zeroUnitBytes))) }

    func insert(_ range: Range<Int>) {
        units.update { $0.insert(range.lowerBound / zeroUnitBytes..<(range.upperBound + zeroUnitBytes - 1) / zeroUnitBytes) }
    }

    /// The parts of `range` that may be other than zero.
    func runs(in range: Range<Int>) -> [Range<Int>] {
        guard !range.isEmpty else { return [] }
        let concerned = range.lowerBound / zeroUnitBytes..<(range.upperBound + zeroUnitBytes - 1) / zeroUnitBytes
        return units.read { $0.runs(in: concerned) }.map {
            max(range.lowerBound, $0.lowerBound * zeroUnitBytes)..<min(range.upperBound, $0.upperBound * zeroUnitBytes)
        }
    }
}

extension VolumeSink.Queue {
    fileprivate mutating func takeNext() -> VolumeSink.Job? { waiting.isEmpty ? nil : waiting.removeFirst() }

    fileprivate mutating func finish(_ job: VolumeSink.Job) {
        if let index = ranges.firstIndex(of: job.range) { ranges.remove(at: index) }
        if let buffer = job.buffer { freeBuffers.append(buffer) }
    }
}

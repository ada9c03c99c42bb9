public import TurntableCore
internal import TurntableLinux

/// One pass of a copy, after it.
public struct PassReport: Sendable, Codable, Hashable {
    public var pass: Int
    /// Of the chunks that were copied: all that might have changed.
    public var bytes: Int
    public var chunks: Int
    public var milliseconds: Double
    /// Finding out what changed, the snapshot that was made for it included.
    public var deltaMilliseconds: Double
    /// The writer stood still meanwhile.
    public var isLast: Bool
    /// Set when the whole disk was copied because what had changed was lost.
    public var lossReason: String?
}

/// Copies a disk that is in use, pass by pass, until the rest is small enough to stop its writer for; then exactly.
public struct Replication {
    public var source: any BlockSource
    public var sink: any BlockSink
    /// Said after each pass, and of a loss before the pass that makes up for it.
    public var report: (PassReport) -> Void
    /// Asked often; true ends the copy with an error.
    public var isCancelled: () -> Bool

    /// Everything between two points that are made durable.
    private static let flushBytes = 256 << 20

    public init(
        from source: any BlockSource, to sink: any BlockSink, report: @escaping (PassReport) -> Void,
        isCancelled: @escaping () -> Bool = { false }
    ) {
        self.source = source
        self.sink = sink
        self.report = report
        self.isCancelled = isCancelled
    }

    /// - Parameters:
    ///   - fits: whether so many bytes may be left when the writer stops; told also in which pass.
    ///   - stopWriter: returns when nobody writes the disk any more.
    public func run(fits: (ByteCount, Int) -> Bool, stopWriter: () throws(TurntableError) -> Void) throws(TurntableError) {
        do throws(TurntableError) {
            try passes(fits: fits, stopWriter: stopWriter)
        } catch {
            // The first error is the one to tell.
            try? source.end()
            throw error
        }
        try source.end()
    }

    private func passes(fits: (ByteCount, Int) -> Bool, stopWriter: () throws(TurntableError) -> Void) throws(TurntableError) {
        var losses = 0
        var began = Clock.now
        var changes = BlockChanges(try source.begin())
        for pass in 1... {
            let isSmall = changes.lossReason == nil && pass > 1 && fits(changes.chunks.bytes, pass)
            let isDone = try copy(changes, pass: pass, foundIn: Clock.now - began, isLast: false)
            if isSmall && isDone {
                try stopWriter()
                began = Clock.now
                let last = try source.lastDelta()
                guard try copy(last, pass: pass + 1, foundIn: Clock.now - began, isLast: true) else {
                    throw TurntableError(.unsupported, "copying the last changes", source.lossReason() ?? "they cannot be read")
                }
                return
            }
            guard pass < Limits.diskPasses else {
                throw TurntableError(
                    .refused, "copying a disk that is in use", "after \(pass) passes \(changes.chunks.bytes) still change during one",
                    remedy: "allow more to be left, or let its writer write less")
            }
            began = Clock.now
            changes = try source.nextDelta()
            try source.settle()
            if changes.lossReason != nil { losses += 1 }
            guard losses <= Limits.lostDeltas else {
                throw TurntableError(
                    .refused, "copying a disk that is in use", "\(losses) times \(changes.lossReason ?? "its changes were lost")",
                    remedy: "give its volume group more free space")
            }
        }
    }

    /// False if the frozen content was lost on the way.
    private func copy(_ changes: BlockChanges, pass: Int, foundIn delta: Nanoseconds, isLast: Bool) throws(TurntableError) -> Bool {
        let began = Clock.now
        var isWhole = true
        do throws(TurntableError) {
            try copyChunks(changes.chunks, pass: pass, isWhole: pass == 1 || changes.lossReason != nil)
        } catch {
            guard error.kind != .cancelled, source.lossReason() != nil else { throw error }
            isWhole = false
        }
        try sink.flush(BlockProgress(pass: pass + 1, position: 0, isComplete: isLast && isWhole))
        report(
            PassReport(
                pass: pass, bytes: changes.chunks.bytes.value, chunks: changes.chunks.count, milliseconds: (Clock.now - began).milliseconds,
                deltaMilliseconds: delta.milliseconds, isLast: isLast, lossReason: changes.lossReason))
        return isWhole
    }

    /// - Parameter isWhole: they are all that may be other than zero: what lies between them becomes zero, whatever the sink had.
    private func copyChunks(_ chunks: ChunkSet, pass: Int, isWhole: Bool) throws(TurntableError) {
        var position = 0
        var flushed = 0
        while position < source.size.value {
            if isCancelled() { throw TurntableError(.cancelled, "copying a disk", "it was stopped in pass \(pass)") }
            let extent = chunks.nextExtent(from: position, atMost: Limits.blockExtentBytes)
            let gap = position..<(extent?.lowerBound ?? source.size.value)
            if isWhole && !gap.isEmpty {
                position = min(gap.upperBound, position + Limits.blockZeroBytes)
                try sink.zero(gap.lowerBound..<position)
            } else if let extent {
                try copyExtent(extent)
                position = extent.upperBound
            } else {
                return
            }
            if position - flushed >= Self.flushBytes {
                try sink.flush(BlockProgress(pass: pass, position: position))
                flushed = position
            }
        }
    }

    private func copyExtent(_ extent: Range<Int>) throws(TurntableError) {
        let buffer = try sink.claim(extent)
        do throws(TurntableError) {
            try unsafe source.read(extent, into: UnsafeMutableRawBufferPointer(start: buffer.address, count: extent.count))
        } catch {
            sink.abandon(buffer)
            throw error
        }
        // What fails is told by the next call.
        sink.submit(buffer, [BlockPart(extent, isZero: false)]) { _ in }
    }
}

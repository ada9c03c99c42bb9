// The contract between what holds a disk and what moves it. A source freezes the content of a disk that is in use again and
// again, and says each time what may have changed since the time before; a pass copies just that. When little is left the
// writer is stopped, and the last pass makes the copy exact:
//
//     begin()  pass  nextDelta()  pass  …  writer stops  lastDelta()  pass  end()
//
// Between begin() and end() one thread at a time calls a source. A sink may be another's.

/// What may differ between two frozen contents of a disk.
public struct BlockChanges {
    public var chunks: ChunkSet
    /// Set when what changed could not be told, and why: then all chunks that may hold something are in the set.
    public var lossReason: String?

    public init(_ chunks: ChunkSet, lossReason: String? = nil) {
        self.chunks = chunks
        self.lossReason = lossReason
    }
}

/// A disk that is read while it is in use.
public protocol BlockSource: AnyObject {
    var size: ByteCount { get }
    /// The unit in which changes are told.
    var chunkBytes: Int { get }

    /// Freezes the content. All that may be other than zero in it.
    func begin() throws(TurntableError) -> ChunkSet
    /// Freezes the content as it is now, and tells what may have changed since it was frozen before. At least everything
    /// whose writing was complete then is in the new content.
    func nextDelta() throws(TurntableError) -> BlockChanges
    /// Nobody writes any more: what may have changed since the content was frozen last. ``read(_:into:)`` is of the disk
    /// itself from now on. Takes milliseconds, for the machine may be paused meanwhile.
    func lastDelta() throws(TurntableError) -> BlockChanges
    /// Reads bytes of the frozen content. `buffer` is aligned to ``blockAlignment``, and has the range's length.
    func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError)
    /// Why the frozen content can be read no more, if that is so; ``nextDelta()`` then begins anew.
    func lossReason() -> String?
    /// Removes everything that was made.
    func end() throws(TurntableError)
}

/// A disk that is written as another is read.
public protocol BlockSink: AnyObject {
    var size: ByteCount { get }

    /// Takes bytes: `fill` puts them into a buffer of the sink's, aligned to ``blockAlignment`` and of the range's length, which
    /// is at most ``Limits/blockExtentBytes``. Written later; in order with other writes to the same place. Zeroes are not
    /// written where the sink can be told to forget what it had.
    func write(_ range: Range<Int>, fill: (UnsafeMutableRawBufferPointer) throws(TurntableError) -> Void) throws(TurntableError)
    /// Makes bytes zero, in order as ``write(_:fill:)``.
    func zero(_ range: Range<Int>) throws(TurntableError)
    /// Returns when everything is written and would survive a crash of the host, and only then notes how far that is.
    func flush(_ progress: BlockProgress) throws(TurntableError)
}

/// How far a copy has come: everything of the passes before, and what precedes `position` in this one.
public struct BlockProgress: Hashable, Sendable {
    public var pass: Int
    public var position: Int
    public var isComplete: Bool

    public init(pass: Int, position: Int, isComplete: Bool = false) {
        self.pass = pass
        self.position = position
        self.isComplete = isComplete
    }
}

/// What direct I/O wants offsets, lengths and addresses to be multiples of; no device here has larger sectors.
public let blockAlignment = 4096

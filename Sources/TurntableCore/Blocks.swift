// The contract between what holds a disk and what moves it. A source freezes the content of a disk that is in use again and
// again, and says each time what may have changed since the time before; a pass sends just that. When little is left the
// writer is stopped, and the last pass makes the copy exact:
//
//     begin()  pass  nextDelta()  pass  …  writer stops  lastDelta()  pass  end()
//
// A writer that is let go on after lastDelta() is followed by another nextDelta() or lastDelta(), which tell again what that
// one told. begin(), takeUp(), settle(), nextDelta(), lastDelta(), changedBytes() and end() are one thread's, and nothing is read while
// one of them runs but changedBytes(); read() is anybody's, also several threads' at once. A sink is written by several threads, each
// of which owns other parts of the disk.

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
public protocol BlockSource: AnyObject, Sendable {
    /// What the machine calls the disk; the same at both ends.
    var name: String { get }
    /// A multiple of 512.
    var size: ByteCount { get }
    /// The unit in which changes are told.
    var chunkBytes: Int { get }

    /// Freezes the content. All that may be other than zero in it.
    func begin() throws(TurntableError) -> ChunkSet
    /// An earlier process began, and froze the content; what it had noted of what it was told is not forgotten. Goes on from there.
    /// False if that cannot be: then the disk begins anew.
    func takeUp() throws(TurntableError) -> Bool
    /// What was told so far is noted where ``takeUp()``'s caller will find it: what was kept to tell it again may go. Not to call it
    /// is never wrong, but costs the writer. One thread's, as the others.
    func settle() throws(TurntableError)
    /// Freezes the content as it is now, and tells what may have changed since it was frozen before. At least everything
    /// whose writing was complete then is in the new content.
    func nextDelta() throws(TurntableError) -> BlockChanges
    /// Nobody writes any more: what may have changed since the content was frozen last. ``read(_:into:)`` is of the disk
    /// itself from now on. Takes milliseconds, for the machine may be paused meanwhile.
    func lastDelta() throws(TurntableError) -> BlockChanges
    /// About how many bytes the next delta will be, as far as that can be told at once.
    func changedBytes() throws(TurntableError) -> ByteCount
    /// How long ``lastDelta()`` will take.
    var lastDeltaTime: Nanoseconds { get }
    /// Reads bytes of the frozen content, or newer ones that the next delta will tell of. `buffer` is aligned to ``blockAlignment``,
    /// and has the range's length.
    func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError)
    /// Why the frozen content can be read no more, if that is so; ``nextDelta()`` then begins anew.
    func lossReason() -> String?
    /// Removes everything that was made. Again, it does no harm.
    func end() throws(TurntableError)
}

extension BlockSource {
    public func settle() throws(TurntableError) {}
}

extension BlockSink {
    public var isUnfinishedCopy: Bool { false }
}

/// A disk that is written as another is read.
public protocol BlockSink: AnyObject, Sendable {
    var name: String { get }
    var size: ByteCount { get }
    /// Whether everything that was not written yet is known to be zero.
    var isZeroed: Bool { get }
    /// Whether it holds what came of the same disk before, as far as that had come: it is worth being compared.
    var isUnfinishedCopy: Bool { get }

    /// A buffer of the sink's for bytes of `range`, at most ``Limits/blockExtentBytes``. Waits until there is one, and until what was
    /// submitted for the same bytes before is written. Every claimed buffer is submitted or abandoned.
    func claim(_ range: Range<Int>) throws(TurntableError) -> BlockBuffer
    /// Writes parts of the claimed range, or makes them zero, on a thread of the sink's, which then says so. Zeroes are not written where
    /// the sink can be told to forget what it had. What failed once makes every later call throw.
    func submit(_ buffer: BlockBuffer, _ parts: [BlockPart], done: @escaping @Sendable (TurntableError?) -> Void)
    func abandon(_ buffer: BlockBuffer)
    /// Makes bytes of any length zero, in order with what is submitted for the same place.
    func zero(_ range: Range<Int>) throws(TurntableError)
    /// Reads what it holds, as ``BlockSource/read(_:into:)``; not of what is being written.
    func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError)
    /// Returns when everything submitted is written and would survive a crash of the host, and only then notes how far that is.
    func flush(_ progress: BlockProgress) throws(TurntableError)
}

/// Memory of a sink that waits for bytes: those of `range`, from `address` on, aligned to ``blockAlignment``.
@safe public struct BlockBuffer: @unchecked Sendable {
    public let index: Int
    public let range: Range<Int>
    public let address: UnsafeMutableRawPointer

    public init(index: Int, range: Range<Int>, address: UnsafeMutableRawPointer) {
        self.index = index
        self.range = range
        unsafe self.address = address
    }
}

/// Bytes of a disk within a ``BlockBuffer``'s range.
public struct BlockPart: Hashable, Sendable {
    public var range: Range<Int>
    /// They are to be zero, whatever the buffer holds.
    public var isZero: Bool

    public init(_ range: Range<Int>, isZero: Bool) {
        self.range = range
        self.isZero = isZero
    }
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

import CTurntableLinux
import Glibc
import Synchronization

/// The frames on the line and in the queue before it, in order, between the reader and the writer of one direction.
///
/// One producer, one consumer. The memory is mapped twice in a row, so a record is always contiguous and the reader reads
/// from the device straight into its place. Positions count bytes since the start and never wrap. The class is safe because the
/// memory is its own, lives as long as it, and every place in it is computed modulo the capacity.
@safe
final class DelayRing: @unchecked Sendable {
    /// In front of every frame: due time 8, frame bytes 4, epoch 4.
    struct Record {
        var dueNanoseconds: UInt64
        var frameBytes: UInt32
        var epoch: UInt32
    }

    static let recordHeaderBytes = 16
    private static let alignmentBytes: UInt64 = 8
    private static let pageBytes: UInt64 = 4096
    static let maximumFrameBytes = UInt64(TT_TUN_FRAME_HEADER_BYTES) + LineLimits.maximumPacketBytes
    private static let maximumRecordBytes = recordBytes(frameBytes: maximumFrameBytes)

    let capacityBytes: UInt64
    private let memory: UnsafeMutableRawPointer
    /// End of the last committed record; only the reader stores.
    private let head = Atomic<UInt64>(0)
    /// Start of the first record not yet released; only the writer stores.
    private let tail = Atomic<UInt64>(0)
    private let isWriterAsleep = Atomic<Bool>(false)
    private let wake: OwnedDescriptor

    /// What the line holds at its fullest: the frames in flight for the delay, those a late writer has not yet released, the
    /// queue in front, and the two records being written and read. A record is never larger than its frame's time on the
    /// line (16 + 10 + at most 7 bytes against 38), so bytes on the line bound bytes in the ring.
    static func capacityBytes(rate: BitRate, delay: LineDelay, queue: ByteSize) -> UInt64 {
        let holdNanoseconds = delay.nanoseconds + LineLimits.schedulingReserveNanoseconds
        let bytes = rate.bytes(inNanoseconds: holdNanoseconds) + queue.bytes + 2 * maximumRecordBytes
        return (bytes + pageBytes - 1) / pageBytes * pageBytes
    }

    init(capacityBytes: UInt64) throws(LineError) {
        precondition(MemoryLayout<Record>.size == Self.recordHeaderBytes)
        precondition(
            UInt64(Self.recordHeaderBytes) + UInt64(TT_TUN_FRAME_HEADER_BYTES) + Self.alignmentBytes - 1 <= LineLimits.overheadBytesPerFrame
        )
        let size = ByteSize(bytes: capacityBytes)
        guard capacityBytes <= LineLimits.maximumRingBytes else {
            let limit = ByteSize(bytes: LineLimits.maximumRingBytes)
            throw .refused("a ring of \(size) a direction is more than \(limit); lower --max-rate, --max-delay or --queue")
        }
        var address: UnsafeMutableRawPointer?
        let mapped = unsafe tt_line_map_ring(Int(capacityBytes), &address)
        try check(mapped, "cannot map a ring of \(size)", remedy: "free memory, or lower --max-rate, --max-delay or --queue")
        // Set whenever the shim returned 0.
        unsafe memory = address!
        self.capacityBytes = capacityBytes
        wake = OwnedDescriptor(try check(tt_line_event(), "cannot make an eventfd for the ring"))
    }

    deinit { unsafe _ = munmap(memory, 2 * Int(capacityBytes)) }

    // MARK: Reader

    /// Where the next frame may be written, `maximumFrameBytes` long; nil while the ring is full.
    func reserve() -> UnsafeMutableRawPointer? {
        let position = head.load(ordering: .relaxed)
        guard position - tail.load(ordering: .acquiring) + Self.maximumRecordBytes <= capacityBytes else { return nil }
        return unsafe place(position) + Self.recordHeaderBytes
    }

    /// Hands the reserved frame to the writer, and wakes it if it found the ring empty.
    func commit(_ record: Record) {
        let position = head.load(ordering: .relaxed)
        // The reserved place: in the mapping, aligned to 8, and not read before head moves.
        unsafe place(position).storeBytes(of: record, as: Record.self)
        // Sequentially consistent on both sides: either the writer sees the record or we see it asleep.
        head.store(position + Self.recordBytes(frameBytes: UInt64(record.frameBytes)), ordering: .sequentiallyConsistent)
        if isWriterAsleep.load(ordering: .sequentiallyConsistent) {
            var one: UInt64 = 1
            unsafe _ = write(wake.number, &one, 8)
        }
    }

    // MARK: Writer

    /// The oldest record, and its frame.
    func first() -> (record: Record, frame: UnsafeMutableRawPointer)? {
        let position = tail.load(ordering: .relaxed)
        guard position != head.load(ordering: .acquiring) else { return nil }
        let start = unsafe place(position)
        return unsafe (start.load(as: Record.self), start + Self.recordHeaderBytes)
    }

    func release(_ record: Record) {
        tail.store(tail.load(ordering: .relaxed) + Self.recordBytes(frameBytes: UInt64(record.frameBytes)), ordering: .releasing)
    }

    /// Sleeps until a record is there, or a signal arrives.
    func waitForRecord() {
        isWriterAsleep.store(true, ordering: .sequentiallyConsistent)
        if tail.load(ordering: .relaxed) == head.load(ordering: .sequentiallyConsistent) {
            var count: UInt64 = 0
            unsafe _ = read(wake.number, &count, 8)
        }
        isWriterAsleep.store(false, ordering: .relaxed)
    }

    /// The mapping is twice the capacity long and a record at most one capacity: every place may run past the end.
    private func place(_ position: UInt64) -> UnsafeMutableRawPointer { unsafe memory + Int(position % capacityBytes) }

    private static func recordBytes(frameBytes: UInt64) -> UInt64 {
        (UInt64(recordHeaderBytes) + frameBytes + alignmentBytes - 1) / alignmentBytes * alignmentBytes
    }
}

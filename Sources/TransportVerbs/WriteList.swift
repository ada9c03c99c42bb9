internal import CTurntableVerbs
internal import TurntableCore

/// The writes of one frame, by lane: each lane's are posted together. The last one of each has a completion, and, but for
/// lane 0, an immediate; lane 0's last is the head.
@safe struct WriteList {
    /// What a completion says: the lane, how many of its writes are done with it, and the frame's place.
    struct Work {
        var lane: Int
        var writes: Int
        var place: Int
        init(lane: Int, writes: Int, place: Int) { (self.lane, self.writes, self.place) = (lane, writes, place) }
        init(_ value: UInt64) { self.init(lane: Int(value >> 32 & 0xffff), writes: Int(value >> 48), place: Int(value & 0xffff_ffff)) }
        var value: UInt64 { UInt64(writes) << 48 | UInt64(lane) << 32 | UInt64(place) }
    }
    /// A head's immediate.
    static let headBit: UInt32 = 1 << 31

    // Each lane's room follows the one's before.
    private let writes: Storage
    private var counts: [Int]
    private var lanes: [Int] = []
    /// Sixteen blocks of payload, each in runs of at least four pages, and a head; lane 0 alone takes all runs of a frame.
    private static let writesPerLane = Limits.queuedWrites / 2

    @safe private final class Storage: @unchecked Sendable {
        let base: UnsafeMutablePointer<tt_write>
        init(_ count: Int) { unsafe base = .allocate(capacity: count) }
        deinit { unsafe base.deallocate() }
    }

    init(lanes: Int) {
        writes = Storage(lanes * Self.writesPerLane)
        counts = Array(repeating: 0, count: lanes)
        self.lanes.reserveCapacity(lanes)
    }

    var usedLanes: Int { lanes.count }
    var others: Int { lanes.count { $0 != 0 } }

    mutating func begin() {
        for lane in lanes { counts[lane] = 0 }
        lanes.removeAll(keepingCapacity: true)
    }

    mutating func add(_ write: tt_write, lane: Int) {
        if counts[lane] == 0 { lanes.append(lane) }
        precondition(counts[lane] < Self.writesPerLane)
        unsafe writes.base[lane * Self.writesPerLane + counts[lane]] = write
        counts[lane] += 1
    }

    /// Calls `body` with each lane's writes, at most ``tt_writes_at_once`` at a time.
    func forEachLane(
        frame: UInt64, place: Int, _ body: (Int, UnsafePointer<tt_write>, Int) throws(TurntableError) -> Void
    ) throws(TurntableError) {
        let number = UInt32(truncatingIfNeeded: frame) & ~Self.headBit
        for lane in lanes {
            let count = counts[lane]
            let first = unsafe writes.base + lane * Self.writesPerLane
            unsafe first[count - 1].has_immediate = 1
            unsafe first[count - 1].immediate = lane == 0 ? number | Self.headBit : number
            unsafe first[count - 1].is_signaled = 1
            unsafe first[count - 1].work = Work(lane: lane, writes: count, place: place).value
            var done = 0
            while done < count {
                let piece = min(count - done, tt_writes_at_once)
                try unsafe body(lane, UnsafePointer(first + done), piece)
                done += piece
            }
        }
    }
}

import Synchronization

/// A count with one writing thread: a load and a store, no locked instruction.
struct Tally: ~Copyable, Sendable {
    private let cell = Atomic<UInt64>(0)

    var value: UInt64 { cell.load(ordering: .relaxed) }

    func add(_ amount: UInt64) { cell.store(value &+ amount, ordering: .relaxed) }

    func raise(to candidate: UInt64) {
        if candidate > value { cell.store(candidate, ordering: .relaxed) }
    }
}

/// What one direction did. Frames are frames of the line: a super-frame counts as the frames it would be cut into.
final class LinkCounters: Sendable {
    // Written by the reader.
    let sentFrames = Tally()
    let sentBytes = Tally()
    let tailDroppedFrames = Tally()
    let lostFrames = Tally()
    let cutAtEntryFrames = Tally()
    let ringWaits = Tally()
    // Written by the writer.
    let deliveredFrames = Tally()
    let deliveredBytes = Tally()
    let cutOnLineFrames = Tally()
    let refusedFrames = Tally()
    let deliveries = Tally()
    let lateNanoseconds = Tally()
    let latestNanoseconds = Tally()
    let noticeablyLate = Tally()
}

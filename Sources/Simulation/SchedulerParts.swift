// What the scheduler is made of: timers in order, and stacks that are used again.

internal import CTurntableFibers
internal import TurntableCore

/// When to wake whom. The first in time is the first; of those at one time, the one that began to wait first.
struct TimerHeap {
    struct Entry {
        var time: Nanoseconds
        /// The fiber's number, and how often it was woken before: one that was woken since has no timer any more.
        var number: Int
        var wakes: Int
        fileprivate var order = 0

        init(time: Nanoseconds, number: Int, wakes: Int) {
            self.time = time
            self.number = number
            self.wakes = wakes
        }
        fileprivate static func < (a: Entry, b: Entry) -> Bool { a.time != b.time ? a.time < b.time : a.order < b.order }
    }
    private var entries: [Entry] = []
    private var inserted = 0

    var first: Entry? { entries.first }

    mutating func insert(_ entry: Entry) {
        var entry = entry
        inserted += 1
        entry.order = inserted
        entries.append(entry)
        var index = entries.count - 1
        while index > 0, entries[index] < entries[(index - 1) / 2] {
            entries.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    mutating func removeFirst() -> Entry {
        entries.swapAt(0, entries.count - 1)
        let first = entries.removeLast()
        var index = 0
        while true {
            var least = index
            for child in [2 * index + 1, 2 * index + 2] where child < entries.count && entries[child] < entries[least] { least = child }
            if least == index { return first }
            entries.swapAt(index, least)
            index = least
        }
    }
}

/// Stacks for one simulation after the other.
final class StackPool {
    static let bytes = 512 << 10
    private var free: [UnsafeMutableRawPointer] = []

    func take() -> UnsafeMutableRawPointer {
        if let stack = free.popLast() { return stack }
        guard let stack = tt_fiber_stack(Self.bytes) else { preconditionFailure("no memory for a fiber's stack") }
        return stack
    }
    func give(_ stack: UnsafeMutableRawPointer) { free.append(stack) }
    deinit { for stack in free { tt_fiber_free(stack, Self.bytes) } }
}

// Threads as fibers, one at a time, in an order that the seed decides: at every lock, wait, sleep and start another may go
// on. Time is a number that moves when nobody can.
//
// A fiber whose process crashed is never gone on with: what it was about to do does not happen, and what its stack holds is
// not given back, as after a kill.

internal import CTurntableFibers
internal import TurntableCore
internal import TurntableLinux

/// One thread of a simulated process, or of the simulation itself.
final class Fiber {
    let number: Int
    let name: String
    /// Nil for the simulation's own.
    let process: SimulatedProcess?
    /// Where it goes on. A cell of its own, for it is written in the middle of a switch.
    let place = UnsafeMutablePointer<UnsafeMutableRawPointer?>.allocate(capacity: 1)
    fileprivate var stack: UnsafeMutableRawPointer?
    fileprivate var body: (() -> Void)?
    /// Nil for the thread's own stack, on which the simulation was begun.
    fileprivate unowned(unsafe) let scheduler: Scheduler?
    fileprivate let joiners = WaitQueue()
    fileprivate(set) var isOver = false
    /// Changes when it is woken, so that its timer of before means nothing.
    fileprivate var wakes = 0
    fileprivate var isWaiting = false
    fileprivate var isTimedOut = false

    fileprivate init(_ number: Int, _ name: String, _ process: SimulatedProcess?, _ scheduler: Scheduler?, _ body: (() -> Void)?) {
        self.number = number
        self.name = name
        self.process = process
        self.scheduler = scheduler
        self.body = body
        place.initialize(to: nil)
    }
    deinit { place.deallocate() }

    var isDead: Bool { isOver || process?.isDead == true }
}

/// Fibers that wait for the same thing.
final class WaitQueue {
    fileprivate var fibers: [Fiber] = []
}

final class Scheduler: Substitute, @unchecked Sendable {
    private var generator: SeededGenerator
    private(set) var time = Nanoseconds.seconds(1)
    /// How often another could go on.
    private(set) var steps = 0
    private var fibers: [Int: Fiber] = [:]
    private var made = 0
    private var runnable: [Fiber] = []
    private var timers = TimerHeap()
    private let main: Fiber
    private(set) var current: Fiber
    /// Of fibers that are over; one of them may be the stack that is being left.
    private var stacksToFree: [UnsafeMutableRawPointer] = []
    private let stacks: StackPool
    /// Called between two steps. It may crash processes, and must not wait.
    var betweenSteps: () -> Void = {}
    /// Called when the simulation can not go on: nobody can, or it takes too long.
    var stuck: (String) -> Void = { _ in }
    /// What a simulation takes at most, so that one that does not end is found.
    var mostSteps = Scheduler.stepLimit
    var latest = Nanoseconds.seconds(4000)
    static let stepLimit = 2_000_000

    /// How seldom another goes on where it could.
    private let passesOnceIn: UInt64

    init(seed: UInt64, passesOnceIn: UInt64, stacks: StackPool) {
        self.passesOnceIn = passesOnceIn
        generator = SeededGenerator(seed: seed)
        self.stacks = stacks
        main = Fiber(0, "main", nil, nil, nil)
        current = main
    }

    // MARK: - The simulation's own use

    /// Runs `body` as the simulation's first fiber, until somebody calls ``stop()``.
    func run(_ body: @escaping () -> Void) {
        _ = add("operator", nil) { [self] in
            body()
            stop()
        }
        leave()
        current = main
    }

    /// Ends the simulation: no fiber goes on.
    func stop() -> Never {
        let from = current
        current = main
        tt_fiber_switch(from.place, main.place.pointee)
        preconditionFailure("a fiber went on after the end")
    }

    /// Starts a fiber of a process.
    @discardableResult
    func add(_ name: String, _ process: SimulatedProcess?, _ body: @escaping () -> Void) -> Int {
        made += 1
        let fiber = Fiber(made, name, process, self, body)
        let stack = stacks.take()
        fiber.stack = stack
        fiber.place.pointee = tt_fiber_new(
            stack, StackPool.bytes,
            { argument in
                let fiber = Unmanaged<Fiber>.fromOpaque(argument!).takeUnretainedValue()
                fiber.scheduler!.begin(fiber)
            },
            Unmanaged.passUnretained(fiber).toOpaque())
        fibers[made] = fiber
        process?.fibers.append(fiber)
        runnable.append(fiber)
        return made
    }

    /// None of these fibers goes on any more.
    func abandon(_ gone: [Fiber]) {
        for fiber in gone where !fiber.isOver {
            fiber.isOver = true
            fibers[fiber.number] = nil
            release(fiber)
            wake(fiber.joiners)
        }
    }

    /// Ends a fiber that was abandoned while it ran.
    func leaveIfAbandoned() {
        guard current.isDead else { return }
        leave()
        preconditionFailure("an abandoned fiber went on")
    }

    /// After ``run(_:)``: gives back what the fibers that did not end had.
    func clear() {
        for number in fibers.keys.sorted() {
            guard let fiber = fibers[number], let stack = fiber.stack else { continue }
            fiber.stack = nil
            stacks.give(stack)
        }
        (fibers, runnable, timers) = ([:], [], TimerHeap())
        (betweenSteps, stuck) = ({}, { _ in })
        freeStacks()
    }

    private func release(_ fiber: Fiber) {
        guard let stack = fiber.stack else { return }
        fiber.stack = nil
        if fiber === current { stacksToFree.append(stack) } else { stacks.give(stack) }
    }

    /// Waits until the queue is woken, at most until `deadline`. True if that came first.
    func wait(_ queue: WaitQueue, until deadline: Nanoseconds) -> Bool {
        let fiber = current
        fiber.isWaiting = true
        fiber.isTimedOut = false
        fiber.wakes += 1
        queue.fibers.append(fiber)
        if deadline != .forever { timers.insert(TimerHeap.Entry(time: deadline, number: fiber.number, wakes: fiber.wakes)) }
        leave()
        if fiber.isTimedOut { queue.fibers.removeAll { $0 === fiber } }
        return fiber.isTimedOut
    }

    func wake(_ queue: WaitQueue) {
        guard !queue.fibers.isEmpty else { return }
        for fiber in queue.fibers { resume(fiber, isTimedOut: false) }
        queue.fibers.removeAll(keepingCapacity: true)
    }

    private func resume(_ fiber: Fiber, isTimedOut: Bool) {
        guard fiber.isWaiting, !fiber.isDead else { return }
        fiber.isWaiting = false
        fiber.isTimedOut = isTimedOut
        fiber.wakes += 1
        runnable.append(fiber)
    }

    /// A point at which another may go on; more often than not none does.
    func pass() {
        guard generator.once(in: passesOnceIn) else { return }
        yield()
    }

    func yield() {
        runnable.append(current)
        leave()
    }

    // MARK: - Substitute

    var now: Nanoseconds {
        time += Nanoseconds(200)
        return time
    }
    func sleep(_ span: Nanoseconds) { _ = wait(WaitQueue(), until: time + span) }
    func random() -> UInt64 { generator.next() }
    func makeGate() -> any SubstituteGate { Gate(self) }
    func start(_ name: String, _ body: @escaping @Sendable () -> Void) -> Int {
        let number = add(name, current.process, body)
        pass()
        return number
    }
    func join(_ thread: Int) {
        while let fiber = fibers[thread] { _ = wait(fiber.joiners, until: .forever) }
        pass()
    }

    // MARK: - Switching

    /// Goes on with another fiber, or with the same one.
    private func leave() {
        let from = current
        betweenSteps()
        guard let next = choose() else { return }
        if next === from { return }
        current = next
        tt_fiber_switch(from.place, next.place.pointee)
        freeStacks()
    }

    private func freeStacks() {
        while let stack = stacksToFree.popLast() { stacks.give(stack) }
    }

    /// The fiber that goes on. Nil at the simulation's end, which the main fiber sees.
    private func choose() -> Fiber? {
        while true {
            steps += 1
            if steps > mostSteps { stuck("it did not end within \(mostSteps) steps") }
            if time > latest { stuck("it did not end within \(latest)") }
            while let entry = timers.first, entry.time <= time { fire() }
            if !runnable.isEmpty {
                let index = Int(generator.next() % UInt64(runnable.count))
                runnable.swapAt(index, runnable.count - 1)
                let fiber = runnable.removeLast()
                if fiber.isDead { continue }
                time += Nanoseconds(Int64(1000 + generator.next() % 8000))
                return fiber
            }
            guard let entry = timers.first else { stuck("nothing can go on"); return nil }
            time = max(time, entry.time) + Nanoseconds(Int64(generator.next() % 30_000))
            // Much can happen in a long time that nobody needs.
            betweenSteps()
        }
    }

    private func fire() {
        let entry = timers.removeFirst()
        guard let fiber = fibers[entry.number], fiber.wakes == entry.wakes else { return }
        resume(fiber, isTimedOut: true)
    }

    fileprivate func begin(_ fiber: Fiber) -> Never {
        freeStacks()
        if let body = fiber.body {
            fiber.body = nil
            body()
        }
        fiber.isOver = true
        fibers[fiber.number] = nil
        wake(fiber.joiners)
        release(fiber)
        leave()
        preconditionFailure("a fiber went on after its end")
    }
}

/// A lock and its condition, among fibers.
private final class Gate: SubstituteGate {
    private let scheduler: Scheduler
    private var owner: Fiber?
    private let locking = WaitQueue(), waiting = WaitQueue()

    init(_ scheduler: Scheduler) { self.scheduler = scheduler }

    func lock() {
        scheduler.pass()
        take()
    }
    private func take() {
        while let owner, !owner.isDead { _ = scheduler.wait(locking, until: .forever) }
        owner = scheduler.current
    }
    func unlock() {
        owner = nil
        scheduler.wake(locking)
    }
    func wakeAll() { scheduler.wake(waiting) }
    func wait(until deadline: Nanoseconds) -> Bool {
        unlock()
        let isTimedOut = scheduler.wait(waiting, until: deadline)
        take()
        return isTimedOut
    }
}

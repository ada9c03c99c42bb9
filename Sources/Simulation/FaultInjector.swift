internal import TurntableCore

/// Lets the plan's faults happen, one after the other.
final class FaultInjector {
    private unowned let world: World
    private var next = 0
    private var points = 0
    private var hasPaused = false
    private var firstStep = 0
    private var since: Nanoseconds
    private var failing: Set<Fault> = []
    /// The host from which the machine is being moved.
    var source: SimulatedHost
    var sender: SimulatedProcess?

    init(_ world: World) {
        self.world = world
        source = world.hosts[0]
        since = world.scheduler.time
    }

    private var due: (Fault, Trigger)? { next < world.plan.faults.count ? world.plan.faults[next] : nil }

    /// No more of them.
    func end() { next = world.plan.faults.count }

    func at(_ point: Point) {
        if point == .paused { hasPaused = true }
        guard let due else { return }
        switch due.1 {
        case .points(let count):
            if points == count { return strike(due.0) }
            points += 1
        case .pointsOfHandOff(let count) where hasPaused:
            if points == count { return strike(due.0) }
            points += 1
        default: break
        }
    }

    /// Between two steps.
    func step() {
        guard let due else { return }
        switch due.1 {
        case .steps(let count) where world.scheduler.steps - firstStep >= count: strike(due.0)
        case .time(let time) where world.scheduler.time - since >= time: strike(due.0)
        default: break
        }
    }

    func takeFailure(_ fault: Fault) -> Bool { failing.remove(fault) != nil }

    private func strike(_ fault: Fault) {
        next += 1
        (points, firstStep, since) = (0, world.scheduler.steps, world.scheduler.time)
        world.tally.faults[fault.rawValue, default: 0] += 1
        world.note("FAULT \(fault.rawValue)")
        let target = world.other(than: source)
        switch fault {
        case .killSource: sender.map(world.kill)
        case .killSourceLate: sender.map(world.killLeavingLateWords)
        case .killTarget: target.receiver.map(world.kill)
        case .killCurrent: world.scheduler.current.process.map(world.kill)
        case .crashSourceHost: world.crash(source)
        case .crashTargetHost: world.crash(target)
        case .killSourceMachine: source.machine?.die("by itself")
        case .killTargetMachine: target.machine?.die("by itself")
        case .silence: world.line.silence(for: .milliseconds(Double(world.chance.pick(10..<1500))))
        case .longSilence: world.line.silence(for: .milliseconds(Double(world.chance.pick(1500..<20_000))))
        case .reset: world.line.reset(isHalf: false)
        case .halfReset: world.line.reset(isHalf: true)
        case .stall: world.line.stall(for: .milliseconds(Double(world.chance.pick(10..<5000))))
        case .repeatWords: world.line.repeatWords(from: source, to: target)
        case .fillSourceDisk: source.disk.fill(for: .milliseconds(Double(world.chance.pick(10..<5000))))
        case .fillTargetDisk: target.disk.fill(for: .milliseconds(Double(world.chance.pick(10..<5000))))
        // On a thread of the process, as a signal's is: it may wait.
        case .cancel:
            if let sender, !sender.isDead, let interrupt = sender.interrupt { world.scheduler.add("signal", sender, interrupt) }
        case .interruptReceiver:
            if let receiver = target.receiver, let interrupt = receiver.interrupt { world.scheduler.add("signal", receiver, interrupt) }
        case .failPrepare, .failPause, .failSave, .failLoad, .failWrite: failing.insert(fault)
        }
    }
}

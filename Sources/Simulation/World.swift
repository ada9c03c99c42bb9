// Two hosts, a line, a machine that is moved, and what must hold after every step.

internal import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A process of the product: it can be killed between any two of its steps.
final class SimulatedProcess {
    let name: String
    unowned let host: SimulatedHost
    var fibers: [Fiber] = []
    var endpoints: [Endpoint] = []
    /// Written to a journal by a process that buffers, which none should.
    var unwritten: [UInt8] = []
    fileprivate(set) var isDead = false
    /// What it does when it is interrupted, on a thread of its own.
    var interrupt: (() -> Void)?
    let ended = WaitQueue()

    init(_ name: String, _ host: SimulatedHost) { (self.name, self.host) = (name, host) }
}

final class SimulatedHost {
    let index: Int
    unowned let world: World
    let identity: HostID
    fileprivate(set) var boot: BootID
    fileprivate(set) var isUp = true
    /// The one machine that is kept here, by its directory.
    var machine: Machine?
    var listener: SimulatedListener?
    var receiver: SimulatedProcess?
    /// Living ones.
    fileprivate var processes: [SimulatedProcess] = []
    /// Called once the host is up again.
    var whenUp: [() -> Void] = []
    private(set) lazy var disk = Disk(self)
    /// The machine's disk here.
    private(set) lazy var volume = Volume(self)
    var name: String { index == 0 ? "A" : "B" }

    init(_ index: Int, _ world: World) {
        self.index = index
        self.world = world
        identity = HostID(high: 0xb057, low: UInt64(index + 1))
        boot = BootID(high: 0xb007, low: UInt64(index + 1))
    }

    func journals(_ process: SimulatedProcess) -> Journals {
        let (disk, boot) = (disk, boot)
        let store = DiskStore(disk, process)
        return Journals(host: identity) { (name) throws(TurntableError) in try Journal(of: name, store: store, boot: boot) { 0 } }
    }

    /// What its journal says, as it stands. Nil while it cannot be read.
    var history: HandOffHistory? {
        guard let contents = try? JournalContents(disk.cached, digest: Digest.of) else { return nil }
        return HandOffHistory(contents.records, boot: boot)
    }
}

final class World: @unchecked Sendable {
    static let machineName = "m"
    let seed: UInt64
    let plan: Plan
    let scheduler: Scheduler
    var chance: SeededGenerator
    private(set) var hosts: [SimulatedHost] = []
    private(set) lazy var line = Line(self)
    private(set) lazy var guest = Guest(self)
    private(set) lazy var answers = Answers(self)
    private(set) lazy var faults = FaultInjector(self)
    var tally = Tally()
    /// What broke a promise, if anything did.
    private(set) var failure: String?
    private let trace: ((String) -> Void)?
    /// All that there ever were.
    private var processes: [SimulatedProcess] = []
    private var machinesMade: [Machine] = []
    let memories: MemoryPool
    /// A number that two runs of one seed share if they went the same way.
    private(set) var fingerprint: UInt64 = 0

    init(seed: UInt64, mutation: Mutation?, pools: Pools, trace: ((String) -> Void)?) {
        self.seed = seed
        self.trace = trace
        plan = Plan(seed: seed, mutation: mutation)
        chance = SeededGenerator(seed: seed ^ 0xc4a5)
        scheduler = Scheduler(seed: seed, passesOnceIn: plan.passesOnceIn, stacks: pools.stacks)
        memories = pools.memories
        hosts = [SimulatedHost(0, self), SimulatedHost(1, self)]
        scheduler.betweenSteps = { [unowned self] in
            guest.step()
            faults.step()
        }
        scheduler.stuck = { [unowned self] in fail("endless wait: \($0)") }
    }

    func note(_ text: @autoclosure () -> String) {
        if let trace { trace("\(scheduler.time.milliseconds) ms, step \(scheduler.steps): \(text())") }
    }

    /// A step of an end at which something may happen. Does not return if the process is killed by it.
    func at(_ point: Point, _ host: SimulatedHost) {
        fingerprint = (fingerprint ^ UInt64(scheduler.steps) ^ UInt64(scheduler.time.value)) &* 0x100_0000_01b3
        note("\(host.name) \(scheduler.current.process?.name ?? "") \(scheduler.current.name): \(point)")
        faults.at(point)
        scheduler.leaveIfAbandoned()
        scheduler.pass()
    }

    /// A promise was broken: the simulation ends here.
    func fail(_ text: String) {
        note("FAILED: \(text)")
        if failure == nil { failure = text }
        scheduler.stop()
    }

    // MARK: - Processes and hosts

    /// Starts a process; `body` is its main thread.
    func start(_ name: String, on host: SimulatedHost, _ body: @escaping (SimulatedProcess) -> Void) -> SimulatedProcess {
        let process = SimulatedProcess(name, host)
        host.processes.append(process)
        processes.append(process)
        scheduler.add("main", process) { [self] in
            body(process)
            end(process)
        }
        return process
    }

    /// A process that came to its end; its other threads go with it.
    private func end(_ process: SimulatedProcess) {
        let current = scheduler.current
        process.fibers.removeAll { $0 === current }
        kill(process)
    }

    func kill(_ process: SimulatedProcess) {
        guard !process.isDead else { return }
        process.isDead = true
        process.host.processes.removeAll { $0 === process }
        if process.host.receiver === process { (process.host.receiver, process.host.listener) = (nil, nil) }
        line.end(process)
        scheduler.abandon(process.fibers)
        process.host.machine?.loseUser(process)
        scheduler.wake(process.ended)
    }

    /// Kills a process whose last words are on the line for long: they arrive after what its successor says.
    func killLeavingLateWords(_ process: SimulatedProcess) {
        let arrival = scheduler.time + .milliseconds(Double(chance.pick(50..<6000)))
        for endpoint in process.endpoints {
            endpoint.outgoing.delay(until: arrival)
            endpoint.shutDown()
        }
        process.endpoints = []
        kill(process)
    }

    func crash(_ host: SimulatedHost) {
        guard host.isUp else { return }
        host.isUp = false
        for process in host.processes {
            process.isDead = true
            line.forsake(process)
            scheduler.abandon(process.fibers)
            scheduler.wake(process.ended)
        }
        (host.processes, host.receiver, host.listener) = ([], nil, nil)
        host.machine?.die("with its host")
        host.machine = nil
        host.disk.crash()
        scheduler.add("boot", nil) { [self] in
            scheduler.sleep(.milliseconds(Double(chance.pick(500..<8000))))
            host.isUp = true
            if plan.mutation != .sameBoot { host.boot = BootID(high: host.boot.high + 1, low: host.boot.low) }
            note("\(host.name) is up again")
            for body in host.whenUp { body() }
            host.whenUp = []
        }
    }

    func makeMachine(on host: SimulatedHost, _ stage: Machine.Stage, _ epoch: Epoch) -> Machine {
        let machine = Machine(host, machinesMade.count + 1, stage, epoch)
        machinesMade.append(machine)
        host.machine = machine
        return machine
    }

    /// After the end: gives back what refers to each other, and what stacks that were abandoned still hold.
    func clear() {
        scheduler.clear()
        line.clear()
        for process in processes { (process.fibers, process.endpoints, process.interrupt) = ([], [], nil) }
        for machine in machinesMade { machine.clear() }
        for host in hosts { (host.machine, host.listener, host.receiver, host.processes, host.whenUp) = (nil, nil, nil, [], []) }
        memories.takeBack()
    }

    func other(than host: SimulatedHost) -> SimulatedHost { hosts[1 - host.index] }

    // MARK: - Invariants that need both hosts

    /// Something was written to a journal: at no time do both say that the machine is theirs under one epoch.
    func journalChanged(_: SimulatedHost) {
        tally.checks += 1
        let histories = hosts.compactMap(\.history)
        guard histories.count == 2 else { return }
        for (mine, others) in [(histories[0], histories[1]), (histories[1], histories[0])] {
            guard let last = mine.records.last(where: { $0.role == .source }) else { continue }
            if mine.source(last.epoch) == .reclaimed, others.target(last.epoch) == .owning {
                fail("two owners: epoch \(last.epoch.value) is reclaimed at its source and owned by its target")
            }
            if mine.source(last.epoch) == .committed, others.target(last.epoch) == .refused {
                fail("no owner: epoch \(last.epoch.value) is committed at its source and refused by its target")
            }
        }
    }
}

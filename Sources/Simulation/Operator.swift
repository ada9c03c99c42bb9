// Who moves the machine: starts receivers and senders, again when they were killed, as docs/promise.md says it is done; and
// looks, when all is over, whether every promise was kept.

internal import MigrationEngine
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

final class Operator {
    private let world: World
    private var source: SimulatedHost
    private var target: SimulatedHost
    private var isServing = false
    private var offered: Set<Epoch> = []

    init(_ world: World) {
        self.world = world
        source = world.hosts[0]
        target = world.hosts[1]
    }

    private var plan: Plan { world.plan }
    private var scheduler: Scheduler { world.scheduler }
    /// No host and no machine crashes: then the machine is somewhere in the end.
    private var isMild: Bool {
        let severe: [Fault] = [.crashSourceHost, .crashTargetHost, .killSourceMachine, .killTargetMachine]
        return !plan.faults.contains { severe.contains($0.0) }
    }
    private var fitsBudget: Bool { plan.budget >= .seconds(60) }

    func run() {
        let machine = world.makeMachine(on: source, .stopped, Epoch(1))
        world.guest.begin(machine)
        if plan.isRunning { machine.run(under: machine.epoch) }
        for trip in 0..<plan.trips {
            world.note("moving \(source.name) to \(target.name)")
            world.faults.source = source
            guard move() else { break }
            if trip + 1 < plan.trips { (source, target) = (target, source) }
        }
        world.faults.end()
        judge()
    }

    // MARK: - Moving

    private static let attempts = 14
    /// From this one on nothing more is done to it.
    private static let lastFaultyAttempt = 6

    /// Moves the machine; true if it is at the target.
    private func move() -> Bool {
        isServing = true
        supervise(target)
        defer { isServing = false }
        for attempt in 0..<Self.attempts {
            if attempt == Self.lastFaultyAttempt { world.faults.end() }
            awaitHost(source)
            guard let machine = source.machine, machine.isAlive else { return findWithoutSource() }
            machine.forgetSaving()
            world.tally.sends += 1
            switch send(machine) {
            case .success(let report):
                finished(report)
                return true
            case .failure(let error): if let isMoved = decide(error, machine, attempt) { return isMoved }
            case nil:
                world.note("send was killed")
                world.tally.killed += 1
            }
            scheduler.sleep(.milliseconds(Double(world.chance.pick(0..<2000))))
        }
        if isMild, fitsBudget { world.fail("it did not move in \(Self.attempts) attempts, the last ones without a fault") }
        return false
    }

    private func finished(_ report: MigrationReport) {
        world.tally.completed += 1
        if report.attachments > 1 { world.tally.resumed += 1 }
        if let verification = report.verification, verification.stripesDiffering > 0 {
            world.fail("\(verification.stripesDiffering) stripes differ after the move")
        }
        let right = source.history?.source(Epoch(report.epoch))
        if source.isUp, right != .committed {
            world.fail("send says that it moved, and its journal says \(right.map { "\($0)" } ?? "nothing")")
        }
    }

    /// What a failed attempt means. Nil to try again; else whether the machine is at the target.
    private func decide(_ error: TurntableError, _ machine: Machine, _ attempt: Int) -> Bool? {
        world.note("send: \(error)")
        world.tally.ends[error.kind.rawValue, default: 0] += 1
        if plan.faults.isEmpty, fitsBudget { world.fail("without a fault, \(error)") }
        guard machine.isAlive else { return nil }
        if error.kind == .relinquished {
            if plan.mutation == .reclaimsAfterTimeout { machine.run(under: machine.epoch) }
            return nil
        }
        // Whatever else it is, the machine runs on here, unless it was the target's before.
        let elsewhere = source.history?.elsewhere.map { $0.epoch > machine.epoch } ?? false
        if elsewhere {
            guard resolve() == .committed else { return nil }
            world.note("its remains are removed")
            machine.die("removed by the operator")
            return findWithoutSource()
        }
        if plan.isRunning, machine.isAlive, machine.stage != .running {
            world.fail("the machine stands still at its source after: \(error)")
        }
        return error.kind == .refused && !fitsBudget && attempt > 1 ? false : nil
    }

    /// The source has no machine any more: it is the target's, or crashed.
    private func findWithoutSource() -> Bool {
        // What was all sent comes to run.
        let limit = scheduler.time + plan.targetWindow + .seconds(60)
        while let machine = target.machine, machine.isAlive, machine.isIncoming, scheduler.time < limit { scheduler.sleep(.seconds(1)) }
        return target.machine.map { $0.isAlive && !$0.isIncoming } ?? false
    }

    private func awaitHost(_ host: SimulatedHost) {
        while !host.isUp { scheduler.sleep(.milliseconds(100)) }
    }

    // MARK: - Processes

    /// Nil if it was killed.
    private func send(_ machine: Machine) -> Result<MigrationReport, TurntableError>? {
        var result: Result<MigrationReport, TurntableError>?
        let (world, target) = (world, target)
        let options = options
        let process = world.start("send", on: source) { process in
            do throws(TurntableError) {
                let adapter = try SimulatedSource(process)
                let migration = SourceMigration(
                    machine: adapter, transport: SimulatedSourceTransport(process, to: target), journals: process.host.journals(process),
                    options: options
                ) { world.note("send: \($0)") }
                process.interrupt = { _ = migration.cancel() }
                result = .success(try migration.run())
            } catch {
                result = .failure(error)
            }
        }
        world.faults.sender = process
        if world.chance.once(in: 3) { resolveLater() }
        wait(process, within: .seconds(400), "send")
        world.faults.sender = nil
        if let epoch = source.history?.records.last(where: { $0.role == .source })?.epoch { offered.insert(epoch) }
        return result
    }

    private var options: MigrationOptions {
        var options = MigrationOptions()
        options.streams = plan.streams
        options.budget = plan.budget
        options.resumeWindow = plan.resumeWindow
        options.verification = plan.verification
        options.waits = waits
        return options
    }
    private var waits: MigrationWaits {
        var waits = MigrationWaits()
        (waits.prepare, waits.stall, waits.commit) = (plan.prepare, plan.stall, plan.commit)
        return waits
    }

    private func wait(_ process: SimulatedProcess, within limit: Nanoseconds, _ what: String) {
        let deadline = scheduler.time + limit
        while !process.isDead {
            if scheduler.wait(process.ended, until: deadline) {
                let threads = process.fibers.filter { !$0.isDead }.map(\.name).joined(separator: ", ")
                world.fail("endless wait: \(what) did not end within \(limit); its threads: \(threads)")
            }
        }
    }

    /// Keeps a receiver on the host, as a service manager would.
    private func supervise(_ host: SimulatedHost) {
        receive(on: host)
        scheduler.add("supervisor", nil) { [self] in
            while isServing, host === target {
                if let receiver = host.receiver {
                    _ = scheduler.wait(receiver.ended, until: scheduler.time + .seconds(5))
                } else {
                    scheduler.sleep(.milliseconds(Double(world.chance.pick(0..<2500))))
                    if host.isUp, host.receiver == nil, isServing { receive(on: host) }
                }
            }
        }
    }

    private func receive(on host: SimulatedHost) {
        guard host.isUp, host.receiver == nil else { return }
        var options = TargetOptions()
        options.waits = waits
        options.resumeWindow = plan.targetWindow
        let world = world
        host.receiver = world.start("receive", on: host) { process in
            let listener = SimulatedListener(process)
            let reception = Reception(
                host: SimulatedTargetHost(process), journals: host.journals(process), options: options, once: false,
                reports: .init(
                    note: { text in world.note("receive: \(text)") }, event: { event in world.note("receive: \(event)") },
                    ended: { outcome, _ in world.note("receive: ended: \(outcome)") }))
            process.interrupt = { reception.interrupt() }
            host.listener = listener
            try? reception.serve(listener)
        }
    }

    /// Asks the target what became of the last epoch that was offered, as `turntable resolve` does.
    @discardableResult
    private func resolve() -> Resolution.State? {
        guard let offer = source.history?.records.last(where: { $0.role == .source && $0.kind == .offer }) else { return nil }
        var state: Resolution.State?
        let target = target
        let process = world.start("resolve", on: source) { process in
            guard let control = try? SimulatedSourceTransport(process, to: target).connectControl() else { return }
            try? control.send(.query(Query(machine: World.machineName, epoch: offer.epoch, session: offer.session)))
            if case .resolution(let resolution)? = try? control.receive(within: Limits.helloTime) { state = resolution.state }
            control.shutDown()
        }
        wait(process, within: .seconds(60), "resolve")
        if let state { world.tally.answers[state.description, default: 0] += 1 }
        return state
    }

    /// While the machine is being moved.
    private func resolveLater() {
        scheduler.add("operator 2", nil) { [self] in
            scheduler.sleep(.milliseconds(Double(world.chance.pick(0..<3000))))
            if source.isUp { resolve() }
        }
    }

    // MARK: - The end

    private func judge() {
        for host in world.hosts { awaitHost(host) }
        // Whoever still serves ends in time.
        for host in world.hosts {
            guard let receiver = host.receiver else { continue }
            // One that was started this instant cannot be told yet.
            while receiver.interrupt == nil, !receiver.isDead { scheduler.sleep(.milliseconds(1)) }
            if let interrupt = receiver.interrupt { scheduler.add("signal", receiver, interrupt) }
            wait(receiver, within: .seconds(200), "receive")
        }
        for host in world.hosts { world.answers.check(host) }
        let machines = world.hosts.compactMap(\.machine).filter { $0.isAlive && !$0.isIncoming }
        if isMild, fitsBudget || plan.faults.isEmpty {
            guard let machine = machines.first, machines.count == 1 else {
                return world.fail("left undecided: \(machines.count) machines are there in the end")
            }
            if plan.isRunning, world.guest.running !== machine { world.fail("left undecided: nothing runs in the end") }
        }
        if let running = world.guest.running { world.guest.compare(running) }
    }
}

extension Resolution.State {
    fileprivate var description: String {
        switch self {
        case .committed: "committed"
        case .refused: "refused"
        case .waiting: "waiting"
        case .unknown: "unknown"
        }
    }
}

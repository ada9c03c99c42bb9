// The adapters between the engine and a simulated hypervisor: what Hypervisors/QEMU is for QEMU, with a step before and after
// all that outlives the process.

internal import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A machine that a process sends.
final class SimulatedSource: SourceMachine, @unchecked Sendable {
    let name = World.machineName
    private let machine: Machine
    private var isStoppedByUs = false
    private(set) var isRunning: Bool
    private var world: World { machine.host.world }
    let disks: [any BlockSource]

    /// Attaches to the machine on the process's host.
    init(_ process: SimulatedProcess) throws(TurntableError) {
        guard let machine = process.host.machine, machine.isAlive else {
            throw TurntableError(.hypervisor, "attaching to m", "there is no such machine here")
        }
        guard !machine.isIncoming else { throw TurntableError(.refused, "moving m", "it has not arrived here itself") }
        self.machine = machine
        disks = process.host.world.plan.hasDisk ? [SimulatedBlockSource(process.host.volume)] : []
        isRunning = machine.stage == .running
        try machine.take(process, for: self, "moving")
        if machine.stage == .saved, !machine.hasLedger {
            throw TurntableError(.refused, "moving m", "its state was saved already")
        }
    }

    var epoch: Epoch { machine.epoch }
    var description: [UInt8] { [isRunning ? 1 : 0] }
    var pages: any PageSource { machine.memory }
    var deviceCost: DeviceCost { DeviceCost(bytes: .kibi(1), save: .milliseconds(2), load: .milliseconds(2)) }

    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try machine.ledger(bytes: bytes) }
    func diskMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try machine.diskLedger(bytes: bytes) }
    func forgetSession() {
        world.at(.forget, machine.host)
        machine.forgetLedger()
    }
    func takeUp(wasRunning: Bool) {
        world.tally.takenUp += 1
        isRunning = wasRunning
        isStoppedByUs = wasRunning && machine.stage != .running
    }

    func startDirtyLog(streams: Int, isContinued: Bool) -> any DirtyLog {
        let isKept = isContinued && world.plan.dirtyLogOutlivesProcess
        machine.startLogging(keepingMarks: isKept)
        return SimulatedDirtyLog(machine, isContinued: isKept)
    }

    func pause() throws(TurntableError) {
        world.at(.pause, machine.host)
        try checkAlive()
        if world.faults.takeFailure(.failPause) { throw TurntableError(.hypervisor, "pausing m", "it failed") }
        world.scheduler.sleep(.microseconds(world.chance.pick(100..<2000)))
        try checkAlive()
        guard (machine.stage == .running) == isRunning || isStoppedByUs else {
            throw TurntableError(.refused, "pausing m", "somebody else stopped it")
        }
        if machine.stage == .running { machine.stop() }
        isStoppedByUs = isRunning
        world.at(.paused, machine.host)
    }

    func saveDeviceState() throws(TurntableError) -> [UInt8] {
        world.at(.save, machine.host)
        try checkAlive()
        if world.faults.takeFailure(.failSave) { throw TurntableError(.hypervisor, "saving device state", "it failed") }
        if machine.stage == .running { world.fail("the device state of a running machine is saved") }
        world.scheduler.sleep(.microseconds(world.chance.pick(500..<5000)))
        try checkAlive()
        let bytes = machine.save()
        world.at(.saved, machine.host)
        return bytes
    }

    func reclaim(_ epoch: Epoch) {
        world.at(.reclaim, machine.host)
        world.tally.reclaimed += 1
        machine.epoch = epoch
    }

    func resume() throws(TurntableError) {
        world.at(.resume, machine.host)
        try checkAlive()
        if isStoppedByUs { machine.run(under: machine.epoch) }
        isStoppedByUs = false
        world.at(.resumed, machine.host)
    }

    func discard() {
        world.at(.discard, machine.host)
        machine.die("discarded")
        world.at(.discarded, machine.host)
    }

    func checkAlive() throws(TurntableError) {
        guard machine.isAlive else { throw TurntableError(.hypervisor, "moving m", "its hypervisor died") }
    }
}

/// Makes machines for a receiver's process.
final class SimulatedTargetHost: TargetHost, @unchecked Sendable {
    private let process: SimulatedProcess
    private var host: SimulatedHost { process.host }
    private var world: World { host.world }

    init(_ process: SimulatedProcess) { self.process = process }

    func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        world.at(.prepare, host)
        if let old = host.machine, old.epoch <= offer.epoch { old.endIfForsaken() }
        if world.faults.takeFailure(.failPrepare) { throw TurntableError(.hypervisor, "starting m", "it failed") }
        if let old = host.machine, old.isAlive {
            throw TurntableError(.refused, "starting m", "a machine of that name runs at the target already")
        }
        let machine = world.makeMachine(on: host, .incoming, offer.epoch)
        machine.beginWaiting(resumeWindow)
        let adapter = try SimulatedTarget(machine, offer, process)
        world.scheduler.sleep(.milliseconds(Double(world.chance.pick(1..<80))))
        world.at(.prepared, host)
        guard machine.isAlive else { throw TurntableError(.hypervisor, "starting m", "it did not come up") }
        machine.session = offer.session
        return adapter
    }

    func find(_ offer: Offer) throws(TurntableError) -> (any TargetMachine)? {
        guard let machine = host.machine, machine.isIncoming, machine.session == offer.session else { return nil }
        let adapter = try SimulatedTarget(machine, offer, process)
        world.tally.takenUp += 1
        return adapter
    }

    func isWaiting(_ machine: String, _ session: SessionID) -> Bool {
        host.machine.map { $0.isIncoming && $0.session == session } ?? false
    }
}

/// A machine that a process receives.
final class SimulatedTarget: TargetMachine, @unchecked Sendable {
    private let machine: Machine
    private let session: SessionID
    private let epoch: Epoch
    private let process: SimulatedProcess
    let isRunning: Bool
    private(set) var hasDeviceState: Bool
    private var isOurs = true
    private var world: World { machine.host.world }
    let disks: [any BlockSink]
    /// What a volume holds of an earlier stay, or of a try that failed, is an older copy of it.
    var contents: [TargetContent] {
        pages.regions.map { _ in .zero } + disks.map { $0.isZeroed ? .zero : world.plan.recycles ? .older : .unknown }
    }

    init(_ machine: Machine, _ offer: Offer, _ process: SimulatedProcess) throws(TurntableError) {
        (self.machine, self.process) = (machine, process)
        (session, epoch) = (offer.session, offer.epoch)
        disks = offer.disks.map { _ in SimulatedBlockSink(process.host.volume, process) }
        isRunning = offer.description == [1]
        hasDeviceState = [.loaded, .running, .stopped].contains(machine.stage)
        try machine.take(process, for: self, "receiving")
    }

    var pages: any PageSink { machine.memory }
    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try machine.arrival(session, bytes: bytes) }
    func forgetSession() {
        world.at(.forget, machine.host)
        machine.forgetArrival(session)
    }

    func loadDeviceState(_ state: UnsafeRawBufferPointer) throws(TurntableError) {
        if hasDeviceState { return }
        world.at(.load, machine.host)
        if world.faults.takeFailure(.failLoad) { throw TurntableError(.hypervisor, "loading device state", "it failed") }
        try checkAlive()
        machine.beginToLoad()
        world.scheduler.sleep(.microseconds(world.chance.pick(500..<5000)))
        try checkAlive()
        guard state.count >= 8 else { throw TurntableError(.hypervisor, "loading device state", "there is none") }
        machine.finishLoading(UInt64(littleEndian: state.loadUnaligned(as: UInt64.self)))
        hasDeviceState = true
        world.at(.loaded, machine.host)
    }

    func resume() throws(TurntableError) {
        guard isOurs else { return }
        world.at(.run, machine.host)
        try checkAlive()
        if isRunning {
            machine.run(under: epoch)
        } else {
            if machine.stage == .loaded { world.guest.compare(machine) }
            machine.settle()
        }
        // A receiver that is killed here leaves a machine that runs and is said to be incoming.
        world.at(.ran, machine.host)
        machine.isIncoming = false
        machine.epoch = epoch
        machine.session = nil
        machine.leave()
        isOurs = false
        world.at(.kept, machine.host)
    }

    func discard() {
        guard isOurs else { return }
        world.at(.discard, machine.host)
        machine.die("thrown away")
        isOurs = false
        world.at(.discarded, machine.host)
    }

    func checkAlive() throws(TurntableError) {
        guard machine.isAlive else { throw TurntableError(.hypervisor, "receiving m", "its hypervisor died here") }
    }
}

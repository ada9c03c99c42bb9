public import MigrationEngine
public import TurntableCore
public import TurntableLinux
public import WireFormat

/// A QEMU that waits for a machine's memory and device state.
public final class QEMUTargetMachine: TargetMachine {
    public var pages: any PageSink { memory }
    private let process: Int32
    private let memory: QEMUMemory
    private let name: String
    private let epoch: Epoch
    private let session: String
    private let statePath: String
    /// Where its record is, and under which name: a controller may have named it as it liked. Nil if none was found.
    private let place: (directory: RunDirectory, machine: String)?
    public let isRunning: Bool
    /// Of a machine that a receiver started.
    private let lease: MachineLease?
    private let kept: KeptMemory?
    /// Its memory began as what was kept of an earlier stay.
    private let isRecycled: Bool
    private let state: Monitor<State>

    private struct State {
        /// Both as long as the machine is on its way to here: then it can be sent on.
        var monitor: QMP?
        var lock: MachineLock?
        var hasDeviceState = false
        var disks = TargetDisks.Opened()
    }

    /// Attaches to a machine that was started with `turntable run --incoming` for this offer, by its monitor.
    init(
        _ offer: Offer, _ description: QEMUDescription, monitorPath: String, directory: RunDirectory, lease: MachineLease?,
        kept: KeptMemory?, disks: (QMP) throws(TurntableError) -> TargetDisks.Opened
    ) throws(TurntableError) {
        name = offer.machine
        epoch = offer.epoch
        session = offer.session.hexadecimal
        isRunning = description.isRunning
        self.lease = lease
        self.kept = kept
        // Before anything is asked of its monitor, which has one user at a time.
        let named = RunDirectory.place(ofMonitor: monitorPath)
        var lock = try named.map { (place) throws(TurntableError) in try place.directory.lock(place.machine, "receiving") }
        let monitor = try QMP(path: monitorPath)
        process = monitor.process
        statePath = "\(monitorPath).state"
        memory = try QEMUMemory(process: process)
        let here = directory.machines().lazy.filter { (try? directory.read($0))?.process == monitor.process }
        place = named ?? here.first.map { (directory, $0) }
        if let place, named == nil { lock = try place.directory.lock(place.machine, "receiving") }
        state = Monitor(State(monitor: monitor, lock: lock))
        if let place, try place.directory.read(place.machine).session != nil {
            throw TurntableError(
                .refused, "preparing \(name)", "it holds the beginning of another migration, whose receiver is gone",
                remedy: "start it anew")
        }
        isRecycled = try kept?.load(into: memory, of: offer.machine) ?? false
        let opened = try disks(monitor)
        state.update { $0.disks = opened }
        try migrationSetUp(monitor)
        try monitor.execute("migrate-incoming", ["uri": .string("unix:\(statePath)")])
        // From now on another process of the receiver finds it, and knows that it was told where its state comes from.
        if let place {
            var record = try place.directory.read(place.machine)
            record.session = session
            record.epoch = epoch
            try place.directory.write(record)
        }
    }

    /// Takes up a machine that an earlier process of the receiver prepared for this offer.
    init(
        found offer: Offer, _ record: MachineRecord, in directory: RunDirectory, _ lock: MachineLock, _ lease: MachineLease?,
        kept: KeptMemory?, disks: (QMP) throws(TurntableError) -> TargetDisks.Opened
    ) throws(TurntableError) {
        name = offer.machine
        epoch = offer.epoch
        session = offer.session.hexadecimal
        isRunning = try QEMUDescription(decoding: offer.description).isRunning
        self.lease = lease
        self.kept = kept
        // The source was told before, and is not again.
        isRecycled = false
        place = (directory, record.name)
        let path = directory.monitor(of: record.name)
        statePath = "\(path).state"
        let monitor = try QMP(path: path)
        process = monitor.process
        memory = try QEMUMemory(process: process)
        let isLoaded = try IncomingStage.afterLoading(monitor) == .loaded
        state = Monitor(State(monitor: monitor, lock: lock, hasDeviceState: isLoaded, disks: try disks(monitor)))
    }

    public var disks: [any BlockSink] { state.read { $0.disks.sinks } }
    public var contents: [TargetContent] { pages.regions.map { _ in isRecycled ? .older : .zero } + state.read { $0.disks.contents } }
    public var hasDeviceState: Bool { state.read { $0.hasDeviceState } }

    public func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory {
        guard let place else { return try SharedMemory(bytes: bytes) }
        return try SharedMemory(path: place.directory.arrival(of: place.machine, session), bytes: bytes)
    }

    public func forgetSession() {
        if let place { removeFile(place.directory.arrival(of: place.machine, session)) }
    }

    public func loadDeviceState(_ state: UnsafeRawBufferPointer) throws(TurntableError) {
        let (monitor, isLoaded) = self.state.read { ($0.monitor, $0.hasDeviceState) }
        guard let monitor, !isLoaded else { return }
        monitor.forgetEvents()
        do throws(TurntableError) {
            let stream = try Socket.connectUnix(statePath)
            try unsafe Socket.write(stream, state, what: "loading device state")
            Socket.shutDown(stream)
            try monitor.awaitEvent("that the state is loaded") { (name, data) throws(TurntableError) in
                guard name == "MIGRATION", let status = data["status"]?.text else { return false }
                if status == "failed" { throw TurntableError(.hypervisor, "loading device state", "QEMU says that it failed") }
                return status == "completed"
            }
        } catch {
            // QEMU ends when it does not like the state, in the middle of it or at its end; why is in its log.
            let log = lease == nil ? "" : place?.directory.logTail(of: name) ?? ""
            throw TurntableError(
                .hypervisor, "loading device state", log.isEmpty ? error.why : "\(error.why): \(log)",
                remedy: "both ends need the same QEMU version and devices")
        }
        self.state.update { $0.hasDeviceState = true }
        removeFile(statePath)
    }

    public func resume() throws(TurntableError) {
        guard let monitor = state.read({ $0.monitor }) else { return }
        if isRunning { try monitor.execute("cont") }
        // From now on it is a machine like any other here, also if this process is killed. What it has mapped it keeps.
        forgetSession()
        kept?.remove(name)
        if let place, var record = try? place.directory.read(place.machine), record.process == process {
            record.isIncoming = false
            record.epoch = epoch
            record.session = nil
            try? place.directory.write(record)
        }
        lease?.keep()
        leave()
    }

    public func discard() {
        // One that was resumed is not this migration's any more.
        guard let monitor = state.read({ $0.monitor }) else { return }
        _ = try? monitor.execute("quit")
        monitor.awaitEnd(within: .seconds(5))
        removeFile(statePath)
        lease?.end(within: .seconds(5))
        if let place {
            // Its keeper removes them, if it was not killed.
            place.directory.removeRemains(of: place.machine, process)
            removeFile(place.directory.log(of: place.machine))
        }
        state.update { $0.disks.discard() }
        leave()
    }

    private func leave() {
        state.update {
            $0.monitor = nil
            $0.lock = nil
            $0.disks = TargetDisks.Opened()
        }
    }

    public func checkAlive() throws(TurntableError) {
        guard ProcessTable.startTime(of: process) != nil else {
            let log = lease == nil ? "" : place?.directory.logTail(of: name) ?? ""
            throw TurntableError(.hypervisor, "receiving \(name)", "its QEMU died here" + (log.isEmpty ? "" : ": \(log)"))
        }
    }
}

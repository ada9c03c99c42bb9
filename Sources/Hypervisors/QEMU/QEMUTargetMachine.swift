public import MigrationEngine
public import TurntableCore
public import TurntableLinux
internal import WireFormat

/// A QEMU that waits for a machine's memory and device state.
public final class QEMUTargetMachine: TargetMachine {
    public var pages: any PageSink { memory }
    private let monitor: QMP
    private let memory: QEMUMemory
    private let name: String
    private let epoch: Epoch
    private let statePath: String
    private let directory: RunDirectory
    public let isRunning: Bool
    /// Of a machine that this process started.
    private let lease: MachineLease?

    /// Attaches to a machine that was started with `turntable run --incoming`, by its monitor.
    /// - Parameter isRunning: it ran at the source; else it was paused there and stays so.
    init(
        _ machine: String, _ epoch: Epoch, monitorPath: String, isRunning: Bool, lease: MachineLease?, _ directory: RunDirectory
    ) throws(TurntableError) {
        name = machine
        self.epoch = epoch
        self.isRunning = isRunning
        self.lease = lease
        self.directory = directory
        monitor = try QMP(path: monitorPath)
        statePath = "\(monitorPath).state"
        memory = try QEMUMemory(process: monitor.process)
        try migrationSetUp(monitor)
        try monitor.execute("migrate-incoming", ["uri": .string("unix:\(statePath)")])
    }

    public func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory {
        try SharedMemory(path: directory.session(of: name), bytes: bytes)
    }

    public func forgetSession() { removeFile(directory.session(of: name)) }

    public func loadDeviceState(_ state: UnsafeRawBufferPointer) throws(TurntableError) {
        // All of its memory is here: from now on it is worth more than this process.
        try lease?.keep()
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
            let log = lease == nil ? "" : directory.logTail(of: name)
            throw TurntableError(
                .hypervisor, "loading device state", log.isEmpty ? error.why : "\(error.why): \(log)",
                remedy: "both ends need the same QEMU version and devices")
        }
        removeFile(statePath)
    }

    public func resume() throws(TurntableError) {
        if isRunning { try monitor.execute("cont") }
        // From now on it is a machine like any other here: it can be sent on. A controller may have named it as it liked.
        let here = directory.machines().lazy.compactMap { [directory] in try? directory.read($0) }
        if var record = here.first(where: { [monitor] in $0.process == monitor.process }) ?? (try? directory.read(name)) {
            record.isIncoming = false
            record.epoch = epoch
            try? directory.write(record)
        }
    }

    public func discard() {
        _ = try? monitor.execute("quit")
        monitor.awaitEnd(within: .seconds(5))
        removeFile(statePath)
        if let lease {
            lease.end(within: .seconds(5))
            removeFile(directory.log(of: name))
        }
    }

    public func checkAlive() throws(TurntableError) {
        guard ProcessTable.startTime(of: monitor.process) != nil else {
            let log = lease == nil ? "" : directory.logTail(of: name)
            throw TurntableError(.hypervisor, "receiving \(name)", "its QEMU died here" + (log.isEmpty ? "" : ": \(log)"))
        }
    }
}

internal import FoundationEssentials
public import MigrationEngine
public import TurntableCore
public import TurntableLinux

/// What a target needs to make the same machine. Travels as JSON in the offer.
public struct QEMUDescription: Codable, Sendable {
    public var hypervisor = "qemu"
    /// As the operator wrote it at the source.
    public var arguments: [String]
    /// It runs; else it is paused, and stays so at the target.
    public var isRunning: Bool

    public init(arguments: [String], isRunning: Bool) {
        self.arguments = arguments
        self.isRunning = isRunning
    }

    public func encoded() -> [UInt8] {
        do { return Array(try JSONEncoder().encode(self)) } catch { preconditionFailure("a command line is JSON: \(error)") }
    }

    public init(decoding bytes: [UInt8]) throws(TurntableError) {
        do { self = try JSONDecoder().decode(QEMUDescription.self, from: Data(bytes)) } catch {
            throw TurntableError(.protocol, "reading the machine's description", "it is not that of a QEMU machine")
        }
    }
}

/// A running QEMU that `turntable run` started.
public final class QEMUSourceMachine: SourceMachine {
    public let name: String
    public var epoch: Epoch { record.read { $0.epoch } }
    private let record: Monitor<MachineRecord>
    private let directory: RunDirectory
    public let description: [UInt8]
    public var pages: any PageSource { memory }
    /// Typical of a PC machine; what this one really takes is in the report.
    public let deviceCost = DeviceCost(bytes: .mebi(1), save: .milliseconds(20), load: .milliseconds(20))

    private let monitor: QMP
    private let memory: QEMUMemory
    private let statePath: String
    /// What the target was told that it is.
    public let isRunning: Bool
    private let isStoppedByUs = Monitor(false)
    private let dirtyLog: DirtyLogMethod?

    /// Attaches to the machine of that name.
    /// - Parameter dirtyLog: nil for the best that this kernel has.
    public init(_ machine: String, in directory: RunDirectory, dirtyLog: DirtyLogMethod? = nil) throws(TurntableError) {
        self.dirtyLog = dirtyLog
        let record = try directory.read(machine)
        self.directory = directory
        self.record = Monitor(record)
        name = record.name
        statePath = directory.stateSocket(of: machine)
        guard record.isAlive else {
            throw TurntableError(
                .hypervisor, "attaching to \(machine)", "its QEMU, process \(record.process), is gone",
                remedy: "start it again with `turntable run`")
        }
        monitor = try QMP(path: directory.monitor(of: machine))
        memory = try QEMUMemory(process: monitor.process)
        let status = try monitor.execute("query-status")["status"]?.text ?? "unknown"
        guard ["running", "paused", "postmigrate"].contains(status) else {
            throw TurntableError(
                .refused, "moving \(machine)", "it is in the state \(status)", remedy: "only a running or paused machine can be moved")
        }
        isRunning = status == "running"
        description = QEMUDescription(arguments: record.arguments, isRunning: isRunning).encoded()
        try migrationSetUp(monitor)
    }

    public func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory {
        try SharedMemory(path: directory.session(of: name), bytes: bytes)
    }

    public func forgetSession() { removeFile(directory.session(of: name)) }

    public func takeUp(wasRunning: Bool) { isStoppedByUs.update { $0 = wasRunning && !isRunning } }

    public func reclaim(_ epoch: Epoch) throws(TurntableError) {
        let updated = record.update { record in
            record.epoch = epoch
            return record
        }
        try directory.write(updated)
    }

    public func startDirtyLog(streams: Int, isContinued: Bool) throws(TurntableError) -> any DirtyLog {
        switch try DirtyLogMethod.choose(dirtyLog) {
        case .pagemapScan: try PagemapDirtyLog(process: monitor.process, memory: memory, streams: streams)
        case .softDirty: try SoftDirtyLog(monitor: monitor, memory: memory)
        }
    }

    /// QEMU's stop returns when the processors stand still and all requests to disks are through.
    public func pause() throws(TurntableError) {
        let status = try monitor.execute("query-status")["status"]?.text ?? "unknown"
        guard (status == "running") == isRunning else {
            throw TurntableError(
                .refused, "pausing \(name)", "somebody else made it \(status) while it was moved; it stays so here", remedy: "send it again"
            )
        }
        try monitor.execute("stop")
        isStoppedByUs.update { $0 = isRunning }
    }

    public func saveDeviceState() throws(TurntableError) -> [UInt8] {
        let listener = try Socket.listenUnix(statePath)
        defer { removeFile(statePath) }
        monitor.forgetEvents()
        try monitor.execute("migrate", ["uri": .string("unix:\(statePath)")])
        guard let stream = try Socket.accept(listener, within: Limits.hypervisorTime) else {
            throw TurntableError(.hypervisor, "saving device state", "QEMU did not connect within \(Limits.hypervisorTime)")
        }
        var state: [UInt8] = []
        state.reserveCapacity(1 << 20)
        while true {
            guard try Socket.waitReadable(stream, within: Limits.hypervisorTime) else {
                throw TurntableError(.hypervisor, "saving device state", "QEMU sent nothing for \(Limits.hypervisorTime)")
            }
            let piece = try Socket.read(stream, atMost: 256 << 10, what: "saving device state")
            if piece.isEmpty { break }
            state += piece
            guard state.count <= Limits.deviceStateBytes else {
                throw TurntableError(
                    .hypervisor, "saving device state", "it is over \(ByteCount(Limits.deviceStateBytes))",
                    remedy: "this machine has memory that is not in a backend")
            }
        }
        try monitor.awaitEvent("that the state is saved") { (name, data) throws(TurntableError) in
            guard name == "MIGRATION", let status = data["status"]?.text else { return false }
            if status == "failed" { throw TurntableError(.hypervisor, "saving device state", "QEMU says that it failed") }
            return status == "completed"
        }
        return state
    }

    public func resume() throws(TurntableError) {
        // What an operator paused stays paused.
        if isStoppedByUs.read({ $0 }) { try monitor.execute("cont") }
        isStoppedByUs.update { $0 = false }
    }

    public func discard() {
        // QEMU may be gone before it has answered.
        _ = try? monitor.execute("quit")
        monitor.awaitEnd(within: .seconds(5))
    }

    public func checkAlive() throws(TurntableError) {
        guard ProcessTable.startTime(of: monitor.process) != nil else {
            throw TurntableError(
                .hypervisor, "moving \(name)", "its QEMU died; the machine is lost at the source, as it would be without a migration")
        }
    }
}

/// What both ends tell QEMU before its own migration may carry the device state: RAM in shared files stays out of it.
func migrationSetUp(_ monitor: QMP) throws(TurntableError) {
    func on(_ capability: String) -> JSONValue { .object(["capability": .string(capability), "state": .bool(true)]) }
    try monitor.execute("migrate-set-capabilities", ["capabilities": .array([on("x-ignore-shared"), on("events")])])
    // The state goes to this process: no reason to pace it.
    try monitor.execute("migrate-set-parameters", ["max-bandwidth": .integer(100 << 30)])
}

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
    /// The disks that move with it.
    public var disks: [QEMUDrive]

    public init(arguments: [String], isRunning: Bool, disks: [QEMUDrive] = []) {
        self.arguments = arguments
        self.isRunning = isRunning
        self.disks = disks
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

/// A running QEMU that `turntable run` started. One living process at a time has it.
public final class QEMUSourceMachine: SourceMachine {
    public let name: String
    public var epoch: Epoch { standing.read { $0.epoch } }
    public var description: [UInt8] { QEMUDescription(arguments: arguments, isRunning: isRunning, disks: drives).encoded() }
    public var pages: any PageSource { memory }
    public let disks: [any BlockSource]
    /// Disks of this host that stay behind.
    public let drivesLeft: [QEMUDrive]
    /// Typical of a PC machine; what this one really takes is in the report.
    public let deviceCost = DeviceCost(bytes: .mebi(1), save: .milliseconds(20), load: .milliseconds(20))

    private let arguments: [String]
    let monitor: QMP
    private let memory: QEMUMemory
    private let drives: [QEMUDrive]
    private let exports: QEMUExports
    private let directory: RunDirectory
    private let lock: MachineLock
    private let dirtyLog: DirtyLogMethod?
    /// What the target was told that it is.
    public var isRunning: Bool { standing.read { $0.isRunning } }
    private let standing: Monitor<Standing>

    private struct Standing {
        var epoch: Epoch
        var isRunning: Bool
        var isStoppedByUs = false
    }

    /// Attaches to the machine of that name.
    /// - Parameters:
    ///   - dirtyLog: nil for the best that this kernel has.
    ///   - disks: which of its disks move with it.
    ///   - volume: what reads a disk better than QEMU can, such as a logical volume; nil if nothing does.
    public init(
        _ machine: String, in directory: RunDirectory, dirtyLog: DirtyLogMethod? = nil, disks selection: DiskSelection = .none,
        volume: (QEMUDrive) throws(TurntableError) -> (any BlockSource)? = { _ in nil }
    ) throws(TurntableError) {
        self.dirtyLog = dirtyLog
        self.directory = directory
        let record = try directory.read(machine)
        name = record.name
        arguments = record.arguments
        guard record.isAlive else {
            throw TurntableError(
                .hypervisor, "attaching to \(machine)", "its QEMU, process \(record.process), is gone",
                remedy: "start it again with `turntable run`")
        }
        // Before anything is asked of its monitor, which has one user at a time.
        lock = try directory.lock(machine, "moving")
        guard !record.isIncoming else {
            throw TurntableError(
                .refused, "moving \(machine)", "it has not arrived here itself", remedy: "see `turntable status \(machine)`")
        }
        let monitor = try QMP(path: directory.monitor(of: machine))
        self.monitor = monitor
        memory = try QEMUMemory(process: monitor.process)
        let status = try Self.settledStatus(monitor)
        guard ["running", "paused", "postmigrate"].contains(status) else {
            throw TurntableError(
                .refused, "moving \(machine)", "it is in the state \(status)", remedy: "only a running or paused machine can be moved")
        }
        // With a session it was a sender of ours that saved it, and its state is still here.
        if status == "postmigrate", !FileManager.default.fileExists(atPath: directory.session(of: machine)) {
            throw Self.isSaved("moving \(machine)")
        }
        let all = try QEMUDrive.all(monitor)
        let chosen = try selection.choose(from: all, of: machine)
        let exports = QEMUExports(monitor, socket: directory.exports(of: machine))
        drives = chosen
        drivesLeft = all.filter { !chosen.contains($0) }
        self.exports = exports
        var disks: [any BlockSource] = []
        for drive in chosen {
            if let volume = try volume(drive) {
                disks.append(volume)
            } else {
                disks.append(try BitmapSource(drive, monitor: monitor, exports: exports))
            }
        }
        self.disks = disks
        standing = Monitor(Standing(epoch: record.epoch, isRunning: status == "running"))
        try migrationSetUp(monitor)
    }

    /// Its state, when QEMU has done what a sender that was killed told it last.
    private static func settledStatus(_ monitor: QMP) throws(TurntableError) -> String {
        let deadline = Clock.now + Limits.hypervisorTime
        while true {
            let saving = try monitor.execute("query-migrate")["status"]?.text ?? "none"
            let status = try monitor.execute("query-status")["status"]?.text ?? "unknown"
            let isSaving = status == "finish-migrate" || ["setup", "active", "device", "cancelling"].contains(saving)
            if !isSaving || Clock.now > deadline { return status }
            Clock.sleep(.milliseconds(10))
        }
    }

    /// QEMU saves a machine once only, until it has run again.
    private static func isSaved(_ what: String) -> TurntableError {
        TurntableError(
            .refused, what, "its state was saved already and QEMU does not save it twice (postmigrate)",
            remedy: "let it run for a moment: `cont`, then `stop`, on its monitor")
    }

    // MARK: - What outlives this process

    public func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory {
        try SharedMemory(path: directory.session(of: name), bytes: bytes)
    }

    public func diskMemory(bytes: Int) throws(TurntableError) -> SharedMemory {
        try SharedMemory(path: directory.diskSession(of: name), bytes: bytes)
    }

    public func forgetSession() {
        removeFile(directory.session(of: name))
        removeFile(directory.diskSession(of: name))
        removeFile(directory.devices(of: name))
    }

    public func takeUp(wasRunning: Bool) throws(TurntableError) {
        let status = try monitor.execute("query-status")["status"]?.text
        standing.update {
            $0.isRunning = wasRunning
            $0.isStoppedByUs = wasRunning && status != "running"
        }
    }

    public func reclaim(_ epoch: Epoch) throws(TurntableError) {
        var record = try directory.read(name)
        record.epoch = epoch
        try directory.write(record)
        standing.update { $0.epoch = epoch }
    }

    // MARK: - The hand-off

    public func startDirtyLog(streams: Int, isContinued: Bool) throws(TurntableError) -> any DirtyLog {
        switch try DirtyLogMethod.choose(dirtyLog) {
        case .pagemapScan: try PagemapDirtyLog(process: monitor.process, memory: memory, streams: streams, isContinued: isContinued)
        case .softDirty: try SoftDirtyLog(monitor: monitor, memory: memory)
        }
    }

    /// QEMU's stop returns when the processors stand still and all requests to disks are through.
    public func pause() throws(TurntableError) {
        let (isRunning, isStoppedByUs) = standing.read { ($0.isRunning, $0.isStoppedByUs) }
        let status = try monitor.execute("query-status")["status"]?.text ?? "unknown"
        guard (status == "running") == isRunning || isStoppedByUs else {
            throw TurntableError(
                .refused, "pausing \(name)", "somebody else made it \(status) while it was moved; it stays so here", remedy: "send it again"
            )
        }
        try monitor.execute("stop")
        standing.update { $0.isStoppedByUs = isRunning }
    }

    /// QEMU writes the state into a file of the machine's directory, by itself: it comes to its end even if this process does
    /// not, and the next process of the migration finds it there, since QEMU saves a machine that stands still once only.
    public func saveDeviceState() throws(TurntableError) -> [UInt8] {
        let path = directory.devices(of: name)
        if try monitor.execute("query-status")["status"]?.text == "postmigrate" {
            guard FileManager.default.fileExists(atPath: path), try monitor.execute("query-migrate")["status"]?.text == "completed" else {
                throw Self.isSaved("saving device state")
            }
            return try Self.read(path)
        }
        removeFile(path)
        let file = try Descriptor.open(path, .create, what: "making \(path)")
        try monitor.give(file, as: "turntable")
        // At its end QEMU gives its images up.
        try exports.undisturbed { () throws(TurntableError) in try saveGiven() }
        return try Self.read(path)
    }

    private func saveGiven() throws(TurntableError) {
        monitor.forgetEvents()
        try monitor.execute("migrate", ["uri": .string("fd:turntable")])
        try monitor.awaitEvent("that the state is saved") { (name, data) throws(TurntableError) in
            guard name == "MIGRATION", let status = data["status"]?.text else { return false }
            if status == "failed" { throw TurntableError(.hypervisor, "saving device state", "QEMU says that it failed") }
            return status == "completed"
        }
    }

    private static func read(_ path: String) throws(TurntableError) -> [UInt8] {
        let file = try Descriptor.open(path, .read, what: "reading \(path)")
        var state: [UInt8] = []
        state.reserveCapacity(1 << 20)
        while true {
            let piece = try Socket.read(file, atMost: 1 << 20, what: "reading \(path)")
            if piece.isEmpty { return state }
            state += piece
            guard state.count <= Limits.deviceStateBytes else {
                throw TurntableError(
                    .hypervisor, "saving device state", "it is over \(ByteCount(Limits.deviceStateBytes))",
                    remedy: "this machine has memory that is not in a backend")
            }
        }
    }

    public func resume() throws(TurntableError) {
        // What an operator paused stays paused.
        if standing.read({ $0.isStoppedByUs }) {
            // What was saved is not its state any more.
            removeFile(directory.devices(of: name))
            // QEMU says that it has saved a machine a moment before it lets it be continued.
            _ = try Self.settledStatus(monitor)
            try exports.undisturbed { () throws(TurntableError) in _ = try monitor.execute("cont") }
        }
        standing.update { $0.isStoppedByUs = false }
    }

    public func discard() {
        // QEMU may be gone before it has answered.
        _ = try? monitor.execute("quit")
        monitor.awaitEnd(within: .seconds(5))
        // Its keeper removes them, if it was not killed.
        directory.removeRemains(of: name, monitor.process)
    }

    /// Keeps what its memory held, for its return. Only once it has left: nothing writes it any more.
    public func keepMemory(in kept: KeptMemory) throws(TurntableError) { try kept.keep(memory, of: name) }

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

internal import Glibc
public import TurntableCore
internal import TurntableLinux

/// Starts an unmodified QEMU with its RAM in memory files of ours, and stays with it until it ends.
public struct QEMULauncher: Sendable {
    public var directory: RunDirectory
    public var name: String
    public var epoch: Epoch
    /// It waits for a machine to come instead of booting.
    public var isIncoming: Bool
    public var commandLine: QEMUCommandLine
    /// The preload library: registers QEMU's mappings of our files for PAGEMAP_SCAN. Other dirty logs need none.
    public var preload: String
    /// How long an incoming machine waits without a receiver: see ``MachineKeeper``. Nil for a machine that depends on nobody.
    public var resumeWindow: Nanoseconds?

    public init(
        directory: RunDirectory, name: String, epoch: Epoch, isIncoming: Bool, commandLine: QEMUCommandLine, preload: String,
        resumeWindow: Nanoseconds? = nil
    ) {
        self.directory = directory
        self.name = name
        self.epoch = epoch
        self.isIncoming = isIncoming
        self.commandLine = commandLine
        self.preload = preload
        self.resumeWindow = resumeWindow
    }

    /// Runs the machine. Returns QEMU's exit code; nothing of the machine is left then.
    /// - Parameters:
    ///   - starting: called once when the name is its own, before anything of it can run.
    ///   - started: called once when it can be found and moved.
    public func run(
        starting: () throws(TurntableError) -> Void = { () throws(TurntableError) in }, started: (MachineRecord, DirtyLogMethod) -> Void
    ) throws(TurntableError) -> Int32 {
        try MachineName.check(name)
        // A machine that could not be moved away again is not started.
        let dirtyLog = try DirtyLogMethod.choose()
        try dirtyLog.check(hugePagesIn: commandLine.regions.first { $0.hugePageBytes > 0 }?.name)
        let needed = commandLine.regions.reduce(0) { $0 + $1.bytes }
        try checkAvailableMemory(ByteCount(needed))
        try directory.claim(name)
        defer { directory.remove(name) }

        // The files live as long as this process and QEMU hold them: a QEMU that outlives us keeps its memory.
        var files: [OwnedFile] = []
        for region in commandLine.regions {
            files.append(OwnedFile(try MemoryFile.create(name: region.name, bytes: region.bytes, hugePageBytes: region.hugePageBytes)))
        }
        let descriptors = Dictionary(uniqueKeysWithValues: zip(commandLine.regions.map(\.name), files.map { $0.file.descriptor.rawValue }))
        let (reading, writing) = try Socket.pair()
        let report = Descriptor(owning: reading)
        let reportWriter = Descriptor(owning: writing)

        try starting()
        let child = try ChildProcess(
            commandLine.rewritten(descriptors: descriptors, monitor: directory.monitor(of: name), incoming: isIncoming),
            environment: dirtyLog.needsRegistration ? ["LD_PRELOAD": preload, "TURNTABLE_RAM_REPORT": "\(reportWriter.rawValue)"] : [:],
            inherited: Array(descriptors.values) + [reportWriter.rawValue])
        let process = child.identifier
        // The terminal's Ctrl-C reaches QEMU by itself, being in the same process group; a kill of ours is passed on.
        Signals.onInterrupt { number in if number == SIGTERM { Signals.send(number, to: process) } }
        var keeper: MachineKeeper?
        do throws(TurntableError) {
            try awaitMonitor(child)
            if dirtyLog.needsRegistration { try checkReport(report) }
            if let resumeWindow { keeper = try keep(process, resumeWindow) }
            let record = MachineRecord(name: name, process: process, epoch: epoch, arguments: commandLine.arguments, isIncoming: isIncoming)
            try directory.write(record)
            started(record, dirtyLog)
        } catch {
            child.kill()
            _ = child.wait()
            throw error
        }
        let code = child.wait()
        // Nobody is left to read it.
        if let keeper, keeper.isForsaken.read({ $0 }) { removeFile(directory.log(of: name)) }
        return code
    }

    /// Ends QEMU when its receiver wants it, or is gone for too long.
    private func keep(_ process: Int32, _ window: Nanoseconds) throws(TurntableError) -> MachineKeeper {
        let started = ProcessTable.startTime(of: process)
        let keeper = try MachineKeeper(directory.leaseSocket(of: name), window: window)
        _ = WorkerThread("keeper") { [self] in
            guard keeper.serve(progress: progress) else { return }
            for number in [SIGTERM, SIGKILL] {
                guard ProcessTable.startTime(of: process) == started else { return }
                Signals.send(number, to: process)
                Clock.sleep(.seconds(2))
            }
        }
        return keeper
    }

    /// How far the machine has come. Asked when it has no receiver, so that its monitor is free.
    private func progress() -> MachineKeeper.Progress {
        if let record = try? directory.read(name), !record.isIncoming { return .settled }
        // Whose state cannot be told is not ended. One whose QEMU is gone has ended already.
        guard let monitor = try? QMP(path: directory.monitor(of: name)), let stage = try? IncomingStage.afterLoading(monitor) else {
            return .complete
        }
        return stage == .loaded ? .complete : .incomplete
    }

    /// Owns one file; arrays hold no owners themselves.
    private final class OwnedFile {
        let file: MemoryFile
        init(_ file: consuming MemoryFile) { self.file = file }
    }

    private func awaitMonitor(_ child: borrowing ChildProcess) throws(TurntableError) {
        let deadline = Clock.now + Limits.hypervisorTime
        while true {
            if let code = child.exitCode() {
                throw TurntableError(
                    .hypervisor, "starting \(name)", "\(commandLine.arguments[0]) ended with code \(code)",
                    remedy: "its own message is above; try the same command without turntable")
            }
            if (try? QMP(path: directory.monitor(of: name))) != nil { return }
            guard Clock.now < deadline else {
                throw TurntableError(.hypervisor, "starting \(name)", "QEMU's monitor did not answer within \(Limits.hypervisorTime)")
            }
            Clock.sleep(.milliseconds(5))
        }
    }

    /// Reads what the preload said: every memory file must be mapped and registered.
    private func checkReport(_ report: borrowing Descriptor) throws(TurntableError) {
        var text = ""
        while try Socket.waitReadable(report, within: .zero) {
            text += String(decoding: try Socket.read(report, atMost: 64 << 10, what: "reading the preload's report"), as: UTF8.self)
        }
        var registered: Set<String> = []
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: " ").map(String.init)
            if fields.first == "ok", fields.count == 4 { registered.insert(fields[3]) }
            if fields.first == "error", fields.count == 4 {
                throw TurntableError(
                    .unsupported, "registering region \(fields[3]) for the dirty log (\(fields[2]))", errorText(Int32(fields[1]) ?? 0))
            }
        }
        for region in commandLine.regions where !registered.contains(region.name) {
            throw TurntableError(
                .unsupported, "registering region \(region.name) for the dirty log", "the preload \(preload) did not see QEMU map it",
                remedy: "a statically linked or set-uid emulator cannot be preloaded")
        }
    }
}

/// Refuses before anything is made when the host cannot hold that much more.
func checkAvailableMemory(_ needed: ByteCount) throws(TurntableError) {
    let available = availableMemory()
    guard available == ByteCount(0) || needed <= available else {
        throw TurntableError(
            .unsupported, "making a machine with \(needed) of memory", "this host has \(available) available",
            remedy: "free memory here, or choose another host")
    }
}

internal import FoundationEssentials
public import TurntableCore
internal import TurntableLinux

/// What one host knows of its machines: a directory for each, made by `turntable run` and removed by it.
///
///   <run directory>/<machine>/machine.json   MachineRecord
///   <run directory>/<machine>/qmp.sock       QEMU's monitor, ours alone
///   <run directory>/<machine>/migration.sock `turntable status` and `cancel`, while a migration runs
///   <run directory>/<machine>/session        what a migration from here must not forget: from its begin to its end, whatever becomes of
///                                            the sender's process (SharedMemory, made and read by the engine)
///   <run directory>/<machine>/devices        device state, saved by QEMU for the hand-off: as long as the session
///   <run directory>/<machine>/exports.sock   QEMU's NBD server, while its disks are read: see QEMUExports
///   <run directory>/<machine>/arrival-<ID>   the same as `session`, for the migration of that name to here
///   <run directory>/<machine>/lease.sock     where the receiver of an incoming machine holds on to it: see MachineLease
///   <run directory>/<machine>/qmp.sock.state device state, while it is loaded
///   <run directory>/<machine>.log            output of a machine that the receiver started
///
/// The machine's directory is locked (flock) by the one process that moves the machine: see MachineLock.
public struct RunDirectory: Sendable {
    public let path: String

    public init(_ path: String) { self.path = path }

    public func directory(of machine: String) -> String { "\(path)/\(machine)" }
    public func monitor(of machine: String) -> String { "\(directory(of: machine))/qmp.sock" }
    func leaseSocket(of machine: String) -> String { "\(directory(of: machine))/lease.sock" }
    func session(of machine: String) -> String { "\(directory(of: machine))/session" }
    func diskSession(of machine: String) -> String { "\(directory(of: machine))/disk-session" }
    func devices(of machine: String) -> String { "\(directory(of: machine))/devices" }
    func exports(of machine: String) -> String { "\(directory(of: machine))/exports.sock" }
    func arrival(of machine: String, _ session: String) -> String { "\(directory(of: machine))/arrival-\(session)" }
    public func migrationSocket(of machine: String) -> String { "\(directory(of: machine))/migration.sock" }
    public func log(of machine: String) -> String { "\(path)/\(machine).log" }
    private func record(of machine: String) -> String { "\(directory(of: machine))/machine.json" }

    /// Makes a machine's directory. Fails if a living machine has the name; takes over what a dead one left.
    public func claim(_ machine: String) throws(TurntableError) {
        if let old = try? read(machine), old.isAlive {
            throw TurntableError(
                .refused, "starting \(machine)", "a machine of that name runs here, process \(old.process)",
                remedy: "choose another with --name")
        }
        remove(machine)
        do {
            try FileManager.default.createDirectory(
                atPath: directory(of: machine), withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw TurntableError(
                .unsupported, "making \(directory(of: machine))", "\(error)", remedy: "run as root, or choose a directory with --run-dir")
        }
    }

    public func remove(_ machine: String) {
        // Again, because a `send` that ends now takes its sockets away at the same time.
        for _ in 0..<8 {
            try? FileManager.default.removeItem(atPath: directory(of: machine))
            if !FileManager.default.fileExists(atPath: directory(of: machine)) { return }
        }
    }

    public func write(_ record: MachineRecord) throws(TurntableError) {
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            // Atomic, so that a reader never sees half of it.
            try encoder.encode(record).write(to: URL(filePath: self.record(of: record.name)), options: .atomic)
        } catch {
            throw TurntableError(.unsupported, "writing \(self.record(of: record.name))", "\(error)")
        }
    }

    public func read(_ machine: String) throws(TurntableError) -> MachineRecord {
        do {
            return try JSONDecoder().decode(MachineRecord.self, from: Data(contentsOf: URL(filePath: record(of: machine))))
        } catch {
            let known = machines()
            throw TurntableError(
                .usage, "looking for the machine \(machine) in \(path)",
                known.isEmpty ? "there are none" : "there are \(known.joined(separator: ", "))",
                remedy: "start it with `turntable run`")
        }
    }

    /// The names of the machines here, alive or not.
    public func machines() -> [String] {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        return entries.filter { FileManager.default.fileExists(atPath: record(of: $0)) }.sorted()
    }

    /// Where a machine is that was started by `turntable run`, perhaps in another run directory, by its monitor.
    static func place(ofMonitor path: String) -> (directory: RunDirectory, machine: String)? {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count >= 3, parts.last == "qmp.sock" else { return nil }
        let directory = RunDirectory(parts.dropLast(2).joined(separator: "/"))
        let machine = String(parts[parts.count - 2])
        return (try? directory.read(machine)) == nil ? nil : (directory, machine)
    }

    /// A migration from here or to here whose process was killed.
    public func isInterrupted(_ record: MachineRecord) -> Bool {
        guard record.isAlive, !MachineLock.isTaken(directory(of: record.name)) else { return false }
        return record.session != nil || FileManager.default.fileExists(atPath: session(of: record.name))
    }

    /// The right to move a machine.
    func lock(_ machine: String, _ what: String) throws(TurntableError) -> MachineLock {
        if let lock = try MachineLock(directory(of: machine)) { return lock }
        throw TurntableError(
            .refused, "\(what) \(machine)", "it is being moved already", remedy: "see `turntable status \(machine)`")
    }

    /// Removes what is left of a machine whose end has begun, unless another one of its name is there by now.
    func removeRemains(of machine: String, _ process: Int32) {
        guard let record = try? read(machine), record.process == process else { return }
        let deadline = Clock.now + .seconds(2)
        while record.isAlive, Clock.now < deadline { Clock.sleep(.milliseconds(5)) }
        if !record.isAlive { remove(machine) }
    }

    /// The last lines that a machine the receiver started wrote.
    public func logTail(of machine: String) -> String {
        guard let data = try? Data(contentsOf: URL(filePath: log(of: machine))) else { return "" }
        return String(decoding: data.suffix(600), as: UTF8.self).split(separator: "\n").suffix(3).joined(separator: " / ")
    }
}

/// A machine that `turntable run` started.
public struct MachineRecord: Codable, Sendable {
    public var name: String
    /// QEMU's process.
    public var process: Int32
    /// When it started, in the kernel's ticks: tells it from a later process of the same number.
    public var processStart: UInt64
    /// The right to run that it holds, or is about to.
    public var epoch: Epoch
    /// The command line as the operator wrote it: what a target starts.
    public var arguments: [String]
    /// It waits for its memory and state.
    public var isIncoming: Bool
    /// The migration that it waits for, when it has been prepared for it: 32 hexadecimal digits.
    public var session: String?

    public init(name: String, process: Int32, epoch: Epoch, arguments: [String], isIncoming: Bool) {
        self.name = name
        self.process = process
        processStart = ProcessTable.startTime(of: process) ?? 0
        self.epoch = epoch
        self.arguments = arguments
        self.isIncoming = isIncoming
    }

    public var isAlive: Bool { ProcessTable.startTime(of: process) == processStart }
}

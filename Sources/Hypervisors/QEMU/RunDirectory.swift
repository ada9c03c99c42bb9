internal import FoundationEssentials
public import TurntableCore
internal import TurntableLinux

/// What one host knows of its machines: a directory for each, made by `turntable run` and removed by it.
///
///   <run directory>/<machine>/machine.json   MachineRecord
///   <run directory>/<machine>/qmp.sock       QEMU's monitor, ours alone
///   <run directory>/<machine>/state.sock     device state, while it is saved or loaded
///   <run directory>/<machine>/migration.sock `turntable status` and `cancel`, while a migration runs
///   <run directory>/<machine>.log            output of a machine that the receiver started
public struct RunDirectory: Sendable {
    public let path: String

    public init(_ path: String) { self.path = path }

    public func directory(of machine: String) -> String { "\(path)/\(machine)" }
    public func monitor(of machine: String) -> String { "\(directory(of: machine))/qmp.sock" }
    public func stateSocket(of machine: String) -> String { "\(directory(of: machine))/state.sock" }
    public func migrationSocket(of machine: String) -> String { "\(directory(of: machine))/migration.sock" }
    public func session(of machine: String) -> String { "\(directory(of: machine))/session" }
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

internal import Foundation
internal import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

@testable import Hypervisors

/// Real machines in a run directory of their own.
final class MachineStand {
    static let memoryBytes = 16 << 20
    private static let command = [
        "qemu-system-x86_64", "-accel", "tcg", "-m", "16", "-nodefaults", "-display", "none",
    ]
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .path
    /// As these tests were built.
    private static let turntable = Bundle.main.bundleURL.appending(path: "turntable").path
    private static let preload = "\(root)/.build/release/libturntable-ram.so"

    static let isPossible =
        [turntable, preload, "/usr/bin/qemu-system-x86_64"].allSatisfy { FileManager.default.isReadableFile(atPath: $0) }
        && DirtyLogMethod.missingSupport(.pagemapScan) == nil

    let directory = RunDirectory(FileManager.default.temporaryDirectory.appending(path: "turntable-\(UUID().uuidString.prefix(8))").path)

    init() {
        setenv("TURNTABLE_RAM_LIBRARY", Self.preload, 1)
        try? FileManager.default.createDirectory(atPath: directory.path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: directory.path) }

    /// A machine that runs its firmware.
    func start(_ name: String, _ options: [String] = [], qemu: [String] = []) throws -> Process {
        let process = Process()
        process.executableURL = URL(filePath: Self.turntable)
        process.arguments = ["run", "--name", name, "--run-dir", directory.path] + options + ["--"] + Self.command + qemu
        process.standardError = FileHandle.nullDevice
        try process.run()
        let deadline = Clock.now + .seconds(20)
        while (try? directory.read(name)) == nil {
            guard process.isRunning, Clock.now < deadline else {
                throw TurntableError(.hypervisor, "starting \(name)", "it did not come up")
            }
            Clock.sleep(.milliseconds(10))
        }
        return process
    }

    func end(_ process: Process) {
        process.terminate()
        process.waitUntilExit()
    }

    func parent(of process: Int32) -> Int32? {
        let text = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
        return text?.split(separator: ")").last?.split(separator: " ").dropFirst().first.flatMap { Int32($0) }
    }

    func source(_ name: String, disks: DiskSelection = .none) throws(TurntableError) -> QEMUSourceMachine {
        try QEMUSourceMachine(name, in: directory, disks: disks)
    }

    func status(of machine: QEMUSourceMachine) throws(TurntableError) -> String? {
        try machine.monitor.execute("query-status")["status"]?.text
    }

    func host() -> QEMUHost { QEMUHost(.command(Self.command), directory: directory, disks: Self.noDisks, turntable: Self.turntable) }
    static let noDisks = TargetDisks { (place, _) throws(TurntableError) in
        throw TurntableError(.usage, "opening \(place.path)", "these tests have no disks")
    }

    func offer(_ name: String, epoch: UInt64 = 2) -> Offer {
        Offer(
            session: .random(), epoch: Epoch(epoch), machine: name, streams: 1,
            regions: [Offer.Region(name: QEMUCommandLine.mainMemoryName, bytes: UInt64(Self.memoryBytes))], populations: [],
            description: QEMUDescription(arguments: Self.command, isRunning: true).encoded())
    }

    func write(_ value: UInt64, to memory: SharedMemory) { memory.base.storeBytes(of: value, as: UInt64.self) }
    func word(of memory: SharedMemory) -> UInt64 { memory.base.load(as: UInt64.self) }

    /// Nothing of any machine is left.
    var isEmpty: Bool { ((try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []).isEmpty }

    func waitUntilEmpty(within limit: Nanoseconds) -> Bool {
        let deadline = Clock.now + limit
        while !isEmpty, Clock.now < deadline { Clock.sleep(.milliseconds(20)) }
        return isEmpty
    }
}

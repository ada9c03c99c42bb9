// The engine as a site's agent uses it: the program `turntable`, started and read. It moves, receives and answers; this only calls.
//
// A program that outlives the agent writes into a file whose name is chosen, and remembered, before the program is started. An
// agent that is started again finds the program by that file: /proc says who writes to it.

internal import Foundation
internal import TurntableCore
internal import TurntableLinux

struct TurntablePrograms: Sendable {
    /// The program's path.
    let path: String
    /// What it finds in its environment besides: where keys, machines and journals are.
    var environment: [String: String] = [:]

    /// Runs a command to its end; gives its exit code and what it printed.
    func run(_ arguments: [String]) async throws(TurntableError) -> (code: Int32, output: String) {
        try await Command.run([path] + arguments, environment: environment)
    }

    /// Starts a command that goes on, whatever becomes of this process.
    func start(_ arguments: [String], output: String) throws(TurntableError) -> RunningProgram {
        let file = try Descriptor.open(output, .create, what: "opening \(output)")
        let child = try ChildProcess([path] + arguments, environment: environment, output: file.rawValue)
        return RunningProgram(process: child.identifier)
    }

    /// A program that an agent started before this one.
    static func find(output: String) -> RunningProgram? { ProcessTable.process(writingTo: output).map { RunningProgram(process: $0) } }

    // MARK: - Questions

    private struct Status: Decodable {
        var machine: String
        var state: String
        var epoch: UInt64
        var nextEpoch: UInt64
        var memoryBytes: Int
        var processors: Int
    }

    func machines() async throws(TurntableError) -> [SiteMachine] {
        let (code, output) = try await run(["status", "--json"])
        guard code == 0 else { throw TurntableError(.hypervisor, "looking for machines", "turntable status ended with \(code): \(output.suffix(300))") }
        var machines: [SiteMachine] = []
        for line in output.split(separator: "\n") where line.hasPrefix("{") {
            let status = try JSON.decode(Status.self, Data(line.utf8), "the state of a machine")
            machines.append(
                SiteMachine(
                    name: status.machine, state: status.state, epoch: status.epoch, nextEpoch: status.nextEpoch,
                    memoryBytes: status.memoryBytes, processors: status.processors))
        }
        return machines
    }

    /// What each machine writes and uses of its memory, where that could be asked.
    func dirtyRates() async throws(TurntableError) -> DirtyRates {
        struct Rate: Decodable {
            var machine: String
            var dirtyBytesPerSecond: Double?
            var usedMemoryBytes: Int?
        }
        let (_, output) = try await run(["status", "--json", "--dirty-rate"])
        var rates = DirtyRates(bytesPerSecond: [:], usedMemoryBytes: [:])
        for line in output.split(separator: "\n") where line.hasPrefix("{") {
            let rate = try JSON.decode(Rate.self, Data(line.utf8), "what a machine writes")
            rates.bytesPerSecond[rate.machine] = rate.dirtyBytesPerSecond
            rates.usedMemoryBytes[rate.machine] = rate.usedMemoryBytes
        }
        return rates
    }

    /// The disks of each machine, where QEMU could say so now.
    func disks() async throws(TurntableError) -> [String: [MachineDisk]] {
        struct Machine: Decodable {
            var machine: String
            var disks: [MachineDisk]?
        }
        let (_, output) = try await run(["status", "--json", "--disks"])
        var disks: [String: [MachineDisk]] = [:]
        for line in output.split(separator: "\n") where line.hasPrefix("{") {
            let machine = try JSON.decode(Machine.self, Data(line.utf8), "the disks of a machine")
            disks[machine.machine] = machine.disks
        }
        return disks
    }

    private struct Resolved: Decodable {
        var state: String
        var epoch: UInt64
        var text: String
        /// What this host was in that migration.
        var role: String
    }

    enum Right: Sendable, Equatable {
        case source
        case target(epoch: UInt64)
        /// Nobody can say yet.
        case unknown(String)
    }

    /// Whose a machine is, after a `send` that did not say so.
    func right(to machine: String, targetHost: String) async throws(TurntableError) -> Right {
        let (code, output) = try await run(["resolve", machine, "--json", "--peer", targetHost])
        // It has no journal here: nothing was ever offered.
        if code == TurntableError.Kind.usage.exitCode { return .source }
        guard let line = output.split(separator: "\n").last(where: { $0.hasPrefix("{") }) else { return .unknown("turntable resolve ended with \(code)") }
        let resolved = try JSON.decode(Resolved.self, Data(line.utf8), "whose \(machine) is")
        // It came here, and nothing was offered since.
        if resolved.role == "target" { return .source }
        return switch resolved.state {
        case "COMMITTED": .target(epoch: resolved.epoch)
        case "UNKNOWN": .unknown(resolved.text)
        default: .source
        }
    }
}

/// A process that this agent, or an earlier one, started.
struct RunningProgram: Sendable {
    let process: Int32
    private let started: UInt64?

    init(process: Int32) {
        self.process = process
        started = ProcessTable.startTime(of: process)
    }

    var isAlive: Bool { started != nil && ProcessTable.startTime(of: process) == started }

    func interrupt() { if isAlive { Signals.send(SIGTERM, to: process) } }
    func kill() { if isAlive { Signals.send(SIGKILL, to: process) } }
    /// To be called when it has ended.
    func reap() { ChildProcess.reap(process) }
}

/// What a program has printed so far: events, as `turntable … --json` writes them.
struct ProgramOutput: Sendable {
    let path: String
    private var offset: UInt64 = 0
    private var rest = Data()
    private(set) var progress: MoveProgress?
    private(set) var listening: String?
    private(set) var report: MoveReport?
    private(set) var failure: TurntableError?
    /// So far, as it said last.
    private(set) var sent = SentBytes()

    init(path: String) { self.path = path }

    private struct Event: Decodable {
        var event: String
        var phase: String?
        var progress: Progress?
        var address: String?
        var report: Report?
        var sent: Sent?
        var kind: String?
        var what: String?
        var why: String?
        var remedy: String?
    }
    private struct Progress: Decodable {
        var round: Int
        var pagesLeft: Int
        var rateBitsPerSecond: Double
        var dirtyBytesPerSecond: Double
        var predictedBlackoutMilliseconds: Double
        var secondsLeft: Double
        /// Not said by a sender that an older program of this name began.
        var sent: Sent?
    }
    private struct Sent: Decodable {
        var bytesOnWire: Int
        var blocksSent: Int
        var bytes: SentBytes { SentBytes(bytesOnWire: bytesOnWire, diskBytes: blocksSent * pageBytes) }
    }
    private struct Report: Decodable {
        struct Blackout: Decodable { var totalMilliseconds: Double }
        var epoch: UInt64
        var totalSeconds: Double
        var memoryBytes: Int
        var bytesOnWire: Int
        var blocksSent: Int?
        var rounds: [Round]
        var blackout: Blackout
        struct Round: Decodable {}
    }

    /// Reads what is new.
    mutating func read() {
        guard let file = FileHandle(forReadingAtPath: path) else { return }
        defer { try? file.close() }
        guard (try? file.seek(toOffset: offset)) != nil, let data = try? file.readToEnd() else { return }
        offset += UInt64(data.count)
        rest += data
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            take(Data(rest[rest.startIndex..<end]))
            rest = Data(rest[rest.index(after: end)...])
        }
    }

    private mutating func take(_ line: Data) {
        guard line.first == UInt8(ascii: "{"), let event = try? JSON.decode(Event.self, line, "an event") else { return }
        switch event.event {
        case "phase": progress = MoveProgress(phase: event.phase ?? "", round: progress?.round)
        case "progress":
            guard let now = event.progress else { return }
            sent = now.sent?.bytes ?? sent
            progress = MoveProgress(
                phase: progress?.phase ?? "copying", round: now.round, pagesLeft: now.pagesLeft, rateBitsPerSecond: now.rateBitsPerSecond,
                dirtyBytesPerSecond: now.dirtyBytesPerSecond, predictedBlackoutMilliseconds: now.predictedBlackoutMilliseconds,
                secondsLeft: now.secondsLeft)
        case "sent": sent = event.sent?.bytes ?? sent
        case "interrupted": progress = MoveProgress(phase: "interrupted", round: progress?.round)
        case "listening": listening = event.address
        case "completed":
            report = event.report.map {
                MoveReport(
                    epoch: $0.epoch, totalSeconds: $0.totalSeconds, blackoutMilliseconds: $0.blackout.totalMilliseconds, memoryBytes: $0.memoryBytes,
                    bytesOnWire: $0.bytesOnWire, diskBytes: $0.blocksSent.map { $0 * pageBytes }, rounds: $0.rounds.count)
            }
            if let report { sent = SentBytes(bytesOnWire: report.bytesOnWire, diskBytes: report.diskBytes ?? 0) }
        case "failed":
            failure = TurntableError(
                event.kind.flatMap { TurntableError.Kind(rawValue: $0) } ?? .unsupported, event.what ?? "", event.why ?? "", remedy: event.remedy ?? "")
        default: break
        }
    }
}

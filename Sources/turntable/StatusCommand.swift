import ArgumentParser
import ControlShim
import Foundation
import Hypervisors
import MigrationEngine
import TurntableCore
import TurntableLinux

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the machines of this host and their migrations.",
        discussion: "EXAMPLES\n  turntable status\n  turntable status web --json\n  turntable status --dirty-rate")

    @Argument(help: "One machine. Default: all.") var machine: String?
    @Flag(help: "Print one JSON object a line.") var json = false
    @Flag(help: "Say how much of its memory each machine uses, and how much it writes, as QEMU estimates in a second; it cannot be moved meanwhile.")
    var dirtyRate = false
    @Flag(help: "With --json, say which disks each machine has, where QEMU can say so now: not while it is moved or measured.") var disks = false
    @OptionGroup var runDirectory: RunDirectoryOption
    @OptionGroup var stateDirectory: StateDirectoryOption

    func run() throws {
        try reportingErrors(json: json) {
            let names = machine.map { [$0] } ?? runDirectory.directory.machines()
            if names.isEmpty && !json { print("no machines in \(runDirectory.directory.path)") }
            // Before QEMU looks at samples of it: what it reads of a memory file is no hole any more.
            let used = dirtyRate ? names.map { try? usedMemory(of: runDirectory.directory.read($0)) } : names.map { _ in nil }
            let rates = dirtyRate ? measure(names) : [:]
            for (name, used) in zip(names, used) { try show(runDirectory.directory.read(name), rates[name], used) }
        }
    }

    private struct Disk: Encodable {
        var name: String
        var bytes: Int
    }

    /// All at once, since each takes a second. Nothing is said of those that cannot be measured now.
    private func measure(_ names: [String]) -> [String: ByteCount] {
        let rates = Monitor([String: ByteCount]())
        let directory = runDirectory.directory
        let threads = names.map { name in
            WorkerThread("tt-measure") {
                guard let rate = try? measureDirtyRate(of: name, in: directory, for: .seconds(1)) else { return }
                rates.update { $0[name] = rate }
            }
        }
        for thread in threads { thread.join() }
        return rates.read { $0 }
    }

    private func show(_ record: MachineRecord, _ rate: ByteCount?, _ used: ByteCount?) {
        let migration = try? MigrationDoor.ask("status", at: runDirectory.directory.migrationSocket(of: record.name))
        let state =
            if !record.isAlive { "dead" } else if migration != nil { "migrating" } else if runDirectory.directory.isInterrupted(record) {
                "interrupted"
            } else if record.isIncoming { "incoming" } else { "here" }
        if json {
            // Asked for each second by agents, also while a machine stands still: its journal is not to be waited for.
            let history = try? stateDirectory.directory.glance(at: record.name)
            let next = history?.nextOffer(at: record.epoch, isInterrupted: state == "interrupted") ?? record.epoch.next
            let command = try? QEMUCommandLine(record.arguments)
            var members: [String: EventValue] = [
                "machine": .text(record.name), "state": .text(state), "process": .number(Double(record.process)),
                "epoch": .number(Double(record.epoch.value)), "nextEpoch": .number(Double(next.value)), "migration": .text(migration ?? ""),
                "memoryBytes": .number(Double(command?.memory.value ?? 0)), "processors": .number(Double(command?.processors ?? 0)),
            ]
            if let rate { members["dirtyBytesPerSecond"] = .number(Double(rate.value)) }
            if let used { members["usedMemoryBytes"] = .number(Double(used.value)) }
            if disks, record.isAlive, let drives = try? Hypervisors.disks(of: record.name, in: runDirectory.directory) {
                members["disks"] = .object(drives.map { Disk(name: $0.name, bytes: $0.size.value) })
            }
            print(jsonLine(members))
        } else {
            let remedy =
                state != "interrupted"
                ? ""
                : record.isIncoming
                    ? "  its receiver is gone: start `turntable receive` again to go on" : "  its sender is gone: `turntable send` goes on"
            let more = (rate.map { "  writes \($0)/s" } ?? "") + (migration.map { "  \($0)" } ?? remedy)
            print("\(record.name)  \(state)  process \(record.process)  epoch \(record.epoch.value)\(more)")
        }
    }
}

struct CancelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "Stop a migration before its hand-off; the machine runs on here.",
        discussion:
            "Ends with 0 if the migration was stopped, with 8 if the right to run was handed off already.\n\nEXAMPLES\n  turntable cancel web"
    )

    @Argument(help: "The machine.") var machine: String
    @OptionGroup var runDirectory: RunDirectoryOption

    func run() throws {
        try reportingErrors {
            _ = try runDirectory.directory.read(machine)
            let answer: String
            do { answer = try MigrationDoor.ask("cancel", at: runDirectory.directory.migrationSocket(of: machine)) } catch {
                throw TurntableError(.usage, "cancelling the migration of \(machine)", "it is not being moved from here")
            }
            guard answer == "cancelled" else {
                throw TurntableError(
                    .relinquished, "cancelling the migration of \(machine)", "the right to run was handed off already",
                    remedy: "look at the target")
            }
            print("\(machine): cancelled, it runs on here")
        }
    }
}

import ArgumentParser
import ControlShim
import Foundation
import Hypervisors
import MigrationEngine
import TurntableCore

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the machines of this host and their migrations.",
        discussion: "EXAMPLES\n  turntable status\n  turntable status web --json")

    @Argument(help: "One machine. Default: all.") var machine: String?
    @Flag(help: "Print one JSON object a line.") var json = false
    @OptionGroup var runDirectory: RunDirectoryOption
    @OptionGroup var stateDirectory: StateDirectoryOption

    func run() throws {
        try reportingErrors(json: json) {
            let names = machine.map { [$0] } ?? runDirectory.directory.machines()
            if names.isEmpty && !json { print("no machines in \(runDirectory.directory.path)") }
            for name in names { try show(runDirectory.directory.read(name)) }
        }
    }

    private func show(_ record: MachineRecord) throws(TurntableError) {
        let migration = try? MigrationDoor.ask("status", at: runDirectory.directory.migrationSocket(of: record.name))
        let state =
            if !record.isAlive { "dead" } else if migration != nil { "migrating" } else if runDirectory.directory.isInterrupted(record) {
                "interrupted"
            } else if record.isIncoming { "incoming" } else { "here" }
        if json {
            let history = try stateDirectory.directory.history(of: record.name)
            let next = history.nextOffer(at: record.epoch, isInterrupted: state == "interrupted")
            let command = try? QEMUCommandLine(record.arguments)
            print(
                jsonLine([
                    "machine": .text(record.name), "state": .text(state), "process": .number(Double(record.process)),
                    "epoch": .number(Double(record.epoch.value)), "nextEpoch": .number(Double(next.value)), "migration": .text(migration ?? ""),
                    "memoryBytes": .number(Double(command?.memory.value ?? 0)), "processors": .number(Double(command?.processors ?? 0)),
                ]))
        } else {
            let remedy =
                state != "interrupted"
                ? ""
                : record.isIncoming
                    ? "  its receiver is gone: start `turntable receive` again to go on" : "  its sender is gone: `turntable send` goes on"
            let more = migration.map { "  \($0)" } ?? remedy
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

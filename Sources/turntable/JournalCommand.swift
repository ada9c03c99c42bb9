import ArgumentParser
import Foundation
import MigrationEngine
import TurntableCore
import WireFormat

struct JournalCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "journal",
        abstract: "What this host remembers of the right to run its machines.",
        discussion: """
            Prints the hand-off journal, oldest record first, and who has the right to run now as far as this host can tell. \
            See docs/promise.md for what that means.

            EXAMPLES
              turntable journal            (the machines that have one)
              turntable journal web --json
            """)

    @Argument(help: "The machine. Default: a list of those that have a journal here.") var machine: String?
    @Flag(help: "Print one JSON object a line.") var json = false
    @OptionGroup var stateDirectory: StateDirectoryOption

    func run() throws {
        try reportingErrors(json: json) {
            let directory = stateDirectory.directory
            guard let machine else {
                for name in directory.machines() { print(json ? jsonLine(["machine": .text(name)]) : name) }
                return
            }
            let history = try directory.history(of: machine)
            guard !history.records.isEmpty else {
                throw TurntableError(
                    .usage, "reading the journal of \(machine)", "there is none in \(directory.path)",
                    remedy: "see `turntable journal` for those that are")
            }
            for record in history.records { print(json ? line(record) : text(record, history)) }
            if !json { print(standing(history)) }
        }
    }

    private func time(_ record: JournalRecord) -> String {
        Date(timeIntervalSince1970: Double(record.unixSeconds)).formatted(.iso8601)
    }

    private func line(_ record: JournalRecord) -> String {
        jsonLine([
            "role": .text("\(record.role)"), "kind": .text("\(record.kind)"), "epoch": .number(Double(record.epoch.value)),
            "session": .text("\(record.session)"), "peer": .text(record.peer), "time": .text(time(record)), "detail": .text(record.detail),
        ])
    }

    private func text(_ record: JournalRecord, _ history: HandOffHistory) -> String {
        let boot = record.boot == history.boot ? "" : ", on an earlier boot"
        let peer = record.peer.isEmpty ? "" : record.role == .source ? " to \(record.peer)" : " from \(record.peer)"
        let isFence = record.kind == .fenced || record.kind == .fencedSeen
        let detail = isFence ? ": \(record.statement)" : record.detail.isEmpty ? "" : ": \(record.detail)"
        return "\(time(record))  \(record.role)  \(isFence ? "FENCED" : "\(record.kind)".uppercased())  epoch \(record.epoch.value)\(peer)\(boot)\(detail)"
    }

    private func standing(_ history: HandOffHistory) -> String {
        let epoch = history.records.map(\.epoch).max() ?? Epoch(0)
        if history.records(of: .target, epoch).isEmpty {
            return "as the source of epoch \(epoch.value): \(history.source(epoch).rawValue)"
        }
        return "as the target of epoch \(epoch.value): \(history.target(epoch).rawValue)"
    }
}

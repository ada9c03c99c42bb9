import ArgumentParser
import Foundation
import Hypervisors
import MigrationEngine
import TurntableCore
import WireFormat

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Start a QEMU machine that can be moved.",
        discussion: """
            Starts any QEMU command line, unchanged but for its memory, which is put in files that Turntable can send from, and \
            for a monitor socket of Turntable's own. Stays in the foreground and ends with QEMU's exit code.

            EXAMPLES
              turntable run --name web -- qemu-system-x86_64 -m 2G -drive file=web.img,format=raw -nographic
              turntable run --incoming --name web -- qemu-system-x86_64 …   (waits for a machine; see receive --qmp)
            """)

    @Option(help: ArgumentHelp("What the machine is called here and at the target. Default: QEMU's -name, else vm-PID.", valueName: "name"))
    var name: String?
    @Flag(help: "Wait for a machine to be received instead of booting.")
    var incoming = false
    @Flag(help: "Start it from its disk though another host has taken it over, or may think that it has: you know that it runs nowhere.")
    var anew = false
    @Option(help: .hidden)
    var epoch: UInt64?
    @Option(name: .customLong("resume-window"), help: .hidden)
    var resumeWindow: TimeOption?
    @OptionGroup var runDirectory: RunDirectoryOption
    @OptionGroup var stateDirectory: StateDirectoryOption
    @Argument(parsing: .postTerminator, help: "QEMU and its arguments, after --.")
    var command: [String] = []

    func run() throws {
        try reportingErrors {
            let commandLine = try QEMUCommandLine(command)
            let name = name ?? commandLine.guestName ?? "vm-\(ProcessInfo.processInfo.processIdentifier)"
            let launcher = QEMULauncher(
                directory: runDirectory.directory, name: name, epoch: try epoch.map { Epoch($0) } ?? firstEpoch(of: name),
                isIncoming: incoming, commandLine: commandLine,
                preload: try preloadLibrary(), resumeWindow: resumeWindow?.value)
            let code = try launcher.run { () throws(TurntableError) in
                if !incoming { try remember(name, launcher.epoch) }
            } started: { record, dirtyLog in
                // In the log of a machine that the receiver started, only what went wrong is of interest.
                if resumeWindow != nil { return }
                // What every migration of it will cost is worth knowing before the first.
                let cost =
                    dirtyLog == .softDirty
                    ? "; its dirty log is soft-dirty, since this kernel has no PAGEMAP_SCAN: when it is moved it stands still for a moment in each round"
                    : ""
                FileHandle.standardError.write(Data("turntable: \(name) runs, process \(record.process)\(cost)\n".utf8))
            }
            if code != 0 { throw ExitCode(code) }
        }
    }

    /// A machine that starts takes an epoch that none of its name had here.
    private func firstEpoch(of name: String) throws(TurntableError) -> Epoch {
        let history = try stateDirectory.directory.history(of: name)
        if let elsewhere = history.elsewhere, !incoming, !anew || elsewhere.kind != .committed {
            let offer = history.records(of: .source, elsewhere.epoch).first { $0.kind == .offer } ?? elsewhere
            let when = Date(timeIntervalSince1970: Double(elsewhere.unixSeconds)).formatted(.iso8601)
            let isTaken = elsewhere.kind == .committed
            throw TurntableError(
                .refused, "starting \(name)",
                "the journal here says that \(offer.peer.isEmpty ? "another host" : offer.peer) \(isTaken ? "took it over" : "may have it") "
                    + "under epoch \(elsewhere.epoch.value) (\(when))",
                remedy: isTaken
                    ? "choose another --name, or add --anew if you know that it does not run there"
                    : "see `turntable resolve \(name)`, and `turntable fence` if that host is gone")
        }
        if let unconfirmed = history.unconfirmed, !incoming, !anew {
            throw TurntableError(
                .refused, "starting \(name)",
                "it was taken over here under epoch \(unconfirmed.epoch.value), and its source has not confirmed that: "
                    + "it may have been told that this host is off",
                remedy: "ask it: `turntable resolve \(name)` there; add --anew if that says COMMITTED")
        }
        return history.highestEpoch.next
    }

    /// A machine that has a journal, and so was offered once, is not started unless the journal will know.
    private func remember(_ name: String, _ epoch: Epoch) throws(TurntableError) {
        guard try !stateDirectory.directory.history(of: name).records.isEmpty else { return }
        try stateDirectory.journals().open(name).log(JournalRecord(role: .source, kind: .started, epoch: epoch, session: .none))
    }
}

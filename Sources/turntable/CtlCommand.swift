import ArgumentParser
import Foundation
import TurntableCore
import TurntableLinux

/// Asks an orchestrator. That program brings what HTTP needs, which moving machines does not: it is another one, beside this.
struct CtlCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ctl",
        abstract: "Ask an orchestrator to move machines, and how they stand.",
        discussion: "Becomes `turntable-orchestrator ctl`: see `turntable ctl --help`.\n\nEXAMPLES\n  turntable ctl migrate web sandiego --wait",
        helpNames: [])

    @Argument(parsing: .captureForPassthrough, help: "What to ask.") var words: [String] = []

    func run() throws {
        try reportingErrors {
            try becomeOrchestrator(["ctl"] + words)
        }
    }
}

/// The program beside this one takes over.
func becomeOrchestrator(_ words: [String]) throws(TurntableError) {
    let program = URL(filePath: ownExecutable()).deletingLastPathComponent().appending(path: "turntable-orchestrator").path
    try becomeProgram([program] + words)
}

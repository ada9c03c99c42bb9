import ArgumentParser
import ControlShim
import Hypervisors
import TurntableCore

struct RateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rate", abstract: "Give a running migration another rate, such as that of its lightpath now.",
        discussion: "Its streams follow at once; what they had stated at the beginning counts no more.\n\nEXAMPLES\n  turntable rate web 400mbit")

    @Argument(help: "The machine.") var machine: String
    @Argument(help: "The bandwidth to use.") var rate: RateOption
    @OptionGroup var runDirectory: RunDirectoryOption

    func run() throws {
        try reportingErrors {
            _ = try runDirectory.directory.read(machine)
            let what = "pacing the migration of \(machine)"
            let answer: String
            let path = runDirectory.directory.migrationSocket(of: machine)
            do { answer = try MigrationDoor.ask("rate \(rate.value.bitsPerSecond)", at: path) } catch {
                throw TurntableError(.usage, what, "it is not being moved from here")
            }
            guard answer == "paced" else { throw TurntableError(.refused, what, answer) }
            print("\(machine): \(rate.value) from now on")
        }
    }
}

import ArgumentParser
import Endpoint
import Hypervisors
import TurntableCore

struct AnnounceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "announce",
        abstract: "Say that a machine runs here, to the gateways that keep its address.",
        discussion: """
            `turntable receive --announce` does so by itself. This is for a machine that came to run here otherwise: started from its disk after \
            a fence, or whose receiver was killed at that moment.

            EXAMPLES
              turntable announce web --announce 127.0.0.1 --announce anchor.example --announce-site 1 --announce-key /etc/turntable/web.key
            """)

    @Argument(help: "The machine.") var machine: String
    @OptionGroup var announcement: AnnouncementOptions
    @OptionGroup var runDirectory: RunDirectoryOption

    func run() throws {
        try reportingErrors {
            guard let (announcer, site) = try announcement.announcer() else {
                throw TurntableError(.usage, "announcing \(machine)", "nobody is to be told", remedy: "name gateways with --announce")
            }
            let record = try runDirectory.directory.read(machine)
            guard record.isAlive, !record.isIncoming else {
                throw TurntableError(.refused, "announcing \(machine)", "it does not run here", remedy: "see `turntable status \(machine)`")
            }
            try announcer.prepare(machine, record.epoch, at: site)()
            announcer.finish()
        }
    }
}

import ArgumentParser
import Foundation
import TurntableCore

@main
struct Turntable: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "turntable",
        abstract: "Moves running virtual machines between hosts.",
        discussion: """
            A machine is started with `turntable run`, so that its memory lies where Turntable can send it from. \
            On the host that it shall move to, `turntable receive` waits. `turntable send` moves it, while it runs.

            EXAMPLES
              On the target:   turntable receive --listen 10.5.0.2 --allow-path /srv/images
              On the source:   turntable run --name web -- qemu-system-x86_64 -m 2G -drive file=/srv/images/web.img,format=raw
                               turntable send web target.example:4906 --downtime 300ms --rate 1gbit
              Meanwhile:       turntable status web
                               turntable cancel web

            EXIT CODES
              0 done   2 usage   3 refused by a budget, a policy or the peer   4 the line or the peer failed
              5 the peer broke the protocol   6 the hypervisor failed   7 this host lacks something
              8 the right to run was given away and no answer came: see `turntable resolve` before resuming here
              9 the machine runs at the target, and its memory is not what it was here
              130 cancelled
            With 3, 4, 5 and 130 the machine runs on where it was.
            """,
        version: "0.1.0",
        subcommands: [
            RunCommand.self, ReceiveCommand.self, SendCommand.self, StatusCommand.self, CancelCommand.self, RateCommand.self, JournalCommand.self,
            ResolveCommand.self, FenceCommand.self, DiskCommand.self, GarbageCommand.self, KeysCommand.self, TokenCommand.self, DoctorCommand.self,
            DemoCommand.self, CtlCommand.self, AnnounceCommand.self, LinkCommand.self, XLConnectCommand.self, XLReceiveCommand.self,
            XenCommand.self,
        ])

    /// As the argument parser's own, but a wrong command line ends with the code that the help names.
    static func main() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
            FileHandle.standardError.write(Data((fullMessage(for: error) + "\n").utf8))
            Foundation.exit(TurntableError.Kind.usage.exitCode)
        }
    }
}

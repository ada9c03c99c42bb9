import ArgumentParser
import Foundation
import TurntableCore
import TurntableLinux

struct DemoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo", abstract: "Move a Linux machine there and back over an emulated lightpath.",
        discussion: """
            Runs perf/demo of the source tree: two hosts in network namespaces, a 1 Gb/s line of 175 ms and MTU 8174 between \
            them, and a Debian machine that works while it moves. Needs root. `make demo` builds what it needs first.

            EXAMPLES
              turntable demo
              turntable demo -- --dirty 0 --downtime 200ms
            """)

    @Option(help: ArgumentHelp("The source tree.", valueName: "directory")) var tree = "."
    @Argument(parsing: .postTerminator, help: "Options for perf/demo, after --.") var options: [String] = []

    func run() throws {
        try reportingErrors {
            let script = "\(tree)/perf/demo"
            guard FileManager.default.isExecutableFile(atPath: script) else {
                throw TurntableError(
                    .usage, "looking for \(script)", "it is not there", remedy: "run this in the source tree, or name it with --tree")
            }
            let child = try ChildProcess([script] + options, environment: ["TURNTABLE": ownExecutable()])
            let process = child.identifier
            Signals.onInterrupt { number in if number != 2 { Signals.send(number, to: process) } }
            let code = child.wait()
            if code != 0 { throw ExitCode(code) }
        }
    }
}

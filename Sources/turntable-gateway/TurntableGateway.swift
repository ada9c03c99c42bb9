import ArgumentParser
import Endpoint
import Foundation
import Protection
import TurntableCore
import TurntableLinux

@main
struct TurntableGateway: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "turntable-gateway",
        abstract: "Keeps machines' addresses where they are while the machines move.",
        discussion: """
            One `run` at the anchor, where the addresses belong, and one at each site. The host that takes a machine over says so in one \
            datagram (`turntable receive --announce`), and the machine's traffic follows it. See docs/endpoint.md.

            EXAMPLES
              turntable-gateway key /etc/turntable/web.key
              turntable-gateway run /etc/turntable/gateway.json
              turntable-gateway status
            """,
        version: "0.1.0", subcommands: [RunCommand.self, KeyCommand.self, StatusCommand.self])

    /// As the argument parser's own, but a wrong command line ends with the code that every command of Turntable uses for it.
    static func main() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
            say(fullMessage(for: error))
            Foundation.exit(TurntableError.Kind.usage.exitCode)
        }
    }

    /// Runs a command's work and turns its error into one line and an exit code.
    static func reportingErrors(_ body: () throws -> Void) throws {
        do { try body() } catch let error as TurntableError {
            say("turntable: \(error)")
            throw ExitCode(error.kind.exitCode)
        }
    }

    static func say(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }
    /// At once, also into a file or pipe.
    static func write(_ text: String) { FileHandle.standardOutput.write(Data((text + "\n").utf8)) }
}

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Serve the endpoints of a description, until it is ended.",
        discussion: """
            Routes and table entries stay when this ends; what goes through its own tunnel, or is translated, stops until it is back. Where \
            machines are is kept in the description's state directory.

            EXAMPLES
              turntable-gateway run /etc/turntable/gateway.json
            """)

    @Argument(help: ArgumentHelp("The description, in JSON.", valueName: "file")) var description: String
    @Flag(help: "Print one JSON object a line.") var json = false

    func run() throws {
        try TurntableGateway.reportingErrors {
            let gateway = try Gateway(GatewayDescription(file: description)) { [json] event in
                switch event {
                case .failed(let error): TurntableGateway.say("turntable: \(error)")
                case .flipped(let machine, let from, let to, let epoch, let latency):
                    let event = Flipped(
                        machine: machine, from: from, to: to, epoch: epoch.value, microseconds: Double(latency.value) / 1000)
                    TurntableGateway.write(
                        json ? event.line : "\(machine) is at \(to), no longer at \(from) (epoch \(epoch.value)): turned in \(latency)")
                }
            }
            Signals.onInterrupt { _ in
                do throws(TurntableError) { try gateway.close() } catch {
                    TurntableGateway.say("turntable: \(error)")
                    Foundation.exit(error.kind.exitCode)
                }
                Foundation.exit(0)
            }
            TurntableGateway.write(json ? #"{"event":"listening","port":\#(gateway.port)}"# : "listening on port \(gateway.port)")
            do { try gateway.serve() } catch {
                try gateway.close()
                throw error
            }
        }
    }
}

/// The event of a flip, as JSON.
private struct Flipped: Encodable {
    var event = "flipped"
    var machine: String
    var from: String
    var to: String
    var epoch: UInt64
    var microseconds: Double

    var line: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        guard let text = try? encoder.encode(self) else { preconditionFailure("an event is JSON") }
        return String(decoding: text, as: UTF8.self)
    }
}

struct KeyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key", abstract: "Make the key of one machine's endpoint.",
        discussion: "The anchor, each site's gateway and each host that may take the machine get a copy, over a way that nobody else can read.")

    @Argument(help: ArgumentHelp("Where to put it; it must not be there yet.", valueName: "file")) var path: String

    func run() throws {
        try TurntableGateway.reportingErrors { try EndpointKey.random().write(to: path) }
    }
}

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show where machines are, and what announcements did, as a JSON object.")

    @Option(name: .customLong("state-dir"), help: ArgumentHelp("As in the description.", valueName: "directory"))
    var state = "/var/lib/turntable/gateway"

    func run() throws {
        try TurntableGateway.reportingErrors { print(try Gateway.status(stateDirectory: state)) }
    }
}

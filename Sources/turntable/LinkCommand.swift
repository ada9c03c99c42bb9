import ArgumentParser
import Capability
import Foundation
import LinkElement
import Protection
import TurntableCore
import TurntableLinux

struct LinkCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "link",
        abstract: "Forward migrations over a line: those that show a token for it.",
        discussion: """
            A link element stands on the way between two sites, where a line begins. It lets a connection through that shows a token of a trusted \
            domain, checks the mark of each frame, and counts what passes against the token's bytes and window. What frames carry it does not \
            read, and could not: it is sealed between source and target. See docs/tokens.md.

            EXAMPLES
              turntable keys link --in /etc/turntable
              turntable link west target.example --trust-domain home=/etc/turntable/home.pem
              turntable link west next-link.example:4913 target.example --window 64M --trust-domain home=/etc/turntable/home.pem
              turntable send web target.example --token web.token --via link.example=link.pem                      (at the source)
            """)

    @Argument(help: ArgumentHelp("The line, as tokens name it as their path.", valueName: "name")) var line: String
    @Argument(
        help: ArgumentHelp(
            "Where connections may go on to, as sources name it: targets, and other elements. Without a port, any of that host.", valueName: "host[:port]"))
    var next: [String]
    @Option(help: ArgumentHelp("Where to listen.", valueName: "host:port")) var listen = "0.0.0.0:\(defaultLinkPort)"
    @Option(help: ArgumentHelp("This element's key, as `turntable keys link` makes it.", valueName: "file")) var key = "/etc/turntable/\(LinkKey.keyFile)"
    @Option(
        name: .customLong("trust-domain"),
        help: ArgumentHelp("A domain whose tokens count, and the file with its public key; repeatable.", valueName: "name=file")) var domains: [String] = []
    @Option(
        help: ArgumentHelp("What may wait here: at least the line's rate times the round trip to the source.", valueName: "size"))
    var window = ByteCountOption(.mebi(8))
    @Flag(help: "Print one JSON object a line.") var json = false
    @OptionGroup var state: StateDirectoryOption

    func run() throws {
        try reportingErrors(json: json) {
            guard !domains.isEmpty else {
                throw TurntableError(.usage, "the line \(line)", "no domain is trusted, so nobody could pass", remedy: "name one with --trust-domain")
            }
            let next = try next.map { (text) throws(TurntableError) in
                guard let hop = NextHop(parsing: text) else { throw TurntableError(.usage, "the line \(line)", "\(text) is no host or host:port") }
                return hop
            }
            guard let listen = Address(parsing: listen, defaultPort: defaultLinkPort) else {
                throw TurntableError(.usage, "--listen \(self.listen)", "it is no host:port")
            }
            guard (Self.windows).contains(window.value) else {
                throw TurntableError(
                    .usage, "--window \(window.value)", "it must be \(Self.windows.lowerBound) to \(Self.windows.upperBound)")
            }
            var description = LinkElement.Description(
                line: line, key: try LinkKey(file: key), domains: try TrustedDomains(options: domains), next: next)
            description.window = window.value
            let element = try LinkElement(
                description, listening: listen, ledger: TokenLedger(directory: state.tokenDirectory), now: { Int(Date.now.timeIntervalSince1970) }
            ) { [json] in Self.show($0, json: json) }
            Signals.onInterrupt { _ in element.end() }
            Self.say(["event": .text("listening"), "port": .number(Double(element.port))], json: json, "listening on port \(element.port)")
            try element.serve()
        }
    }

    private static let windows = ByteCount.kibi(64)...ByteCount.mebi(512)

    private static func show(_ event: LinkEvent, json: Bool) {
        switch event {
        case .passed(let peer, let token, let stream):
            say(
                ["event": .text("passed"), "peer": .text(peer), "token": .text(token), "stream": .text(stream)], json: json,
                "\(peer): \(stream) passes, \(token)")
        case .ended(let peer, let token, let stream, let bytes):
            say(
                [
                    "event": .text("ended"), "peer": .text(peer), "token": .text(token), "stream": .text(stream), "bytes": .number(Double(bytes.value)),
                ], json: json, "\(peer): \(stream) ended after \(bytes), \(token)")
        case .refused(let peer, let error):
            say(["event": .text("refused"), "peer": .text(peer), "why": .text("\(error)")], json: json, "refused \(peer): \(error)")
        }
    }

    private static func say(_ members: [String: EventValue], json: Bool, _ text: String) {
        FileHandle.standardOutput.write(Data(((json ? jsonLine(members) : text) + "\n").utf8))
    }
}

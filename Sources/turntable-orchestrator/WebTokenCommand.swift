import ArgumentParser
import Orchestration
import Protection
import TurntableCore

/// Also `turntable token web`.
struct WebTokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "web-token", abstract: "Issue a token for a Web client, which has no certificate.",
        discussion: """
            Prints a JSON Web Token, for `Authorization: Bearer …` at an orchestrator's --web. Whoever has it is the client until it ends.

            EXAMPLES
              turntable token web --domain home --domain-key ./home/domain.key --client dashboard.example --valid 1h
            """)
    @Option(help: ArgumentHelp("The domain's name, as its orchestrators have it.", valueName: "name")) var domain: String
    @Option(help: ArgumentHelp("The domain's key, as `turntable keys domain` makes it.", valueName: "file")) var domainKey: String
    @Option(help: ArgumentHelp("Whom policies and --operator mean by it.", valueName: "name")) var client: String
    @Option(help: ArgumentHelp("How long it is valid, at most 24h.", valueName: "time")) var valid: String
    @Option(help: ArgumentHelp("What may be asked with it: read, or move, which includes it.", valueName: "read|move")) var scope = "read"

    func run() async throws {
        try await reportingErrors {
            guard let valid = Nanoseconds(parsing: valid) else { throw TurntableError(.usage, "--valid \(valid)", "it is no time such as 1h") }
            guard let scope = WebScope(rawValue: scope) else { throw TurntableError(.usage, "--scope \(scope)", "it is neither read nor move") }
            say(try await WebTokens.issue(domain: domain, client: client, scope: scope, valid: valid, signedBy: try DomainKey.read(domainKey)))
        }
    }
}

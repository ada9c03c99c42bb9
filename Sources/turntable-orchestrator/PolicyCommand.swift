import ArgumentParser
import Orchestration
import TurntableCore

struct PolicyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy", abstract: "Ask what the domain's policy says.", subcommands: [PolicyQuestion.self, PolicyInForce.self, PolicyOrder.self])
}

struct PolicyInForce: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "Which policy is in force: its digest, and when it was read.")
    @OptionGroup var asking: AskingOptions
    func run() async throws { try await asking.with { say(asking.json, try await $0.get("/v1/policy")) } }
}

struct PolicyOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reload", abstract: "Have the orchestrator that answers read its policy again, as SIGHUP does; one with an error changes nothing.")
    @OptionGroup var asking: AskingOptions
    func run() async throws { try await asking.with { say(asking.json, try await $0.post("/v1/policy/reload", nil)) } }
}

private func say(_ json: Bool, _ policy: Value) {
    if json { return say(policy.text) }
    say("sha256 \(policy["digest"].text), \(policy["rules"].text) rules, read \(policy["read"].text)")
    if let refused = policy["refused"].string { say("its file is not in force: \(refused)") }
}

struct PolicyQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Whether a machine may be moved, and by which rule; it is not moved.",
        discussion: "Ends with 0 if it may, with 3 if not.\n\nEXAMPLES\n  turntable ctl policy check web sandiego --as bob.example --at 2026-01-31T22:00:00Z")
    @Argument(help: "The machine.") var machine: String
    @Argument(help: "The site to move it to.") var site: String
    @Option(
        name: .customLong("as"),
        help: ArgumentHelp("Who would ask, as the certificate names them; operators may ask for others. Default: you.", valueName: "host"))
    var who: String?
    @Option(help: ArgumentHelp("When it would begin: 2026-01-31T22:00:00Z. Default: now.", valueName: "time")) var at: String?
    @OptionGroup var asking: AskingOptions

    func run() async throws {
        try await asking.with { control in
            var body: [String: Value] = ["vm": .string(machine), "target": .string(site)]
            if let who { body["who"] = .string(who) }
            if let at { body["at"] = .string(at) }
            let answer = try await control.post("/v1/policy/check", body)
            say(asking.json ? answer.text : "\(answer["isAllowed"] == .bool(true) ? "allowed" : "denied"): \(answer["why"].text)")
            if answer["isAllowed"] != .bool(true) { throw ExitCode(TurntableError.Kind.refused.exitCode) }
        }
    }
}

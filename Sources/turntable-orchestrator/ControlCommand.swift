import ArgumentParser
import Foundation
import Orchestration
import Protection
import TurntableCore
import TurntableLinux

struct ControlCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ctl",
        abstract: "Ask orchestrators: what is where, move it, follow it.",
        discussion: """
            Prints what the API says, as a table or with --json as it is. Orchestrators are asked in turn until one answers; asking for a \
            migration twice, after a lost answer, moves once.

            EXAMPLES
              turntable ctl site amsterdam https://alpha.example:4907
              turntable ctl line west amsterdam sandiego --rate 1gbit --rtt 175ms
              turntable ctl vms
              turntable ctl migrate web sandiego --downtime 200ms --wait
              turntable ctl show 7d3f… ; turntable ctl follow 7d3f… ; turntable ctl cancel 7d3f…
              turntable ctl evacuate amsterdam sandiego --deadline 2026-01-31T22:00:00Z --wait
            """,
        subcommands: [
            StatusQuestion.self, SitesQuestion.self, SiteOrder.self, LinesQuestion.self, LineOrder.self, VMsQuestion.self, MigrationsQuestion.self,
            MigrateOrder.self, ShowQuestion.self, FollowQuestion.self, CancelOrder.self, RateOrder.self, EvacuateOrder.self, EvacuationsQuestion.self,
            PolicyCommand.self, AccountingQuestion.self,
        ])
}

struct AskingOptions: ParsableArguments {
    @Option(
        name: .customLong("orchestrator"),
        help: ArgumentHelp("https://host:port; repeatable. Also $TURNTABLE_ORCHESTRATOR, with commas between.", valueName: "url"))
    var orchestrators: [String] = []
    @Flag(help: "Print JSON as it comes.") var json = false
    @OptionGroup var keys: KeysOption

    func control() throws(TurntableError) -> Control {
        let named = environmentValue("TURNTABLE_ORCHESTRATOR")?.split(separator: ",").map(String.init) ?? ["https://localhost:\(orchestratorPort)"]
        return try Control(orchestrators: orchestrators.isEmpty ? named : orchestrators, identity: keys.identity())
    }

    /// Asks, prints, and lets go.
    func with(_ body: (Control) async throws -> Void) async throws {
        try await reportingErrors {
            let control = try control()
            do { try await body(control) } catch {
                await control.shutDown()
                throw error
            }
            await control.shutDown()
        }
    }

    /// A list as a table of some of its members, or as JSON.
    func list(_ path: String, _ columns: [(String, [String])]) async throws {
        try await with { control in
            var path: String? = path
            var rows = [columns.map(\.0)]
            while let now = path {
                let page = try await control.get(now)
                if json { say(page.text) }
                for item in page["items"].list { rows.append(columns.map { item[$0.1].text }) }
                path = page["next"].string
            }
            if !json { say(table(rows)) }
        }
    }
}

func say(_ text: String) { FileHandle.standardOutput.write(Data((text + "\n").utf8)) }

func table(_ rows: [[String]]) -> String {
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
        zip(row, widths).map { $0.padding(toLength: $1, withPad: " ", startingAt: 0) }.joined(separator: "  ").trimmingCharacters(in: .whitespaces)
    }.joined(separator: "\n")
}

struct StatusQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "status", abstract: "Which orchestrator answers, and which is the master.")
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        try await asking.with { control in
            let status = try await control.get("/v1/status")
            say(asking.json ? status.text : "\(status["name"].text) of \(status["domain"].text); master: \(status["master"].text)")
        }
    }
}

struct SitesQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "sites", abstract: "Sites, and what is free there.")
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        try await asking.list(
            "/v1/sites",
            [
                ("SITE", ["name"]), ("AGENT", ["agent"]), ("REACHABLE", ["isReachable"]), ("MEMORY FREE", ["state", "memoryFreeBytes"]),
                ("PROCESSORS FREE", ["state", "processorsFree"]), ("TOKENS OF", ["state", "trusts"]),
            ])
    }
}

struct SiteOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "site", abstract: "Describe a site, or remove it.")
    @Argument(help: "Its name.") var name: String
    @Argument(help: ArgumentHelp("Where its agent answers. Default: it is removed.", valueName: "https://host:port")) var agent: String?
    @Option(help: ArgumentHelp("The orchestrator of the other domain that the site belongs to. Default: it is of this one.", valueName: "https://host:port"))
    var authority: String?
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        try await asking.with { control in
            guard let agent else { return try await control.delete("/v1/sites/\(name)") }
            var body: [String: Value] = ["agent": .string(agent)]
            if let authority { body["authority"] = .string(authority) }
            say(try await control.put("/v1/sites/\(name)", body).text)
        }
    }
}

struct LinesQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "lines", abstract: "Lines between sites, and what is free of them.")
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        try await asking.list(
            "/v1/lines",
            [
                ("LINE", ["name"]), ("BETWEEN", ["ends"]), ("BITS/S", ["bitsPerSecond"]), ("FREE", ["freeBitsPerSecond"]),
                ("ROUND TRIP MS", ["roundTripMilliseconds"]),
            ])
    }
}

struct LineOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "line", abstract: "Describe a line between two sites, or remove it.")
    @Argument(help: "Its name.") var name: String
    @Argument(help: "The two sites. Default: it is removed.") var ends: [String] = []
    @Option(help: ArgumentHelp("Its bandwidth.", valueName: "rate")) var rate: String?
    @Option(help: ArgumentHelp("Its round trip. Default: measured by each migration.", valueName: "time")) var rtt: String?
    @Option(help: ArgumentHelp("The controller that sets it up for each migration.", valueName: "https://host:port")) var controller: String?
    @Option(help: ArgumentHelp("The provider by NSI that sets it up for each migration.", valueName: "url")) var nsi: String?
    @Option(help: ArgumentHelp("That provider's name.", valueName: "urn")) var nsa: String?
    @Flag(help: "That provider changes no connections in use.") var noModify = false
    @Option(help: ArgumentHelp("How the two ends are called there, in the order of the sites. Default: as they are.", valueName: "name,name"))
    var at: String?
    @Option(
        help: ArgumentHelp(
            "A link element on the way to one of the sites, and the file with its public key; repeatable, in their order.",
            valueName: "site=host:port=file")) var via: [String] = []
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        try await asking.with { control in
            if ends.isEmpty { return try await control.delete("/v1/lines/\(name)") }
            guard let rate = rate.flatMap({ BitRate(parsing: $0) }) else { throw TurntableError(.usage, "--rate", "it is missing, or no rate") }
            var body: [String: Value] = ["ends": .list(ends.map { .string($0) }), "bitsPerSecond": .number(rate.bitsPerSecond)]
            if let rtt { body["roundTripMilliseconds"] = .number(try milliseconds(rtt, "--rtt")) }
            let names = at?.split(separator: ",").map(String.init) ?? ends
            if let url = controller ?? nsi {
                var provider: [String: Value] = [
                    "kind": .string(controller == nil ? "nsi" : "controller"), "url": .string(url), "ends": .list(names.map { .string($0) }),
                ]
                if let nsa { provider["nsa"] = .string(nsa) }
                if noModify { provider["modifies"] = .bool(false) }
                body["provider"] = .object(provider)
            }
            if !via.isEmpty { body["elements"] = .list(try via.map(element)) }
            say(try await control.put("/v1/lines/\(name)", body).text)
        }
    }

    private func element(_ text: String) throws(TurntableError) -> Value {
        let parts = text.split(separator: "=", maxSplits: 2).map(String.init)
        guard parts.count == 3 else { throw TurntableError(.usage, "--via \(text)", "it is no site=host:port=file") }
        return .object(["to": .string(parts[0]), "address": .string(parts[1]), "key": .string(try LinkPublicKey(file: parts[2]).pem)])
    }
}

struct VMsQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "vms", abstract: "Machines, and where they are.")
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        try await asking.list(
            "/v1/vms",
            [
                ("MACHINE", ["id"]), ("SITE", ["rightToRun", "site"]), ("EPOCH", ["rightToRun", "epoch"]), ("STATE", ["state"]),
                ("MEMORY", ["memoryBytes"]), ("MIGRATION", ["links", "migration"]),
            ])
    }
}

struct MigrationsQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "migrations", abstract: "Migrations: all, a machine's, or those under way.")
    @Option(help: ArgumentHelp("Those of one machine.", valueName: "machine")) var vm: String?
    @Flag(help: "Those that are not over.") var active = false
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        let query = vm.map { "?vm=\($0)" } ?? (active ? "?active=true" : "")
        try await asking.list(
            "/v1/migrations\(query)",
            [
                ("MIGRATION", ["id"]), ("MACHINE", ["vm"]), ("FROM", ["source"]), ("TO", ["target"]), ("STATE", ["state"]), ("STEP", ["step"]),
                ("STOOD STILL MS", ["report", "blackoutMilliseconds"]),
            ])
    }
}

struct MigrateOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate", abstract: "Move a machine to a site.",
        discussion: "With --wait it ends with 0 if the machine is moved, with 3 if it stays, with 130 if that was cancelled.")
    @Argument(help: "The machine.") var machine: String
    @Argument(help: "The site to move it to.") var site: String
    @Option(help: ArgumentHelp("The longest the machine may stand still.", valueName: "time")) var downtime: String?
    @Option(help: ArgumentHelp("What to reserve on the line. Default: all that is free.", valueName: "rate")) var rate: String?
    @Option(help: ArgumentHelp("Data streams.", valueName: "n")) var streams: Int?
    @Flag(help: "Its disks come along. Default: both sites have the same storage.") var disks = false
    @Option(help: ArgumentHelp("Only if this is its epoch.", valueName: "n")) var epoch: Int?
    @Option(help: ArgumentHelp("Not before: 2026-01-31T22:00:00Z.", valueName: "time")) var at: String?
    @Option(help: ArgumentHelp("The migration's name, a UUID: asked for twice it is one.", valueName: "id")) var id: String?
    @Flag(help: "Follow it to its end.") var wait = false
    @OptionGroup var asking: AskingOptions

    func run() async throws {
        try await asking.with { control in
            let id = id ?? UUID().uuidString.lowercased()
            var body: [String: Value] = ["id": .string(id), "vm": .string(machine), "target": .string(site)]
            if let downtime { body["downtimeMilliseconds"] = .number(try milliseconds(downtime, "--downtime")) }
            if let rate { body["bitsPerSecond"] = .number(try bitsPerSecond(rate)) }
            if let streams { body["streams"] = .number(Double(streams)) }
            if disks { body["disks"] = .bool(true) }
            if let epoch { body["epoch"] = .number(Double(epoch)) }
            if let at { body["startAt"] = .string(at) }
            let migration = try await control.post("/v1/migrations", body)
            if !wait { return say(asking.json ? migration.text : id) }
            try await follow(control, id, asking.json)
        }
    }
}

struct ShowQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One migration, and its history.")
    @Argument(help: "The migration.") var id: String
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        try await asking.with { control in
            let migration = try await control.get("/v1/migrations/\(id)")
            if asking.json { return say(migration.text) }
            say(line(migration))
            for event in migration["events"].list { say("  \(event["time"].text)  \(event["text"].text)") }
        }
    }
}

struct FollowQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "follow", abstract: "Say how a migration stands, until it is over.")
    @Argument(help: "The migration.") var id: String
    @OptionGroup var asking: AskingOptions
    func run() async throws { try await asking.with { try await follow($0, id, asking.json) } }
}

struct CancelOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "Stop a migration, if its machine is not handed off yet; follow it to see.")
    @Argument(help: "The migration.") var id: String
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        try await asking.with { control in
            let migration = try await control.post("/v1/migrations/\(id)/cancel", nil)
            say(asking.json ? migration.text : line(migration))
        }
    }
}

struct RateOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rate", abstract: "Give a migration that is under way another rate, if its line has that.")
    @Argument(help: "The migration.") var id: String
    @Argument(help: "What to have of the line.") var rate: String
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        try await asking.with { control in
            let migration = try await control.put("/v1/migrations/\(id)/rate", ["bitsPerSecond": .number(try bitsPerSecond(rate))])
            say(asking.json ? migration.text : line(migration))
        }
    }
}

/// What `--rate` says.
private func bitsPerSecond(_ text: String) throws(TurntableError) -> Double {
    guard let rate = BitRate(parsing: text) else { throw TurntableError(.usage, "--rate \(text)", "it is no rate such as 1gbit") }
    return rate.bitsPerSecond
}

func milliseconds(_ text: String, _ option: String) throws(TurntableError) -> Double {
    guard let time = Nanoseconds(parsing: text) else { throw TurntableError(.usage, "\(option) \(text)", "it is no time such as 200ms") }
    return time.milliseconds
}

private func line(_ migration: Value) -> String {
    var words = ["\(migration["id"].text)  \(migration["vm"].text) to \(migration["target"].text): \(migration["state"].text), \(migration["step"].text)"]
    let progress = migration["progress"]
    if let phase = progress["phase"].string { words.append(phase) }
    if let pages = progress["pagesLeft"].number { words.append("\(Int(pages)) pages left") }
    if let seconds = progress["secondsLeft"].number { words.append("\(Nanoseconds.seconds(seconds)) left in this round") }
    if let time = migration["report"]["blackoutMilliseconds"].number { words.append("stood still \(Nanoseconds.milliseconds(time))") }
    if let why = migration["problem"]["detail"].string { words.append("\(migration["problem"]["title"].text): \(why)") }
    return words.joined(separator: "  ")
}

/// Prints each change; what became of it is the exit code.
private func follow(_ control: Control, _ id: String, _ json: Bool) async throws {
    var last = ""
    let end = try await control.follow(id) { migration in
        let text = json ? migration.text : line(migration)
        if text != last { say(text) }
        last = text
    }
    switch end["state"].text {
    case "completed": return
    case "cancelled": throw ExitCode(TurntableError.Kind.cancelled.exitCode)
    default: throw ExitCode(TurntableError.Kind.refused.exitCode)
    }
}

import ArgumentParser
import Foundation
import Orchestration
import TurntableCore

struct EvacuateOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "evacuate", abstract: "Move all machines of a site to another, in an order that takes as little time as can be.",
        discussion: "With --wait it ends with 0 if all are moved, else with 3.")
    @Argument(help: "The site.") var site: String
    @Argument(help: "Where its machines go.") var target: String
    @Option(help: ArgumentHelp("Refuse it if it takes longer than until then: 2026-01-31T22:00:00Z.", valueName: "time")) var by: String?
    @Option(help: ArgumentHelp("Machines that move at once, at most. Default: 16.", valueName: "n")) var atOnce: Int?
    @Option(help: ArgumentHelp("The longest each may stand still.", valueName: "time")) var downtime: String?
    @Option(help: ArgumentHelp("What a machine writes in a second, if no migration of it has measured that. Default: 10 MB.", valueName: "size"))
    var writes: String?
    @Option(help: ArgumentHelp("The evacuation's name, a UUID: asked for twice it is one.", valueName: "id")) var id: String?
    @Flag(help: "Wait for its end.") var wait = false
    @OptionGroup var asking: AskingOptions

    func run() async throws {
        try await asking.with { control in
            let id = id ?? UUID().uuidString.lowercased()
            var body: [String: Value] = ["id": .string(id), "site": .string(site), "target": .string(target)]
            if let by { body["deadline"] = .string(by) }
            if let atOnce { body["concurrency"] = .number(Double(atOnce)) }
            if let downtime { body["downtimeMilliseconds"] = .number(try milliseconds(downtime, "--downtime")) }
            if let writes {
                guard let bytes = ByteCount(parsing: writes) else { throw TurntableError(.usage, "--writes \(writes)", "it is no size") }
                body["dirtyBytesPerSecond"] = .number(Double(bytes.value))
            }
            var evacuation = try await control.post("/v1/evacuations", body)
            while wait, evacuation["state"].text == "running" {
                try await Task.sleep(for: .seconds(1))
                evacuation = try await control.get("/v1/evacuations/\(id)")
            }
            say(asking.json ? evacuation.text : summary(evacuation))
            if wait, evacuation["state"].text != "completed" { throw ExitCode(TurntableError.Kind.refused.exitCode) }
        }
    }
}

struct EvacuationQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "evacuation", abstract: "An evacuation, and how each machine stands.")
    @Argument(help: "The evacuation.") var id: String
    @Flag(help: "Begin no more machines; those that move go on.") var cancel = false
    @OptionGroup var asking: AskingOptions

    func run() async throws {
        try await asking.with { control in
            let evacuation = try await cancel ? control.post("/v1/evacuations/\(id)/cancel", nil) : control.get("/v1/evacuations/\(id)")
            if asking.json { return say(evacuation.text) }
            say(summary(evacuation))
            let rows = evacuation["machines"].list.map { machine in
                ["vm", "state", "bitsPerSecond", "begins", "ends"].map { machine[$0].text } + [machine["problem"]["detail"].string ?? ""]
            }
            say(table([["MACHINE", "STATE", "BITS/S", "BEGINS", "ENDS", "WHY"]] + rows))
        }
    }
}

private func summary(_ evacuation: Value) -> String {
    "\(evacuation["id"].text)  \(evacuation["site"].text) to \(evacuation["target"].text): \(evacuation["state"].text), "
        + "\(evacuation["moved"].text) of \(evacuation["machines"].list.count) moved, planned until \(evacuation["planned"].text)"
}

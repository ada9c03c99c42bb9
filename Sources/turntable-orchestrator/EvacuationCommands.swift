import ArgumentParser
import Foundation
import Orchestration
import TurntableCore

struct EvacuateOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "evacuate", abstract: "Move all machines of a site, or some of them, to another.",
        discussion: """
            Their order and rates are planned from what each writes and what is free of the line. With --wait it ends with 0 if all are moved, with 3 \
            if some stay, with 130 if that was cancelled.

            EXAMPLES
              turntable ctl evacuate amsterdam sandiego --first db --wait
              turntable ctl evacuate amsterdam sandiego --at 2026-01-31T06:00:00Z      # and again for the next site at its hour: follow the moon
              turntable ctl evacuate --cancel 7d3f…
            """)
    @Argument(help: "The site to leave.") var source: String?
    @Argument(help: "The site to go to.") var target: String?
    @Option(name: .customLong("vm"), help: ArgumentHelp("One of those to move; repeatable. Default: all that are there.", valueName: "machine"))
    var vms: [String] = []
    @Option(help: ArgumentHelp("One that leaves before the others; repeatable, the first named first.", valueName: "machine")) var first: [String] = []
    @Option(help: ArgumentHelp("The longest each machine may stand still.", valueName: "time")) var downtime: String?
    @Flag(help: "Their disks come along. Default: both sites have the same storage.") var disks = false
    @Option(help: ArgumentHelp("Not before: 2026-01-31T22:00:00Z.", valueName: "time")) var at: String?
    @Option(help: ArgumentHelp("Begin nothing if the plan ends later.", valueName: "time")) var deadline: String?
    @Option(help: ArgumentHelp("The evacuation's name, a UUID: asked for twice it is one.", valueName: "id")) var id: String?
    @Option(help: ArgumentHelp("Stop one: machines that were not handed off yet stay.", valueName: "id")) var cancel: String?
    @Option(help: ArgumentHelp("Say how one stands.", valueName: "id")) var show: String?
    @Flag(help: "Follow it to its end.") var wait = false
    @OptionGroup var asking: AskingOptions

    func validate() throws {
        let isAsking = cancel != nil || show != nil
        guard isAsking == (source == nil), isAsking || target != nil else { throw ValidationError("name two sites, or --show or --cancel with an evacuation") }
    }

    func run() async throws {
        try await asking.with { control in
            if let cancel { return say(text(try await control.post("/v1/evacuations/\(cancel)/cancel", nil))) }
            if let show { return say(text(try await control.get("/v1/evacuations/\(show)"))) }
            let id = id ?? UUID().uuidString.lowercased()
            var body: [String: Value] = ["id": .string(id), "source": .string(source ?? ""), "target": .string(target ?? "")]
            if !vms.isEmpty { body["vms"] = .list(vms.map { .string($0) }) }
            if !first.isEmpty {
                let priorities = first.enumerated().map { ($1, Value.number(Double(first.count - $0))) }
                body["priorities"] = .object(Dictionary(priorities, uniquingKeysWith: { one, _ in one }))
            }
            if let downtime { body["downtimeMilliseconds"] = .number(try milliseconds(downtime, "--downtime")) }
            if disks { body["disks"] = .bool(true) }
            if let at { body["startAt"] = .string(at) }
            if let deadline { body["deadline"] = .string(deadline) }
            let begun = try await control.post("/v1/evacuations", body)
            guard wait else { return say(asking.json ? begun.text : id) }
            try await follow(control, id)
        }
    }

    private func follow(_ control: Control, _ id: String) async throws {
        var last = ""
        while true {
            let now = try await control.get("/v1/evacuations/\(id)")
            let text = text(now)
            if text != last { say(text) }
            last = text
            switch now["state"].text {
            case "completed": return
            case "cancelled": throw ExitCode(TurntableError.Kind.cancelled.exitCode)
            case "failed": throw ExitCode(TurntableError.Kind.refused.exitCode)
            default: try await Task.sleep(for: .seconds(1))
            }
        }
    }

    private func text(_ evacuation: Value) -> String {
        if asking.json { return evacuation.text }
        let machines = evacuation["machines"]
        var words = ["\(evacuation["id"].text)  \(evacuation["source"].text) to \(evacuation["target"].text): \(evacuation["state"].text)"]
        words.append(["moved", "moving", "waiting", "failed"].map { "\(machines[$0].text) \($0)" }.joined(separator: ", "))
        if let seconds = evacuation["plannedSeconds"].number { words.append("planned \(Nanoseconds.seconds(seconds))") }
        if let why = evacuation["problem"]["detail"].string { words.append("\(evacuation["problem"]["title"].text): \(why)") }
        var lines = [words.joined(separator: "  ")]
        if show != nil {
            for move in evacuation["moves"].list {
                let rate = move["bitsPerSecond"].number.map { "  \(BitRate(bitsPerSecond: $0))" } ?? ""
                let problem = move["problem"]["detail"].string.map { "  \($0)" } ?? ""
                lines.append("  \(move["vm"].text)  \(move["state"].text)\(rate)\(problem)")
            }
        }
        return lines.joined(separator: "\n")
    }
}

struct EvacuationsQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "evacuations", abstract: "Evacuations, and how far they are.")
    @OptionGroup var asking: AskingOptions
    func run() async throws {
        try await asking.list(
            "/v1/evacuations",
            [
                ("EVACUATION", ["id"]), ("FROM", ["source"]), ("TO", ["target"]), ("STATE", ["state"]), ("MOVED", ["machines", "moved"]),
                ("MOVING", ["machines", "moving"]), ("WAITING", ["machines", "waiting"]), ("FAILED", ["machines", "failed"]),
            ])
    }
}

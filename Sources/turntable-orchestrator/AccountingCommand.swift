import ArgumentParser
import Foundation
import Orchestration
import TurntableCore

struct AccountingQuestion: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "accounting", abstract: "What migrations used, and the sums for each who asked and each line.",
        discussion: "EXAMPLES\n  turntable ctl accounting --since 2026-01-01T00:00:00Z --until 2026-02-01T00:00:00Z")
    @Option(help: ArgumentHelp("Those that ended then or later: 2026-01-31T22:00:00Z.", valueName: "time")) var since: String?
    @Option(help: ArgumentHelp("Those that ended before.", valueName: "time")) var until: String?
    @Option(help: ArgumentHelp("Those that this one asked for, as the certificate names them.", valueName: "host")) var by: String?
    @OptionGroup var asking: AskingOptions

    private static let sums = ["lineSeconds", "bytesOnWire", "diskBytes"]

    func run() async throws {
        try await asking.with { control in
            let filters = [("since", since), ("until", until), ("by", by)].compactMap { name, value in value.map { "&\(name)=\($0)" } }
            var items: [Value] = []
            var path: String? = "/v1/accounting?limit=\(Limits.listEntries)" + filters.joined()
            while let now = path {
                let page = try await control.get(now)
                items += page["items"].list
                path = page["next"].string
            }
            let totals = Self.totals(items)
            if asking.json { return say(Value.object(["items": .list(items), "totals": .list(totals)]).text) }
            let columns = ["ended", "requestedBy", "vm", "source", "target", "line", "outcome"] + Self.sums
            say(table([["ENDED", "ASKED BY", "VM", "FROM", "TO", "LINE", "OUTCOME"] + Self.headings] + items.map { item in columns.map { item[$0].text } }))
            say("")
            let summed = ["requestedBy", "line", "migrations"] + Self.sums
            say(table([["ASKED BY", "LINE", "MIGRATIONS"] + Self.headings] + totals.map { sum in summed.map { sum[$0].text } }))
        }
    }

    private static let headings = ["LINE S", "BYTES ON WIRE", "OF DISKS"]

    private static func totals(_ items: [Value]) -> [Value] {
        let groups = Dictionary(grouping: items) { [$0["requestedBy"], $0["line"]].map(\.text) }
        return groups.sorted { $0.key.lexicographicallyPrecedes($1.key) }.map { key, items in
            var sum: [String: Value] = ["requestedBy": .string(key[0]), "line": items[0]["line"], "migrations": .number(Double(items.count))]
            for name in sums { sum[name] = .number(items.reduce(0) { $0 + ($1[name].number ?? 0) }) }
            return .object(sum)
        }
    }
}

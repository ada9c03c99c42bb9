@testable internal import Endpoint
internal import Testing
internal import TurntableCore
internal import TurntableLinux

/// What nftables is told, read back by the numbers of <linux/netfilter/nf_tables.h>.
struct TranslationRulesTests {
    let anchor = TranslationRules.Machine(name: "web", address: [10, 1, 1, 2], sites: [[198, 51, 100, 10], [203, 0, 113, 10]])
    let site = TranslationRules.Machine(
        name: "web", address: [10, 1, 1, 2], sites: [[198, 51, 100, 10], [203, 0, 113, 10]], here: (site: 0, device: "guests"))
    let rules = TranslationRules(isV6: false)

    @Test func aFlipReplacesOneElementAtTheAnchor() throws {
        #expect(try told(rules.flip(anchor, to: 1)) == ["remove from to: 10.1.1.2", "add to to: 10.1.1.2 = 203.0.113.10"])
        #expect(try told(rules.flip(anchor, to: 0)) == ["remove from to: 10.1.1.2", "add to to: 10.1.1.2 = 198.51.100.10"])
    }

    /// Also what still comes to this site for it.
    @Test func aFlipAtASiteSendsStragglersAfterTheMachine() throws {
        let away = ["remove from to: 10.1.1.2 198.51.100.10", "add to to: 10.1.1.2 = 203.0.113.10 198.51.100.10 = 203.0.113.10"]
        #expect(try told(rules.flip(site, to: 1)) == away)
        let back = ["remove from to: 10.1.1.2 198.51.100.10", "add to to: 10.1.1.2 = 10.1.1.2 198.51.100.10 = 10.1.1.2"]
        #expect(try told(rules.flip(site, to: 0)) == back)
    }

    @Test func theTableOfAnAnchor() throws {
        let destination = "load 16+4; lookup to into 1; store 16+4, checksum 1 at 10, of transport 1"
        let source = "load 12+4; lookup from into 1; store 12+4, checksum 1 at 10, of transport 1"
        let passing = ["load 16+4; lookup own; notrack", "load 12+4; lookup own; notrack", destination]
        #expect(
            try told(rules.whole(of: [(anchor, 1)])) == [
                "table", "remove table", "table", "set own", "map to", "map from", "set inside",
                "add to own: 10.1.1.2 198.51.100.10 203.0.113.10", "add to to: 10.1.1.2 = 203.0.113.10",
                "add to from: 198.51.100.10 = 10.1.1.2 203.0.113.10 = 10.1.1.2", "chain prerouting: filter at 0, -300",
            ] + passing.map { "rule in prerouting: \($0)" } + ["chain output: route at 3, -300"] + passing.map { "rule in output: \($0)" } + [
                "chain postrouting: filter at 4, -300", "rule in postrouting: meta 7; lookup not inside; \(source)", "chain input: filter at 1, -300",
                "rule in input: \(source)",
            ])
    }

    @Test func whatASiteHasOtherwise() throws {
        let told = try told(rules.whole(of: [(site, 0)]))
        #expect(told.contains("add to own: 10.1.1.2 198.51.100.10"))
        #expect(told.contains("add to to: 10.1.1.2 = 10.1.1.2 198.51.100.10 = 10.1.1.2"))
        #expect(told.contains("add to from: 10.1.1.2 = 198.51.100.10"))
        #expect(told.contains("add to inside: guests"))
        #expect(!told.contains { $0.contains("input") }, "what the machine says to this host is from itself")
    }

    @Test func addressesOfIPv6() throws {
        let rules = TranslationRules(isV6: true)
        let here: [UInt8] = [0xfd] + [UInt8](repeating: 0, count: 14) + [2], there: [UInt8] = [0xfd] + [UInt8](repeating: 1, count: 15)
        let machine = TranslationRules.Machine(name: "web", address: here, sites: [there])
        let text = { (bytes: [UInt8]) in bytes.map(String.init).joined(separator: ".") }
        #expect(try told(rules.flip(machine, to: 0), family: 10) == ["remove from to: \(text(here))", "add to to: \(text(here)) = \(text(there))"])
        let told = try told(rules.whole(of: [(machine, 0)]), family: 10)
        #expect(told.contains("rule in prerouting: load 24+16; lookup to into 1; store 24+16, checksum 0 at 0, of transport 1"))
        #expect(told.contains("rule in input: load 8+16; lookup from into 1; store 8+16, checksum 0 at 0, of transport 1"))
    }

    // MARK: - Reading

    /// The changes of a transaction, one line each. Checks what all messages have alike.
    private func told(_ messages: [NetlinkMessage], family: UInt8 = 2) throws -> [String] {
        let all = messages.map(\.bytes)
        #expect(all.map { little($0[0..<4]) } == all.map(\.count), "struct nlmsghdr has the length")
        #expect(all.first?[4...5] == [0x10, 0] && all.last?[4...5] == [0x11, 0], "from beginning to end of a batch")
        for border in [all.first, all.last] { #expect(border?[16...] == [0, 0, 0, 10], "of nftables") }
        let changes = all.dropFirst().dropLast()
        #expect(changes.map { $0[6] & 4 } == Array(repeating: 0, count: changes.count - 1) + [4], "the last is answered")
        return try changes.map { bytes in
            #expect(bytes[5] == 10 && bytes[6] & 1 == 1 && bytes[16...19] == [family, 0, 0, 0])
            return try text(of: bytes[4], Fields(bytes[20...]))
        }
    }

    private func text(of kind: UInt8, _ fields: Fields) throws -> String {
        #expect(try fields.text(1) == "turntable")
        switch kind {
        case 0: return "table"
        case 2: return "remove table"
        case 3:
            let hook = try fields.nested(4)
            return try "chain \(fields.text(3)): \(fields.text(7)) at \(hook.number(1)), \(Int32(truncatingIfNeeded: hook.number(2)))"
        case 6: return try "rule in \(fields.text(2)): " + fields.nested(4).list.map(expression).joined(separator: "; ")
        case 9: return try "\(fields.number(3) == 8 ? "map" : "set") \(fields.text(2))"
        case 12, 14:
            let isDevices = try fields.text(2) == "inside"
            let elements = try fields.nested(3).list.map { element in
                let key = try element.nested(1).bytes(1)
                let value = try element.has(2) ? " = " + dotted(element.nested(2).bytes(1)) : ""
                return (isDevices ? String(decoding: key.prefix { $0 != 0 }, as: UTF8.self) : dotted(key)) + value
            }
            return try (kind == 12 ? "add to " : "remove from ") + fields.text(2) + ": " + elements.joined(separator: " ")
        default: return "message \(kind)"
        }
    }

    private func expression(_ fields: Fields) throws -> String {
        let data = try fields.nested(2)
        switch try fields.text(1) {
        case "payload" where data.has(1):
            #expect(try data.number(1) == 1 && data.number(2) == 1, "into the register, from the network header")
            return try "load \(data.number(3))+\(data.number(4))"
        case "payload":
            #expect(try data.number(5) == 1 && data.number(2) == 1)
            return try "store \(data.number(3))+\(data.number(4)), checksum \(data.number(6)) at \(data.number(7)), of transport \(data.number(8))"
        case "lookup":
            #expect(try data.number(2) == 1)
            let isInverted = try data.has(5) && data.number(5) == 1
            return try "lookup \(isInverted ? "not " : "")\(data.text(1))" + (data.has(3) ? " into \(data.number(3))" : "")
        case "meta": return try "meta \(data.number(2))"
        case let name: return name
        }
    }

    private func dotted(_ bytes: [UInt8]) -> String { bytes.map(String.init).joined(separator: ".") }
}

private func little(_ bytes: ArraySlice<UInt8>) -> Int { bytes.reversed().reduce(0) { $0 << 8 | Int($1) } }

/// Attributes of netlink by their kind.
private struct Fields {
    private var all: [(kind: Int, value: [UInt8])] = []

    init(_ bytes: ArraySlice<UInt8>) {
        var rest = bytes
        while rest.count >= 4 {
            let count = little(rest.prefix(2))
            guard count >= 4, count <= rest.count else { return }
            all.append((little(rest.dropFirst(2).prefix(2)) & 0x7fff, Array(rest.prefix(count).dropFirst(4))))
            rest = rest.dropFirst((count + 3) & ~3)
        }
    }

    func has(_ kind: Int) -> Bool { all.contains { $0.kind == kind } }
    func bytes(_ kind: Int) throws -> [UInt8] { try #require(all.first { $0.kind == kind }).value }
    func nested(_ kind: Int) throws -> Fields { Fields(try bytes(kind)[...]) }
    func number(_ kind: Int) throws -> UInt32 { try bytes(kind).reduce(0) { $0 << 8 | UInt32($1) } }
    func text(_ kind: Int) throws -> String { String(decoding: try bytes(kind).dropLast(), as: UTF8.self) }
    /// Elements of a list.
    var list: [Fields] { all.map { Fields($0.value[...]) } }
}

internal import Foundation
internal import Testing
internal import TestSupport
internal import TurntableCore
@testable internal import Lightpaths

/// Networks that meet: what they say of themselves, segments between borders, and the way over several.
struct NetworkTests {
    static func urn(_ name: String) -> String { "urn:ogf:network:\(name).test:2026" }
    private func at(_ seconds: Double) -> Date { BookTests.at(seconds) }

    /// h ── g, whose borders are `to-x` and `to-y`.
    static func west(_ carrier: String = "vlan", addresses: String = "10.0.0.0/24") -> String {
        func border(_ name: String, _ number: Int) -> String {
            """
            {"name":"to-\(name)","node":"g","interface":"\(name)0","address":"192.0.2.\(number)","carrier":"\(carrier)","bitsPerSecond":1e9,"roundTripMilliseconds":20,
             "labels":[100,109],"peer":{"network":"\(urn(name))","border":"to-west","address":"192.0.2.\(number + 1)"}}
            """
        }
        return """
            {"network":"\(urn("west"))","addresses":"\(addresses)","nodes":{"h":{},"g":{}},"borders":[\(border("x", 1)),\(border("y", 5))],
             "peers":[{"network":"\(urn("x"))","url":"https://x.test:4909","host":"x.test"}],
             "links":[{"name":"hg","carrier":"\(carrier)","bitsPerSecond":8e8,"roundTripMilliseconds":1,"labels":[100,109],
                       "ends":[{"node":"h","interface":"e0","address":"192.0.2.9"},{"node":"g","interface":"e0","address":"192.0.2.10"}]}]}
            """
    }

    private func book(_ text: String = west()) throws -> LightpathBook { LightpathBook(topology: try Topology.parse(Data(text.utf8), "it")) }

    private func reserve(
        _ book: inout LightpathBook, _ id: String, _ ends: [String], _ rate: Double, labels: [Int?], addresses: [String?] = [nil, nil]
    ) throws -> Reservation {
        let joints = zip(labels, addresses).map { LightpathRequest.Joint(label: $0, address: $1) }
        let request = LightpathRequest(ends: ends, bitsPerSecond: rate, from: at(0), until: at(100), joints: joints)
        return try book.reserve(id, request, owner: "x", lease: at(120), at: at(0))
    }

    // MARK: - Segments

    @Test(arguments: ["vlan", "vxlan"]) func aSegmentEndsAtABorderWithTheLabelThatWasAgreedOn(_ carrier: String) throws {
        var book = try book(Self.west(carrier))
        let one = try reserve(&book, "1", ["h", "to-x"], 3e8, labels: [nil, 100])
        // A node knows a VXLAN by its number alone: what is chosen here keeps clear of what was agreed on.
        #expect(one.hops.map(\.link) == ["hg", "to-x"] && one.hops.map(\.label) == (carrier == "vlan" ? [100, 100] : [101, 100]))
        #expect(one.roundTripMilliseconds == 11)
        #expect(throws: TurntableError.self) { try reserve(&book, "2", ["h", "to-x"], 1e6, labels: [nil, 100]) }
        #expect(throws: TurntableError.self) { try reserve(&book, "2", ["h", "to-x"], 1e6, labels: [nil, 110]) }
        #expect(throws: TurntableError.self) { try reserve(&book, "2", ["h", "to-x"], 1e6, labels: [nil, nil]) }
        #expect(throws: TurntableError.self) { try reserve(&book, "2", ["h", "to-x"], 6e8, labels: [nil, 105]) }
        for joints in [[], [.init(label: 105)], [.init(), .init(label: 105), .init()]] as [[LightpathRequest.Joint]] {
            let request = LightpathRequest(ends: ["h", "to-x"], bitsPerSecond: 1e6, from: at(0), until: at(100), joints: joints)
            #expect(throws: TurntableError.self) { try book.reserve("2", request, owner: "x", lease: at(120), at: at(0)) }
        }
        // From border to border, and what is set up for it: one interface a border, and a bridge.
        let across = try reserve(&book, "2", ["to-y", "to-x"], 3e8, labels: [104, 105])
        let ports = LinkSetup(topology: book.topology).ports([across])
        #expect(ports.keys.sorted() == ["g"] && ports["g"]?.map(\.interface) == ["y0", "x0"] && ports["g"]?.map(\.label) == [104, 105])
        #expect(Set(ports["g"]?.map(\.bridge) ?? []) == ["tt1.0.b"] && ports["g"]?.allSatisfy { $0.address == nil } == true)
        #expect(ports["g"]?.map(\.far.address) == ["192.0.2.6", "192.0.2.2"])
    }

    @Test func aSegmentsAddressIsGivenFromAfar() throws {
        var book = try book()
        let own = try reserve(&book, "1", ["h", "to-x"], 1e6, labels: [nil, 100])
        let far = try reserve(&book, "2", ["to-x", "h"], 1e6, labels: [101, nil], addresses: [nil, "10.9.0.2"])
        let ports = LinkSetup(topology: book.topology).ports([own, far])["h"]
        #expect(ports?.map(\.address) == ["10.0.0.1", "10.9.0.2"])
        for address in ["10.9.0.2", "10.0.0.9", "10.9.0", "10.9.0.3;reboot"] {
            #expect(throws: TurntableError.self, "\(address)") {
                try reserve(&book, "3", ["to-x", "h"], 1e6, labels: [102, nil], addresses: [nil, address])
            }
        }
    }

    @Test func anOfferIsWhatIsFree() throws {
        var book = try book()
        let request = Offer.Request(node: "h", bitsPerSecond: 9e8, from: at(0), until: at(100))
        let free = try book.offer(request, at: at(0))
        #expect(Set(free.connections.map { "\($0.ends) \($0.bitsPerSecond / 1e6) \($0.roundTripMilliseconds)" })
            == [#"["to-x", "to-y"] 900.0 20.0"#, #"["to-x", "h"] 800.0 11.0"#, #"["to-y", "h"] 800.0 11.0"#])
        #expect(free.labels == ["to-x": [[100, 109]], "to-y": [[100, 109]]])
        _ = try reserve(&book, "1", ["h", "to-x"], 3e8, labels: [nil, 104])
        let rest = try book.offer(request, at: at(0))
        #expect(Set(rest.connections.map { "\($0.ends) \($0.bitsPerSecond / 1e6)" }) == [#"["to-x", "to-y"] 700.0"#, #"["to-x", "h"] 500.0"#, #"["to-y", "h"] 500.0"#])
        #expect(rest.labels == ["to-x": [[100, 103], [105, 109]], "to-y": [[100, 109]]])
        #expect(try Offer.parse(JSONEncoder().encode(rest), of: "x") == rest)
        for wrong in [
            #"{"connections":[{"ends":["a"],"bitsPerSecond":1,"roundTripMilliseconds":1}],"labels":{}}"#, #"{"connections":[],"labels":{"a":[[1]]}}"#,
            #"{"connections":[{"ends":["a","b"],"bitsPerSecond":1,"roundTripMilliseconds":-1}],"labels":{}}"#, #"{"connections":[],"labels":{"a":[[9,1]]}}"#, "[]",
        ] { #expect(throws: TurntableError.self, "\(wrong)") { try Offer.parse(Data(wrong.utf8), of: "x") } }
    }

    // MARK: - Documents

    @Test func aNetworkSaysWhatItIsAndNotWhatIsInside() throws {
        let document = try book().document(serial: 7)
        let data = try JSONEncoder().encode(document)
        #expect(try NetworkDocument.parse(data, of: Self.urn("west")) == document)
        #expect(document.connections == [.init(ends: ["to-x", "to-y"], bitsPerSecond: 1e9, roundTripMilliseconds: 20)])
        let text = String(decoding: data, as: UTF8.self)
        for inner in ["x0", "hg", "x.test:4909"] { #expect(!text.contains(inner), "\(inner)") }
        for (part, other) in [
            ("vlan", "gre"), ("[100,109]", "[109,100]"), ("[100,109]", "[100]"), ("\"to-x\"", "\"../x\""), ("\"to-x\"", "\"to-y\""), ("\"to-west\"", "\"to west\""),
            ("\"roundTripMilliseconds\":20", "\"roundTripMilliseconds\":-20"), ("\"serial\":7", "\"serial\":\"7\""), ("\"h\"", "\"to-x\""), ("192.0.2.2", "192.0.2"),
            ("west.test", "east.test"),
        ] {
            let changed = text.replacingOccurrences(of: part, with: other)
            #expect(changed != text, "\(part)")
            #expect(throws: TurntableError.self, "\(other)") { try NetworkDocument.parse(Data(changed.utf8), of: Self.urn("west")) }
        }
        #expect(throws: TurntableError.self) { try NetworkDocument.parse(data + Data(repeating: 0x20, count: Limits.networkDocumentBytes), of: Self.urn("west")) }
    }

    @Test func aDescriptionThatCannotBeIsRefused() throws {
        let good = Self.west("vxlan")
        _ = try book(good)
        for (part, other) in [
            ("\"network\":\"urn:ogf:network:west.test:2026\"", "\"network\":\"west\""), (Self.urn("x"), Self.urn("west")), ("\"x0\"", "\"e0\""), ("\"x0\"", "\"x0 up\""),
            ("\"node\":\"g\",\"interface\":\"x0\"", "\"interface\":\"x0\""), ("to-x", "hg"), ("to-x", "h"), ("https://x.test:4909", "http://x.test:4909"),
            ("https://x.test:4909", "https://x.test/path"), ("\"x.test\"", "\"\""), (",\"address\":\"192.0.2.2\"", ""),
        ] {
            let text = good.replacingOccurrences(of: part, with: other)
            #expect(text != good, "\(part)")
            #expect(throws: TurntableError.self, "\(other)") { try book(text) }
        }
    }

    /// Both sides of a border must say the same of it.
    @Test func aBorderIsUsedIfBothSidesNameIt() throws {
        let west = try book(Self.west("vxlan")).document(serial: 1)
        var x = west
        x.network = Self.urn("x")
        x.borders[0].name = "to-west"
        x.borders[0].peer = .init(network: west.network, border: "to-x", address: "192.0.2.1")
        x.borders[0].address = "192.0.2.2"
        func fault(_ change: (inout NetworkDocument) -> Void) -> String? {
            var changed = x
            change(&changed)
            return NetworkMap([west, changed]).fault(west.borders[0], of: west.network)
        }
        #expect(fault { _ in } == nil)
        #expect(NetworkMap([west, x]).fault(west.borders[1], of: west.network)?.contains("nothing is known") == true)
        #expect(fault { $0.borders[0].name = "to-nobody" }?.contains("has no border to-west") == true)
        #expect(fault { $0.borders[0].peer.border = "to-y" }?.contains("leads to to-y") == true)
        #expect(fault { $0.borders[0].peer.network = Self.urn("z") }?.contains("of \(Self.urn("z"))") == true)
        #expect(fault { $0.borders[0].carrier = .vlan }?.contains("there a vlan") == true)
        #expect(fault { $0.borders[0].labels = [110, 120] }?.contains("no label") == true)
        #expect(fault { $0.borders[0].address = "192.0.2.66" }?.contains("192.0.2.66") == true)
        var loop = west.borders[0]
        loop.peer.network = west.network
        #expect(NetworkMap([west, x]).fault(loop, of: west.network)?.contains("back") == true)
    }
}

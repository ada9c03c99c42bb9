internal import Foundation
internal import Testing
internal import TestSupport
internal import TurntableCore
@testable internal import Lightpaths

/// Who gets which capacity, when, which way, and for how long.
struct BookTests {
    static let epoch = Date(timeIntervalSince1970: 1_000_000)
    static func at(_ seconds: Double) -> Date { epoch + seconds }

    /// a ═ b ═ c by way of b in 20 ms, and a ─ c in 50 ms; and d beside them.
    static func network(_ capacity: Double = 1e9, addresses: String? = nil, labels: [Int] = [100, 199]) throws -> Topology {
        func link(_ name: String, _ a: String, _ b: String, _ milliseconds: Double, _ rate: Double) -> String {
            """
            {"name":"\(name)","carrier":"vlan","bitsPerSecond":\(rate),"roundTripMilliseconds":\(milliseconds),"labels":[\(labels[0]),\(labels[1])],
             "ends":[{"node":"\(a)","interface":"\(name)0"},{"node":"\(b)","interface":"\(name)1"}]}
            """
        }
        let text = """
            {"nodes":{"a":{},"b":{},"c":{},"d":{}},\(addresses.map { "\"addresses\":\"\($0)\"," } ?? "")
             "links":[\(link("ab", "a", "b", 10, capacity)),\(link("bc", "b", "c", 10, capacity)),\(link("ac", "c", "a", 50, capacity / 2))]}
            """
        return try Topology.parse(Data(text.utf8), "the test's topology")
    }

    private func request(_ rate: Double, _ from: Double = 0, _ until: Double = 100, least: Double? = nil, _ ends: [String] = ["a", "c"]) -> LightpathRequest {
        LightpathRequest(ends: ends, bitsPerSecond: rate, leastBitsPerSecond: least, from: Self.at(from), until: Self.at(until))
    }

    private func reserve(
        _ book: inout LightpathBook, _ id: String, _ request: LightpathRequest, owner: String = "x", lease: Double = 120, now: Double = 0
    ) throws -> Reservation {
        try book.reserve(id, request, owner: owner, lease: Self.at(lease), at: Self.at(now))
    }

    @Test func theShortestWayThatHasRoomIsTaken() throws {
        var book = LightpathBook(topology: try Self.network())
        let first = try reserve(&book, "1", request(6e8))
        #expect(first.hops.map(\.link) == ["ab", "bc"] && first.hops.map(\.from) == ["a", "b"] && first.roundTripMilliseconds == 20)
        // Short of 600 Mb/s on the short way, the long one is taken, backwards as it is described.
        let second = try reserve(&book, "2", request(5e8))
        #expect(second.hops.map(\.link) == ["ac"] && second.hops.map(\.from) == ["a"] && second.roundTripMilliseconds == 50)
        let third = try reserve(&book, "3", request(4e8))
        #expect(third.hops.map(\.link) == ["ab", "bc"] && third.hops.map(\.label) == [101, 101])
        #expect(throws: TurntableError.self) { try reserve(&book, "4", request(1e6)) }
        // Nobody goes to d.
        #expect(throws: TurntableError.self) { try reserve(&book, "5", request(1e6, 0, 100, ["a", "d"])) }
    }

    /// A node knows a VXLAN by its number alone: none is used twice where two links meet.
    @Test func numbersOfNetworksAreANodesOwn() throws {
        let text = String(decoding: try JSONEncoder().encode(try Self.network()), as: UTF8.self).replacingOccurrences(of: "\"vlan\"", with: "\"vxlan\"")
        let addressed = text.replacingOccurrences(of: "\"interface\"", with: "\"address\":\"192.0.2.1\",\"interface\"")
        var book = LightpathBook(topology: try Topology.parse(Data(addressed.utf8), "it"))
        #expect(try reserve(&book, "1", request(1e8)).hops.map(\.label) == [100, 101])
        #expect(try reserve(&book, "2", request(1e8)).hops.map(\.label) == [102, 103])
        #expect(try reserve(&book, "3", request(5e8, 0, 50, ["a", "b"])).hops.map(\.label) == [104])
        #expect(try reserve(&book, "4", request(1e8, 100, 200)).hops.map(\.label) == [100, 101])
    }

    @Test func atAnotherTimeThereIsRoom() throws {
        var book = LightpathBook(topology: try Self.network())
        for (id, from, until) in [("1", 0.0, 100.0), ("2", 100, 200), ("3", 300, 400)] { _ = try reserve(&book, id, request(1e9, from, until)) }
        // Two that do not overlap take no more of it than one.
        #expect(throws: TurntableError.self) { try reserve(&book, "x", request(1e9, 250, 301)) }
        #expect(try reserve(&book, "4", request(1e9, 200, 300)).hops.count == 2)
        #expect(try reserve(&book, "5", request(5e8, 0, 400)).hops.map(\.link) == ["ac"])
    }

    @Test func whoTakesLessGetsWhatThereIs() throws {
        var book = LightpathBook(topology: try Self.network())
        _ = try reserve(&book, "1", request(7e8))
        // 500 Mb/s the long way are more than 300 Mb/s the short way.
        #expect(try reserve(&book, "2", request(1e9, least: 1e6)).bitsPerSecond == 5e8)
        #expect(try reserve(&book, "3", request(1e9, least: 1e6)).bitsPerSecond == 3e8)
        #expect(throws: TurntableError.self) { try reserve(&book, "4", request(1e9, least: 1e6)) }
    }

    @Test func whatIsAskedTwiceIsDoneOnce() throws {
        var book = LightpathBook(topology: try Self.network())
        let first = try reserve(&book, "1", request(6e8))
        let again = try reserve(&book, "1", request(6e8, 5, 90), lease: 150, now: 30)
        #expect(again.bitsPerSecond == first.bitsPerSecond && again.hops == first.hops && again.lease == Self.at(150))
        #expect(book.reservations.count == 1)
        #expect(throws: TurntableError.self) { try reserve(&book, "1", request(6e8), owner: "y") }
        #expect(throws: TurntableError.self) { try book.terminate("1", owner: "y", at: Self.at(1)) }
        // What has ended stays so, whatever comes late.
        _ = try book.terminate("1", owner: "x", at: Self.at(1))
        _ = try book.terminate("1", owner: "x", at: Self.at(2))
        #expect(throws: TurntableError.self) { try reserve(&book, "1", request(6e8)) }
        #expect(throws: TurntableError.self) { try book.provision("1", owner: "x", lease: Self.at(100)) }
        #expect(try reserve(&book, "2", request(1e9)).number == 0)
    }

    @Test func theStatesAreGoneThroughInOrder() throws {
        var book = LightpathBook(topology: try Self.network())
        _ = try reserve(&book, "1", request(6e8, 10))
        #expect(throws: TurntableError.self) { try book.provision("1", owner: "x", lease: Self.at(100)) }
        #expect(throws: TurntableError.self) { try book.hold("1", bitsPerSecond: 1e8, owner: "x", at: Self.at(1)) }
        #expect(try book.commit("1", owner: "x", lease: Self.at(100)).state == .committed)
        let provisioned = try book.provision("1", owner: "x", lease: Self.at(100))
        #expect(!provisioned.isWanted(at: Self.at(9)) && provisioned.isWanted(at: Self.at(10)) && !provisioned.isWanted(at: Self.at(100)))
        // Committed again, as by an orchestrator that does not know: it stays provisioned.
        #expect(try book.commit("1", owner: "x", lease: Self.at(100)).state == .provisioned)
        #expect(try book.release("1", owner: "x").state == .committed)
        #expect(try book.terminate("1", owner: "x", at: Self.at(20)).ended == Self.at(20))
    }

    @Test func aChangeIsHeldUntilItIsCommitted() throws {
        var book = LightpathBook(topology: try Self.network())
        _ = try reserve(&book, "1", request(4e8))
        _ = try book.commit("1", owner: "x", lease: Self.at(100))
        _ = try reserve(&book, "2", request(3e8))
        #expect(throws: TurntableError.self) { try book.hold("1", bitsPerSecond: 8e8, owner: "x", at: Self.at(1)) }
        let held = try book.hold("1", bitsPerSecond: 7e8, owner: "x", at: Self.at(1))
        #expect(held.bitsPerSecond == 4e8 && held.version == 0)
        // What is held is taken.
        #expect(try reserve(&book, "3", request(5e8, least: 1e6)).hops.map(\.link) == ["ac"])
        #expect(throws: TurntableError.self) { try reserve(&book, "4", request(1e6)) }
        #expect(try book.abort("1", owner: "x", at: Self.at(2)).bitsPerSecond == 4e8)
        _ = try book.hold("1", bitsPerSecond: 7e8, owner: "x", at: Self.at(3))
        let changed = try book.commit("1", owner: "x", lease: Self.at(100))
        #expect(changed.bitsPerSecond == 7e8 && changed.version == 1 && changed.change == nil)
    }

    @Test func whatNobodyKeepsEnds() throws {
        var book = LightpathBook(topology: try Self.network())
        _ = try reserve(&book, "held", request(1e8), lease: 10)
        _ = try reserve(&book, "kept", request(1e8), lease: 10)
        _ = try reserve(&book, "over", request(1e8, 0, 15), lease: 1000)
        #expect(book.expire(at: Self.at(9)).isEmpty)
        _ = try book.keep("kept", owner: "x", lease: Self.at(20), at: Self.at(9))
        #expect(book.expire(at: Self.at(10)).map(\.id) == ["held"])
        #expect(book.expire(at: Self.at(15)).map(\.id) == ["over"])
        #expect(book.expire(at: Self.at(20)).map(\.id) == ["kept"])
        #expect(book.reservations.values.allSatisfy { $0.state == .terminated })
    }

    /// A window goes on when less than half an hour of it is left, as far as the calendar has room.
    @Test func aWindowThatIsKeptGoesOn() throws {
        var book = LightpathBook(topology: try Self.network())
        for (id, rate) in [("1", 6e8), ("2", 4e8)] {
            _ = try reserve(&book, id, request(rate, 0, 3600), lease: 5000)
            _ = try book.commit(id, owner: "x", lease: Self.at(5000))
        }
        #expect(try book.keep("1", owner: "x", lease: Self.at(5000), at: Self.at(1700)).until == Self.at(3600))
        #expect(try book.keep("1", owner: "x", lease: Self.at(5000), at: Self.at(1900)).until == Self.at(5500))
        _ = try reserve(&book, "3", request(4e8, 3600, 9000), lease: 9000)
        #expect(try book.keep("2", owner: "x", lease: Self.at(5000), at: Self.at(1900)).until == Self.at(3600))
    }

    /// Random reservations: at no instant has a link more than it can bear, and no label is two paths' at once.
    @Test(arguments: 0..<20) func neitherCapacityNorLabelIsGivenTwice(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var book = LightpathBook(topology: try Self.network(addresses: "10.0.0.0/24", labels: [1, 6]))
        for id in 0..<200 {
            let from = Double.random(in: 0..<1000, using: &generator)
            let ends = ["a", "b", "c"].shuffled(using: &generator)
            let wanted = request(
                .random(in: 1e6...1e9, using: &generator), from, from + .random(in: 1...300, using: &generator), least: 1e6, Array(ends.prefix(2)))
            guard (try? reserve(&book, "\(id)", wanted, lease: 2000)) != nil else { continue }
            _ = try book.commit("\(id)", owner: "x", lease: Self.at(2000))
            if Bool.random(using: &generator) {
                _ = try? book.hold("\(id)", bitsPerSecond: .random(in: 1e6...1e9, using: &generator), owner: "x", at: Self.at(0))
                _ = try book.commit("\(id)", owner: "x", lease: Self.at(2000))
            }
        }
        let all = Array(book.reservations.values)
        #expect(all.count > 10, "seed \(seed)")
        for instant in stride(from: 0.5, to: 1300, by: 1) {
            let now = all.filter { $0.from <= Self.at(instant) && Self.at(instant) < $0.until }
            for link in book.topology.links {
                let here = now.filter { $0.hops.contains { $0.link == link.name } }
                #expect(here.reduce(0) { $0 + $1.bitsPerSecond } <= link.bitsPerSecond + 1, "seed \(seed), \(link.name) at \(instant)")
                let labels = here.flatMap { $0.hops.filter { $0.link == link.name }.map(\.label) }
                #expect(Set(labels).count == labels.count, "seed \(seed), \(link.name) at \(instant)")
            }
        }
        #expect(Set(all.map(\.number)).count == all.count && all.allSatisfy { $0.number < 64 })
    }

    @Test func aTopologyThatCannotBeIsRefused() throws {
        let good = """
            {"addresses":"10.0.0.0/16","nodes":{"a":{"run":["ssh","a"]},"b":{}},"links":[{"name":"ab","carrier":"vxlan","bitsPerSecond":1e9,"roundTripMilliseconds":1,
            "labels":[1,9],"ends":[{"node":"a","interface":"eth0","address":"192.0.2.1"},{"node":"b","interface":"eth0","address":"192.0.2.2"}]}]}
            """
        let topology = try Topology.parse(Data(good.utf8), "it")
        #expect(try Topology.parse(JSONEncoder().encode(topology), "it") == topology)
        for (part, other) in [
            (#""b":{}"#, #""c":{}"#), ("10.0.0.0/16", "10.0.1.0/16"), ("10.0.0.0/16", "10.0.0.0"), ("1e9", "1e3"), ("[1,9]", "[9,1]"), ("[1,9]", "[1,99999999]"),
            ("192.0.2.2", "192.0.2.256"), (#""node":"b""#, #""node":"a""#), ("eth0", "eth0 up"), ("eth0", "--help"), (#""name":"ab""#, #""name":"../ab""#), ("vxlan", "gre"),
        ] {
            let text = good.replacingOccurrences(of: part, with: other)
            #expect(text != good)
            #expect(throws: TurntableError.self, "\(other)") { try Topology.parse(Data(text.utf8), "it") }
        }
        #expect(AddressPool("10.0.0.0/16").map { [$0.ends(0), $0.ends(64)] } == [["10.0.0.1", "10.0.0.2"], ["10.0.1.1", "10.0.1.2"]])
    }
}

internal import Foundation
internal import Testing
internal import TurntableCore
@testable internal import Lightpaths
@testable internal import Orchestration

/// Paths over several networks of which some refuse, are silent, or say what cannot be.
///
///     west ══ quick ══ east        40 ms
///     west ══ slow  ══ east        80 ms
@Suite(.serialized) struct NetworkPathsTests {
    private let id = UUID().uuidString.lowercased()

    private struct Scene {
        var paths: NetworkPaths
        var neighbours: Neighbours
        var controller: LightpathController
        var quick: FakeNetwork
        var slow: FakeNetwork
        var east: FakeNetwork

        var others: [FakeNetwork] { [quick, slow, east] }

        func perform(_ operation: LightpathOperation, _ id: String) async throws -> Lightpath {
            try await paths.perform(operation, id, owner: "user")
        }

        func networks(_ id: String) async -> [String] {
            await paths.all().first { $0.id == id }?.segments.map { String($0.leg.network.dropFirst("urn:ogf:network:".count).prefix { $0 != "." }) } ?? []
        }

        /// How many segments there are, here and in quick, slow and east.
        func alive() async -> [Int] {
            var counts = [await controller.all().count { $0.state != .terminated }]
            for other in others { counts.append(await other.alive.count) }
            return counts
        }
    }

    private var request: LightpathRequest {
        LightpathRequest(ends: ["node", "\(FakeNetwork.urn("east")):node"], bitsPerSecond: 2e8, until: .now + 3600)
    }

    /// More than a computer needs that has other tests to run.
    private static let patience = Nanoseconds.seconds(60)

    private func with(age: Nanoseconds = .seconds(3600), _ body: (Scene) async throws -> Void) async throws {
        let stage = try NSIStage()
        let client = try Client(identity: stage.requester, connectingWithin: Self.patience)
        let store = FileManager.default.temporaryDirectory.appending(path: "turntable-paths-\(UUID().uuidString).sqlite").path
        defer { for more in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: store + more) } }
        let (quick, slow, east) = (
            FakeNetwork("quick", meets: ["west", "east"]), FakeNetwork("slow", meets: ["west", "east"]), FakeNetwork("east", meets: ["quick", "slow"])
        )
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                var topology = Topology(nodes: ["node": .init(run: ["true"])], links: [])
                topology.network = FakeNetwork.urn("west")
                topology.addresses = "10.0.0.0/24"
                topology.borders = ["quick", "slow"].map { name in
                    var border = FakeNetwork.border(of: "west", with: name)
                    border.node = "node"
                    border.interface = "to-\(name)"
                    return border
                }
                topology.peers = []
                for network in [quick, slow, east] {
                    let url = try await stage.serve(network.routes(), as: stage.provider, in: &group)
                    topology.peers?.append(.init(network: FakeNetwork.urn(network.name), url: url, host: "provider.test"))
                }
                topology = try Topology.parse(try JSONEncoder().encode(topology), "the test's")
                let sqlite = try SQLiteStore(path: store)
                let controller = try await LightpathController(topology: topology, store: sqlite, log: stage.log)
                let neighbours = Neighbours(
                    own: LightpathBook(topology: topology).document(serial: 1), peers: topology.peers ?? [], client: client, age: age,
                    patience: Self.patience, log: stage.log)
                let paths = try await NetworkPaths(
                    topology: topology, controller: controller, neighbours: neighbours, client: client, store: sqlite, log: stage.log)
                for peer in topology.peers ?? [] { #expect(await neighbours.hear(peer)) }
                group.addTask { await controller.run() }
                try await body(Scene(paths: paths, neighbours: neighbours, controller: controller, quick: quick, slow: slow, east: east))
                group.cancelAll()
            }
        } catch {
            await client.shutDown()
            throw error
        }
        await client.shutDown()
    }

    @Test func allReserveThenAllCommitThenAllProvision() async throws {
        try await with { scene in
            #expect(try await scene.perform(.reserve(request), id).state == .held)
            #expect(await scene.networks(id) == ["west", "quick", "east"])
            #expect(try await scene.perform(.commit, id).state == .committed)
            let path = try await scene.perform(.provision, id)
            #expect(path.state == .provisioned && path.isActive && path.roundTripMilliseconds == 25 && path.addresses == ["10.0.0.1", "10.0.0.2"])
            // The far end's address is from here; labels are the same on both sides of a border.
            let (middle, last) = (try #require(await scene.quick.requests.last), try #require(await scene.east.requests.last))
            #expect(last.joints?[1].address == "10.0.0.2" && last.joints?[0].label == middle.joints?[1].label && middle.joints?.count == 2)
            #expect(await scene.controller.all().first?.hops.last?.label == middle.joints?[0].label)
            #expect(try await scene.perform(.reserve(request), id).state == .provisioned)
            #expect(await scene.alive() == [1, 1, 0, 1])
            #expect(try await scene.perform(.release, id).state == .committed)
            #expect(try await scene.perform(.terminate, id).state == .terminated)
            #expect(await scene.alive() == [0, 0, 0, 0])
            await #expect(throws: TurntableError.self) { try await scene.perform(.reserve(request), id) }
            await #expect(throws: TurntableError.self) { try await scene.paths.perform(.query, id, owner: "somebody") }
        }
    }

    /// Whoever does not do its part is gone round, and nothing of what the others did for that way is left.
    @Test(arguments: [("reserve", FakeNetwork.Answer.refuses), ("reserve", .isSilent), ("commitment", .refuses), ("commitment", .isSilent)])
    func whoeverRefusesIsGoneRound(_ part: String, _ answer: FakeNetwork.Answer) async throws {
        try await with { scene in
            await scene.quick.set(part, answer)
            _ = try await scene.perform(.reserve(request), id)
            #expect(try await scene.perform(.commit, id).state == .committed)
            #expect(await scene.networks(id) == ["west", "slow", "east"])
            #expect(await scene.alive() == [1, 0, 1, 1])
            // Silence is asked once, a refusal twice.
            #expect(await scene.quick.requests.count == (answer == .isSilent ? 1 : 2))
            #expect(try await scene.perform(.provision, id).isActive)
        }
    }

    @Test func whereThereIsNoWayNothingIsLeft() async throws {
        try await with { scene in
            await scene.east.set("reserve", .refuses)
            let error = await #expect(throws: TurntableError.self) { try await scene.perform(.reserve(request), id) }
            #expect(error?.kind == .refused && error?.why.contains("east does not want to") == true)
            #expect(await scene.alive() == [0, 0, 0, 0])
            #expect(await scene.paths.all().isEmpty)
            // It may be asked for again.
            await scene.east.set("reserve", nil)
            let again = try await scene.perform(.reserve(request), id)
            #expect(again.state == .held)
        }
    }

    @Test func aRateThatOneRefusesIsNobodys() async throws {
        try await with { scene in
            _ = try await scene.perform(.reserve(request), id)
            _ = try await scene.perform(.commit, id)
            #expect(try await scene.perform(.change(bitsPerSecond: 3e8), id).bitsPerSecond == 3e8)
            await scene.quick.set("rate", .refuses)
            await #expect(throws: TurntableError.self) { try await scene.perform(.change(bitsPerSecond: 4e8), id) }
            #expect(await scene.east.alive.map(\.bitsPerSecond) == [3e8])
            #expect(await scene.controller.all().map(\.bitsPerSecond) == [3e8])
            // What could not be taken back is, as soon as it can.
            await scene.quick.set("rate", nil)
            await scene.east.set("rate", .isSilent)
            await #expect(throws: TurntableError.self) { try await scene.perform(.change(bitsPerSecond: 4e8), id) }
            await scene.east.set("rate", nil)
            _ = try await scene.perform(.keep, id)
            for other in [scene.quick, scene.east] { #expect(await other.alive.map(\.bitsPerSecond) == [3e8]) }
        }
    }

    /// One that is silent for a while changes nothing; one that has ended its segment ends all.
    @Test(arguments: [LightpathOperation.keep, .query, .provision]) func whatEndsAnywhereEnds(_ operation: LightpathOperation) async throws {
        try await with { scene in
            _ = try await scene.perform(.reserve(request), id)
            _ = try await scene.perform(.commit, id)
            await scene.east.set("lease", .isSilent)
            #expect(await #expect(throws: TurntableError.self) { try await scene.perform(.keep, id) }?.kind == .line)
            await scene.east.set("lease", nil)
            #expect(try await scene.perform(.keep, id).state == .committed)
            for segment in await scene.east.segments.keys { await scene.east.end(segment) }
            _ = try? await scene.perform(operation, id)
            #expect(try await scene.perform(.query, id).state == .terminated)
            #expect(await scene.alive() == [0, 0, 0, 0])
        }
    }

    @Test func whatIsTooOldIsDropped() async throws {
        try await with(age: .zero) { scene in
            #expect(await scene.neighbours.map().documents.map(\.network) == [FakeNetwork.urn("west")])
            let error = await #expect(throws: TurntableError.self) { try await scene.perform(.reserve(request), id) }
            #expect(error?.why.contains("no way over the networks known") == true)
            #expect(await scene.neighbours.shown()[0].borders.allSatisfy { $0.fault?.contains("nothing is known") == true })
        }
    }

    /// What a peer says is bounded and checked; until it says something better, what it said before is in force.
    @Test func whatCannotBeIsNotBelieved() async throws {
        try await with { scene in
            let peer = scene.neighbours.peers[0]
            let good = await scene.neighbours.map()
            #expect(good.documents.count == 4)
            let other = String(decoding: try JSONEncoder().encode(await scene.slow.document), as: UTF8.self)
            for wrong in ["", "no JSON", "{}", other, String(repeating: " ", count: Limits.networkDocumentBytes + 1)] {
                await scene.quick.say(Data(wrong.utf8))
                #expect(await scene.neighbours.hear(peer) == false)
                #expect(await scene.neighbours.map().documents == good.documents)
                let view = await scene.neighbours.shown()[1]
                #expect(view.network == peer.network && view.fault != nil && view.borders.allSatisfy { $0.fault == nil })
            }
            // A border that it has no more is not used; both see it.
            var less = await scene.quick.document
            less.borders.removeFirst()
            await scene.quick.say(try JSONEncoder().encode(less))
            #expect(await scene.neighbours.hear(peer))
            let shown = await scene.neighbours.shown()
            #expect(shown[1].fault == nil && shown[0].borders.map { $0.fault != nil } == [true, false])
            _ = try await scene.perform(.reserve(request), id)
            #expect(await scene.networks(id) == ["west", "slow", "east"])
        }
    }
}

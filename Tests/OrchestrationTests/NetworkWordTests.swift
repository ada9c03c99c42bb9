internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import Logging
internal import Protection
internal import Synchronization
internal import TestSupport
internal import Testing
internal import TurntableCore
@testable internal import Lightpaths
@testable internal import Orchestration

/// Networks in a row, each of which meets only the next:  one ══ two ══ three ══ four
@Suite(.serialized) struct NetworkWordTests {
    private static let names = ["one", "two", "three", "four"]
    private static let patience = Nanoseconds.seconds(60)

    /// Serves what a network's controller says, before it is known what that meets.
    private actor Door {
        private var neighbours: Neighbours?
        func open(_ neighbours: Neighbours) { self.neighbours = neighbours }
        private func own() async throws -> NetworkDocument {
            let neighbours = try #require(neighbours)
            return await neighbours.own
        }
        private func told() async throws -> [NetworkWord] {
            let neighbours = try #require(neighbours)
            return try await neighbours.told()
        }

        nonisolated func routes() -> Routes {
            var routes = Routes()
            routes.add("/v1/network", (.get, { _, _ in try .json(try await self.own()) }))
            routes.add("/v1/network/words", (.get, { _, _ in try .json(try await self.told()) }))
            return routes
        }
    }

    private static func document(_ name: String, serial: Int = 1) -> NetworkDocument {
        let index = names.firstIndex(of: name) ?? 0
        let meets = [index - 1, index + 1].filter(names.indices.contains).map { names[$0] }
        return NetworkDocument(
            network: FakeNetwork.urn(name), serial: serial, nodes: ["node"], borders: meets.map { FakeNetwork.border(of: name, with: $0) }, connections: [])
    }

    /// Each knows its neighbours by configuration, and is asked to hear them in an order of the test's.
    private func with(now: @escaping @Sendable () -> Date = { .now }, _ body: ([Neighbours]) async throws -> Void) async throws {
        let stage = try NSIStage(naming: Self.names.map { "\($0).test" })
        let client = try Client(identity: stage.requester, connectingWithin: Self.patience)
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                let doors = Self.names.map { _ in Door() }
                var urls: [String] = []
                for (index, door) in doors.enumerated() { urls.append(try await stage.serve(door.routes(), as: stage.others[index], in: &group)) }
                var networks: [Neighbours] = []
                for (index, name) in Self.names.enumerated() {
                    let meets = [index - 1, index + 1].filter(Self.names.indices.contains)
                    let peers = meets.map { Topology.Peer(network: FakeNetwork.urn(Self.names[$0]), url: urls[$0], host: "\(Self.names[$0]).test") }
                    networks.append(
                        Neighbours(
                            own: Self.document(name), peers: peers, identity: stage.others[index], url: urls[index], usingOthers: true, client: client,
                            patience: Self.patience, log: stage.log, now: now))
                    await doors[index].open(networks[index])
                }
                try await body(networks)
                group.cancelAll()
            }
        } catch {
            await client.shutDown()
            throw error
        }
        await client.shutDown()
    }

    private func hear(_ one: Neighbours, _ other: Int) async {
        let peer = one.peers.first { $0.network == FakeNetwork.urn(Self.names[other]) }
        if let peer { #expect(await one.hear(peer)) } else { Issue.record("\(Self.names[other]) is no peer") }
    }

    private func known(_ one: Neighbours) async -> [String] {
        await one.map().documents.map { String($0.network.dropFirst("urn:ogf:network:".count).prefix { $0 != "." }) }
    }

    @Test func whatIsPassedOnMakesOneMap() async throws {
        try await with { networks in
            for (listener, teller) in [(2, 3), (1, 2), (0, 1)] { await hear(networks[listener], teller) }
            #expect(await known(networks[0]) == ["one", "two", "four", "three"])
            let map = await networks[0].map()
            for document in map.documents { for border in document.borders { #expect(map.fault(border, of: document.network) == nil) } }
            #expect(await networks[0].urls().count == 3)
            let views = await networks[0].shown()
            #expect(views.map(\.toldBy) == [nil, nil, FakeNetwork.urn("two"), FakeNetwork.urn("two")])
            #expect(networks[0].admits("four.test", toBegin: true) && !networks[0].admits("two.test", toBegin: true))
            // Nobody has told the last one of the first: it is asked for nothing by it.
            #expect(!networks[3].admits("one.test", toBegin: false))
        }
    }

    /// Two who tell each other of a third keep nothing of it alive.
    @Test func whoeverIsGoneIsForgottenByAll() async throws {
        let passed = Mutex(TimeInterval(0))
        let began = Date.now
        try await with(now: { began + passed.withLock { $0 } }) { networks in
            await hear(networks[2], 3)
            await hear(networks[1], 2)
            func tellEachOther() async {
                await hear(networks[1], 2)
                await hear(networks[2], 1)
            }
            for late in stride(from: 0, through: Limits.networkAge.seconds - 1, by: 20) {
                passed.withLock { $0 = late }
                await tellEachOther()
            }
            #expect(await known(networks[1]).contains("four"))
            passed.withLock { $0 = Limits.networkAge.seconds + 1 }
            await tellEachOther()
            #expect(await known(networks[1]) == ["two", "three"])
            let told = try await networks[2].told()
            #expect(told.count == 2)
            // It may go on with what it has, and begin nothing.
            #expect(networks[1].admits("four.test", toBegin: false) && !networks[1].admits("four.test", toBegin: true))
        }
    }

    @Test func onlyTheNetworkItselfIsBelieved() throws {
        let stage = try NSIStage(naming: ["four.test", "deep.four.test", "three.test"])
        let stranger = try NSIStage(naming: ["four.test"])
        let (four, below, three) = (stage.others[0], stage.others[1], stage.others[2])
        func hear(_ word: NetworkWord) throws -> NetworkWord.Heard { try word.heard(from: "a peer", authorities: three, age: Limits.networkAge) }
        func word(_ identity: HostIdentity, url: String = "https://four.test:4909", at time: Date = .now) throws -> NetworkWord {
            try NetworkWord(Self.document("four"), url: url, as: identity, at: time)
        }
        #expect(try hear(try word(four)).document == Self.document("four"))
        #expect(try hear(try word(below)).host == "deep.four.test")
        var changed = try word(four)
        changed.text = Data(String(decoding: changed.text, as: UTF8.self).replacing("\"serial\":1", with: "\"serial\":2").utf8)
        let wrong = [
            try word(three), try word(stranger.others[0]), changed, try word(four, url: "http://four.test"),
            try word(four, at: .now - Limits.networkAge.seconds - 2), try word(four, at: .now + Limits.clockDifference.seconds + 2),
        ]
        for word in wrong { #expect(throws: TurntableError.self) { try hear(word) } }
    }
}

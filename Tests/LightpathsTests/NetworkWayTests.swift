internal import Foundation
internal import Testing
internal import TestSupport
internal import TurntableCore
@testable internal import Lightpaths

/// The way over random networks, against all the ways that there are.
struct NetworkWayTests {
    private struct World {
        var map: NetworkMap
        var offers: [String: Offer]
        var refused: [Leg]
    }

    /// Up to six networks with borders between them, a node in each, and offers of some of what could be.
    private func world(_ generator: inout SeededGenerator) -> World {
        let names = (0..<Int.random(in: 2...6, using: &generator)).map { "urn:n\($0)" }
        var documents = names.map { NetworkDocument(network: $0, serial: 1, nodes: ["node"], borders: [], connections: []) }
        for number in 0..<Int.random(in: 1...9, using: &generator) {
            let pair = Array(names.indices.shuffled(using: &generator).prefix(2))
            let rate = Double.random(in: 1...5, using: &generator).rounded()
            for (one, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                documents[one].borders.append(
                    .init(
                        name: "b\(number)", carrier: .vlan, bitsPerSecond: rate, roundTripMilliseconds: 0, labels: [1, 9],
                        peer: .init(network: names[other], border: "b\(number)")))
            }
        }
        var offers: [String: Offer] = [:]
        for document in documents where Int.random(in: 0..<12, using: &generator) > 0 {
            let ends = document.borders.map(\.name) + ["node"]
            var offer = Offer(connections: [], labels: [:])
            for (index, one) in ends.enumerated() {
                for other in ends[(index + 1)...] where Int.random(in: 0..<6, using: &generator) > 0 {
                    offer.connections.append(
                        .init(
                            ends: [one, other], bitsPerSecond: Double.random(in: 1...5, using: &generator).rounded(),
                            roundTripMilliseconds: Double.random(in: 1...20, using: &generator).rounded()))
                }
                offer.labels[one] = [[[1, 3]], [[2, 5], [8, 9]], [[4, 4]], [[3, 9]]].randomElement(using: &generator)
            }
            offers[document.network] = offer
        }
        let refused = Bool.random(using: &generator) ? [] : documents.prefix(1).flatMap { document in
            document.borders.prefix(1).map { Leg(network: document.network, ends: ["node", $0.name], labels: [nil, nil]) }
        }
        return World(map: NetworkMap(documents), offers: offers, refused: refused)
    }

    /// Every way that uses no border twice: its rate and round trip.
    private func all(_ world: World, _ ends: [String]) -> [(rate: Double, milliseconds: Double)] {
        var found: [(rate: Double, milliseconds: Double)] = []
        func go(_ network: String, _ place: String, _ rate: Double, _ milliseconds: Double, _ seen: Set<String>) {
            guard let document = world.map.document(network), let offer = world.offers[network] else { return }
            for connection in offer.connections {
                for pair in [connection.ends, connection.ends.reversed()] where pair[0] == place {
                    if ends.contains(network), !pair.contains("node") { continue }
                    if world.refused.contains(where: { $0.network == network && $0.ends == pair }) { continue }
                    let rate = min(rate, connection.bitsPerSecond)
                    let milliseconds = milliseconds + connection.roundTripMilliseconds
                    if network == ends[1], pair[1] == "node" { found.append((rate, milliseconds)) }
                    guard let border = document.border(pair[1]), !seen.contains("\(network) \(border.name)") else { continue }
                    let labels = Labels.shared(offer.labels[border.name] ?? [], world.offers[border.peer.network]?.labels[border.peer.border] ?? [])
                    if labels.isEmpty { continue }
                    go(border.peer.network, border.peer.border, min(rate, border.bitsPerSecond), milliseconds, seen.union(["\(network) \(border.name)"]))
                }
            }
        }
        go(ends[0], "node", .infinity, 0, [])
        return found
    }

    @Test(arguments: 0..<400) func theWidestWayAndOfThoseTheShortest(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let world = world(&generator)
        let names = world.map.documents.map(\.network)
        let ends = [names[0], names[names.count - 1]]
        let most = Double.random(in: 1...6, using: &generator).rounded()
        let all = all(world, ends)
        let way = world.map.way(ends.map { ($0, "node") }, most: most, world.offers, without: world.refused)
        let widest = all.map { min(most, $0.rate) }.max()
        #expect(way?.bitsPerSecond == widest, "seed \(seed)")
        #expect(way?.roundTripMilliseconds == all.filter { $0.rate >= widest ?? 0 }.map(\.milliseconds).min(), "seed \(seed)")
        guard let legs = way?.legs else { return }
        #expect(legs[0].network == ends[0] && legs[0].ends[0] == "node" && legs[legs.count - 1].network == ends[1] && legs[legs.count - 1].ends[1] == "node")
        for (one, next) in zip(legs, legs.dropFirst()) {
            let border = try #require(world.map.document(one.network)?.border(one.ends[1]))
            #expect(border.peer.network == next.network && border.peer.border == next.ends[0] && one.labels[1] == next.labels[0], "seed \(seed)")
            // Each side has the label free.
            #expect(one.labels[1] != nil && one.isFree(world.offers[one.network]) && next.isFree(world.offers[next.network]), "seed \(seed)")
        }
    }

    /// There are worlds with a way and worlds without one, or the test above shows nothing.
    @Test func theWorldsDiffer() {
        let found = (0..<400).map { seed in
            var generator = SeededGenerator(seed: UInt64(seed))
            let world = world(&generator)
            let names = world.map.documents.map(\.network)
            return all(world, [names[0], names[names.count - 1]]).count
        }
        #expect(found.count { $0 == 0 } > 50 && found.count { $0 == 1 } > 10 && found.count { $0 > 1 } > 50)
    }

    @Test func twoNumbersOfAPathDiffer() {
        func document(_ name: String, _ borders: [(String, String)]) -> NetworkDocument {
            NetworkDocument(
                network: "urn:\(name)", serial: 1, nodes: ["node"],
                borders: borders.map {
                    .init(
                        name: $0.0, address: "192.0.2.1", carrier: .vxlan, bitsPerSecond: 1, roundTripMilliseconds: 0, labels: [1, 2],
                        peer: .init(network: "urn:\($0.1)", border: name, address: "192.0.2.1"))
                }, connections: [])
        }
        let map = NetworkMap([document("a", [("m", "m")]), document("m", [("a", "a"), ("b", "b")]), document("b", [("m", "m")])])
        func offers(_ last: [[Int]]) -> [String: Offer] {
            func offer(_ ends: [String], _ labels: [String: [[Int]]]) -> Offer {
                Offer(connections: [.init(ends: ends, bitsPerSecond: 1, roundTripMilliseconds: 1)], labels: labels)
            }
            return [
                "urn:a": offer(["node", "m"], ["m": [[1, 1]]]), "urn:m": offer(["a", "b"], ["a": [[1, 2]], "b": [[1, 2]]]), "urn:b": offer(["m", "node"], ["m": last]),
            ]
        }
        let ends = [("urn:a", "node"), ("urn:b", "node")].map { (network: $0.0, name: $0.1) }
        #expect(map.way(ends, most: 1, offers([[1, 2]]))?.legs.map(\.labels) == [[nil, 1], [1, 2], [2, nil]])
        #expect(map.way(ends, most: 1, offers([[1, 1]])) == nil)
    }
}

// The way of a path over several networks, from what each has free. A network is crossed from one border to another, which is a
// segment of the path; between two networks both halves of a border have the same label.
//
//   urn:…:west:2026:a ─ segment ─ to-middle ═ to-west ─ segment ─ to-east ═ to-middle ─ segment ─ urn:…:east:2026:b

internal import TurntableCore

/// What is asked of one network.
public struct Leg: Codable, Sendable, Hashable {
    public var network: String
    /// A node or a border each.
    public var ends: [String]
    /// Of the ends that are borders.
    public var labels: [Int?]

    /// The same crossing of the same network, whatever its labels.
    public func crosses(_ other: Leg) -> Bool { network == other.network && ends == other.ends }

    /// Whether its labels are free, as its network says.
    public func isFree(_ offer: Offer?) -> Bool {
        zip(ends, labels).allSatisfy { end, label in label.map { Labels.contains($0, in: offer?.labels[end] ?? []) } ?? true }
    }
}

public struct NetworkWay: Sendable {
    public var legs: [Leg]
    public var bitsPerSecond: Double
    public var roundTripMilliseconds: Double
}

extension NetworkMap {
    /// The widest way, up to `most`, that has room, and of those the shortest by round trip.
    /// - Parameters:
    ///   - ends: a network and a node of it each.
    ///   - offers: by network; one that offers nothing is not crossed.
    ///   - refused: what shall not be crossed again.
    public func way(_ ends: [(network: String, name: String)], most: Double, _ offers: [String: Offer], without refused: [Leg] = []) -> NetworkWay? {
        var edges: [Graph.Edge] = []
        var crossings: [Int: Crossing] = [:]
        for document in documents {
            guard let offer = offers[document.network] else { continue }
            // Where a path begins or ends it does not cross.
            let nodes = ends.filter { $0.network == document.network }.map(\.name)
            for connection in offer.connections where nodes.isEmpty || nodes.contains(where: { connection.ends.contains($0) }) {
                for ends in [connection.ends, connection.ends.reversed()] {
                    let leg = Leg(network: document.network, ends: ends, labels: [nil, nil])
                    if refused.contains(where: { $0.crosses(leg) }) { continue }
                    edges.append(
                        Graph.Edge(
                            from: "in \(document.network) \(ends[0])", to: "out \(document.network) \(ends[1])",
                            bitsPerSecond: connection.bitsPerSecond, milliseconds: connection.roundTripMilliseconds))
                }
            }
            for border in document.borders where fault(border, of: document.network) == nil {
                let labels = Labels.shared(offer.labels[border.name] ?? [], offers[border.peer.network]?.labels[border.peer.border] ?? [])
                if labels.isEmpty { continue }
                crossings[edges.count] = Crossing(network: document.network, border: border, labels: labels)
                edges.append(
                    Graph.Edge(
                        from: "out \(document.network) \(border.name)", to: "in \(border.peer.network) \(border.peer.border)",
                        bitsPerSecond: border.bitsPerSecond, milliseconds: 0))
            }
        }
        let graph = Graph(edges)
        let best = graph.widest(["in \(ends[0].network) \(ends[0].name)", "out \(ends[1].network) \(ends[1].name)"], most: most) { way, numbers in
            Self.legs(ends, numbers.compactMap { crossings[$0] }).map { (legs: $0, milliseconds: way.reduce(0) { $0 + $1.milliseconds }) }
        }
        return best.map { NetworkWay(legs: $0.way.legs, bitsPerSecond: $0.bitsPerSecond, roundTripMilliseconds: $0.way.milliseconds) }
    }

    private struct Crossing {
        var network: String
        var border: Topology.Border
        var labels: [[Int]]
    }

    private static func legs(_ ends: [(network: String, name: String)], _ crossings: [Crossing]) -> [Leg]? {
        var legs: [Leg] = []
        var begin: (network: String, name: String, label: Int?) = (ends[0].network, ends[0].name, nil)
        // A node that two borders share knows a VXLAN by its number alone.
        var used: Set<Int> = []
        for crossing in crossings {
            let isNumber = crossing.border.carrier == .vxlan
            guard let label = Labels.any(crossing.labels, besides: isNumber ? used : []) else { return nil }
            if isNumber { used.insert(label) }
            legs.append(Leg(network: begin.network, ends: [begin.name, crossing.border.name], labels: [begin.label, label]))
            begin = (crossing.border.peer.network, crossing.border.peer.border, label)
        }
        return legs + [Leg(network: begin.network, ends: [begin.name, ends[1].name], labels: [begin.label, nil])]
    }
}

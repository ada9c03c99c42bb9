// Who has how much of which link, and when; and the way through the network that has room. Pure: no clock is read here.

internal import Foundation
internal import TurntableCore

/// One link of a path, in the direction from the first end to the second.
public struct Hop: Codable, Sendable, Hashable {
    public var link: String
    public var from: String
    /// The VLAN or VXLAN that the path is there.
    public var label: Int
}

struct Calendar {
    struct Entry {
        var hops: [Hop]
        var bitsPerSecond: Double
        var from: Date
        var until: Date
    }
    let topology: Topology
    /// By the link's name.
    private var entries: [String: [Entry]] = [:]

    init(_ topology: Topology, _ all: some Sequence<Entry>) {
        self.topology = topology
        for entry in all { for hop in entry.hops { entries[hop.link, default: []].append(entry) } }
    }

    private func overlapping(_ link: String, _ from: Date, _ until: Date) -> [Entry] {
        (entries[link] ?? []).filter { $0.from < until && from < $0.until }
    }

    /// The least that is free of a link at any time of a window.
    func free(_ link: Topology.Link, _ from: Date, _ until: Date) -> Double {
        let others = overlapping(link.name, from, until)
        // What is taken grows only where one begins.
        let instants = [from] + others.map(\.from).filter { $0 > from }
        let taken = instants.map { instant in others.filter { $0.from <= instant && instant < $0.until }.reduce(0) { $0 + $1.bitsPerSecond } }
        return max(0, link.bitsPerSecond - (taken.max() ?? 0))
    }

    /// Links on which a label must not be used twice: a node knows a VXLAN by its number, wherever it comes from.
    private func sharing(_ link: Topology.Link) -> [Topology.Link] {
        guard link.carrier == .vxlan else { return [link] }
        let nodes = Set(link.ends.map(\.node))
        return topology.allLinks.filter { $0.carrier == .vxlan && !nodes.isDisjoint(with: $0.ends.map(\.node)) }
    }

    /// Labels of a link that somebody has in a window, or another hop of the path.
    func used(_ link: Topology.Link, _ from: Date, _ until: Date, besides path: [Hop] = []) -> Set<Int> {
        let sharing = Set(sharing(link).map(\.name))
        let hops = sharing.flatMap { overlapping($0, from, until).flatMap(\.hops) } + path
        return Set(hops.filter { sharing.contains($0.link) }.map(\.label))
    }

    /// What is free in a window, as a graph.
    private func free(_ from: Date, _ until: Date) -> (links: [Topology.Link], graph: Graph) {
        let links = topology.allLinks.filter { Labels.first([$0.labels], besides: used($0, from, until)) != nil }
        let edges = links.flatMap { link in
            let free = free(link, from, until)
            return [0, 1].map {
                Graph.Edge(
                    from: link.ends[$0].node, to: link.ends[1 - $0].node, bitsPerSecond: free, milliseconds: link.roundTripMilliseconds)
            }
        }
        return (links, Graph(edges))
    }

    typealias Path = (hops: [Hop], bitsPerSecond: Double, roundTripMilliseconds: Double)

    /// The widest rate, up to `most`, that a path between two ends has; and of the paths that have it the shortest, by round trip and
    /// then by the number of its links.
    /// - Parameter given: labels that were agreed on with other networks, by border.
    func path(_ ends: [String], most: Double, _ from: Date, _ until: Date, given: [String: Int] = [:]) -> Path? {
        path(ends, most: most, from, until, given, in: free(from, until))
    }

    private func path(
        _ ends: [String], most: Double, _ from: Date, _ until: Date, _ given: [String: Int], in free: (links: [Topology.Link], graph: Graph)
    ) -> Path? {
        let best = free.graph.widest(ends, most: most) { way, numbers in
            labelled(zip(way, numbers).map { (free.links[$1 / 2], $0.from) }, from, until, given).map {
                (hops: $0, milliseconds: way.reduce(0) { $0 + $1.milliseconds })
            }
        }
        return best.map { ($0.way.hops, $0.bitsPerSecond, $0.way.milliseconds) }
    }

    private func labelled(
        _ way: [(link: Topology.Link, from: String)], _ from: Date, _ until: Date, _ given: [String: Int]
    ) -> [Hop]? {
        var hops: [Hop] = []
        // What others chose comes first, so that our own choice keeps clear of it.
        for step in way {
            guard let label = given[step.link.name] else { continue }
            let isFree = (step.link.labels[0]...step.link.labels[1]).contains(label) && !used(step.link, from, until, besides: hops).contains(label)
            guard isFree else { return nil }
            hops.append(Hop(link: step.link.name, from: step.from, label: label))
        }
        for step in way where given[step.link.name] == nil {
            guard let label = Labels.first([step.link.labels], besides: used(step.link, from, until, besides: hops)) else { return nil }
            hops.append(Hop(link: step.link.name, from: step.from, label: label))
        }
        return way.compactMap { step in hops.first { $0.link == step.link.name } }
    }

    /// Between each two borders, and from each to a node.
    func connections(_ node: String?, most: Double, _ from: Date, _ until: Date) -> [NetworkDocument.Connection] {
        let borders = (topology.borders ?? []).map(\.name)
        let pairs = borders.enumerated().flatMap { index, one in borders[(index + 1)...].map { [one, $0] } + (node.map { [[one, $0]] } ?? []) }
        let free = free(from, until)
        return pairs.compactMap { ends in
            path(ends, most: most, from, until, [:], in: free).map {
                NetworkDocument.Connection(ends: ends, bitsPerSecond: $0.bitsPerSecond, roundTripMilliseconds: $0.roundTripMilliseconds)
            }
        }
    }
}

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
        return topology.links.filter { $0.carrier == .vxlan && !nodes.isDisjoint(with: $0.ends.map(\.node)) }
    }

    /// The lowest label of a link that nobody has in a window, and no other hop of the path.
    private func label(_ link: Topology.Link, _ from: Date, _ until: Date, besides path: [Hop] = []) -> Int? {
        let sharing = Set(sharing(link).map(\.name))
        let hops = sharing.flatMap { overlapping($0, from, until).flatMap(\.hops) } + path
        let used = Set(hops.filter { sharing.contains($0.link) }.map(\.label))
        return (link.labels[0]...link.labels[1]).first { !used.contains($0) }
    }

    /// The widest rate, up to `most`, that a path between two nodes has; and of the paths that have it the shortest, by round trip and
    /// then by the number of its links.
    func path(_ ends: [String], most: Double, _ from: Date, _ until: Date) -> (hops: [Hop], bitsPerSecond: Double)? {
        let links = topology.links.filter { label($0, from, until) != nil }.map { (link: $0, free: free($0, from, until)) }
        // The answer is `most`, or what is free of some link.
        let rates = ([most] + links.map(\.free).filter { $0 > 0 && $0 < most }).sorted(by: >)
        // What fits a rate fits every lower one.
        var low = 0
        var high = rates.count
        var best: (hops: [Hop], bitsPerSecond: Double)?
        while low < high {
            let middle = (low + high) / 2
            let wide = links.filter { $0.free >= rates[middle] }.map(\.link)
            if let way = shortest(ends, wide), let hops = labelled(way, from, until) {
                best = (hops, rates[middle])
                high = middle
            } else {
                low = middle + 1
            }
        }
        return best
    }

    private func labelled(_ way: [(link: Topology.Link, from: String)], _ from: Date, _ until: Date) -> [Hop]? {
        var hops: [Hop] = []
        for step in way {
            guard let label = label(step.link, from, until, besides: hops) else { return nil }
            hops.append(Hop(link: step.link.name, from: step.from, label: label))
        }
        return hops
    }

    private func shortest(_ ends: [String], _ links: [Topology.Link]) -> [(link: Topology.Link, from: String)]? {
        var at: [String: [Int]] = [:]
        for (index, link) in links.enumerated() { for end in link.ends { at[end.node, default: []].append(index) } }
        typealias Distance = (milliseconds: Double, hops: Int)
        var distances: [String: Distance] = [ends[0]: (0, 0)]
        var came: [String: (from: String, link: Int)] = [:]
        var open: Set<String> = [ends[0]]
        while let node = open.min(by: { (distances[$0] ?? (0, 0)) < (distances[$1] ?? (0, 0)) }), node != ends[1] {
            open.remove(node)
            let here = distances[node] ?? (0, 0)
            for index in at[node] ?? [] {
                let link = links[index]
                let next = link.other(than: node)
                let there: Distance = (here.milliseconds + link.roundTripMilliseconds, here.hops + 1)
                guard there.hops <= Limits.lightpathHops, distances[next].map({ there < $0 }) ?? true else { continue }
                distances[next] = there
                came[next] = (node, index)
                open.insert(next)
            }
        }
        var way: [(link: Topology.Link, from: String)] = []
        var node = ends[1]
        while node != ends[0] {
            guard let step = came[node] else { return nil }
            way.insert((links[step.link], step.from), at: 0)
            node = step.from
        }
        return way
    }
}

// The widest way through a graph, and of the widest the shortest. Pure: links of a network, or networks and what they offer.

internal import TurntableCore

struct Graph {
    /// In one direction: what is passed in both has two.
    struct Edge: Sendable {
        var from: String
        var to: String
        var bitsPerSecond: Double
        var milliseconds: Double
    }
    let edges: [Edge]
    private let numbers: [String: Int]
    /// Edges that begin at a node.
    private let leaving: [[Int]]

    init(_ edges: [Edge]) {
        self.edges = edges
        var numbers: [String: Int] = [:]
        var leaving: [[Int]] = []
        for (index, edge) in edges.enumerated() {
            for name in [edge.from, edge.to] where numbers[name] == nil {
                numbers[name] = leaving.count
                leaving.append([])
            }
            if let from = numbers[edge.from] { leaving[from].append(index) }
        }
        self.numbers = numbers
        self.leaving = leaving
    }

    /// The widest rate, up to `most`, that a usable way has; and the shortest way that has it.
    /// - Parameter usable: makes of a way what is wanted, nil if it cannot be used.
    func widest<Way>(
        _ ends: [String], most: Double, usable: ([Edge], [Int]) -> Way?
    ) -> (way: Way, bitsPerSecond: Double)? {
        // The answer is `most`, or what some edge has.
        let rates = ([most] + Set(edges.map(\.bitsPerSecond)).filter { $0 > 0 && $0 < most }).sorted(by: >)
        // What fits a rate fits every lower one.
        var low = 0
        var high = rates.count
        var best: (way: Way, bitsPerSecond: Double)?
        while low < high {
            let middle = (low + high) / 2
            if let found = shortest(ends, rates[middle]), let way = usable(found.map { edges[$0] }, found) {
                best = (way, rates[middle])
                high = middle
            } else {
                low = middle + 1
            }
        }
        return best
    }

    /// By time, and then by the number of edges, of those that have a rate.
    func shortest(_ ends: [String], _ bitsPerSecond: Double) -> [Int]? {
        guard let start = numbers[ends[0]], let goal = numbers[ends[1]] else { return nil }
        typealias Distance = (milliseconds: Double, hops: Int)
        var distances = [Distance?](repeating: nil, count: leaving.count)
        var came = [Int?](repeating: nil, count: leaving.count)
        var open: Set<Int> = [start]
        distances[start] = (0, 0)
        while let node = open.min(by: { (distances[$0] ?? (0, 0)) < (distances[$1] ?? (0, 0)) }), node != goal {
            open.remove(node)
            let here = distances[node] ?? (0, 0)
            for index in leaving[node] where edges[index].bitsPerSecond >= bitsPerSecond {
                guard let next = numbers[edges[index].to] else { continue }
                let there: Distance = (here.milliseconds + edges[index].milliseconds, here.hops + 1)
                guard there.hops <= Limits.lightpathHops, distances[next].map({ there < $0 }) ?? true else { continue }
                distances[next] = there
                came[next] = index
                open.insert(next)
            }
        }
        var way: [Int] = []
        var node = goal
        while node != start {
            guard let index = came[node], let before = numbers[edges[index].from] else { return nil }
            way.append(index)
            node = before
        }
        return way.reversed()
    }
}

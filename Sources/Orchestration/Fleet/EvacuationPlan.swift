// In which order, how many at once, and how fast each: moving all machines of a site over one line. Pure.
//
// A machine of M bytes that writes d bytes/s, sent at r, is there after s + (M - r D) / (r - d): what it writes meanwhile is sent again,
// until what is left passes within the downtime D; s is what a migration takes besides (slots, reservation, hand-off). At r ≤ d it
// never is. While it moves it has r of the line for itself.
//
// So each machine costs the line r · time, which is least at r = d + √(M d / s): slower, and its own writes use the line up; faster, and
// the line stands idle between migrations. Rates begin there and are raised together, to where the last machine is there earliest;
// at each rate the longest begin first, and whatever still fits beside them begins at once. That is near the best where there are many;
// of few, each is tried at other places and rates as long as that helps.

struct EvacuationPlan: Sendable, Equatable {
    struct Machine: Sendable, Equatable {
        var name: String
        var memoryBytes: Double
        var dirtyBytesPerSecond: Double
    }
    struct Limits: Sendable, Equatable {
        var lineBytesPerSecond: Double
        /// The most that one machine is sent at, and the least.
        var mostBytesPerSecond: Double
        var leastBytesPerSecond: Double
        /// Machines that move at once.
        var concurrency: Int
        var downtimeSeconds: Double
        /// What a migration takes besides its bytes.
        var fixedSeconds: Double
    }
    struct Part: Sendable, Equatable {
        var name: String
        var bytesPerSecond: Double
        var begin: Double
        var end: Double
    }
    /// In the order in which they begin.
    var parts: [Part]
    /// Those that write faster than the line is.
    var hopeless: [String]
    var seconds: Double { parts.map(\.end).max() ?? 0 }

    static func seconds(_ machine: Machine, at rate: Double, _ limits: Limits) -> Double? {
        guard rate > machine.dirtyBytesPerSecond else { return nil }
        let rest = max(0, machine.memoryBytes - rate * limits.downtimeSeconds)
        return limits.fixedSeconds + rest / (rate - machine.dirtyBytesPerSecond) + min(machine.memoryBytes / rate, limits.downtimeSeconds)
    }

    /// The rate at which a machine takes least of the line, of those that it can have.
    static func thriftiestRate(_ machine: Machine, _ limits: Limits) -> Double {
        let best = machine.dirtyBytesPerSecond + (machine.memoryBytes * machine.dirtyBytesPerSecond / max(limits.fixedSeconds, 1e-3)).squareRoot()
        return min(max(best, limits.leastBytesPerSecond), min(limits.mostBytesPerSecond, limits.lineBytesPerSecond))
    }

    /// What one machine takes of the line at the least, in bytes: no order can do with less.
    static func leastCost(_ machine: Machine, _ limits: Limits) -> Double {
        let rate = thriftiestRate(machine, limits)
        return seconds(machine, at: rate, limits).map { $0 * rate } ?? .infinity
    }

    static func make(_ machines: [Machine], _ limits: Limits) -> EvacuationPlan {
        let most = min(limits.mostBytesPerSecond, limits.lineBytesPerSecond)
        let hopeless = machines.filter { seconds($0, at: most, limits) == nil }
        let movable = machines.filter { seconds($0, at: most, limits) != nil }
        var best = EvacuationPlan(parts: [], hopeless: hopeless.map(\.name))
        var bestOrder: [(machine: Machine, rate: Double)] = []
        for step in 0..<24 {
            // Up to the whole line for each, in steps of 3/2.
            let factor = power(1.5, step)
            // Fewer than would fill the line are never wanted.
            let floor = min(most, limits.lineBytesPerSecond / Double(max(1, min(limits.concurrency, movable.count))))
            let rates = movable.map { min(most, max(floor, factor * thriftiestRate($0, limits))) }
            for order in orders(movable, rates, limits) {
                let plan = run(order, limits)
                if best.parts.isEmpty || plan.last < best.seconds { (best.parts, bestOrder) = (plan.parts, order) }
            }
            if rates.allSatisfy({ $0 == most }) { break }
        }
        if movable.count <= fewMachines { best.parts = improved(bestOrder, most, limits).parts }
        return best
    }

    /// Of so many each is tried everywhere: their number to the fourth power in steps, at the most.
    private static let fewMachines = 16

    private static func improved(
        _ first: [(machine: Machine, rate: Double)], _ most: Double, _ limits: Limits
    ) -> (parts: [Part], last: Double) {
        var order = first
        var best = run(order, limits)
        for _ in 0..<fewMachines {
            let before = best.last
            for index in order.indices {
                for place in order.indices {
                    for share in 1...6 {
                        var other = order
                        var moved = other.remove(at: index)
                        moved.rate = max(limits.leastBytesPerSecond, most / Double(share))
                        guard seconds(moved.machine, at: moved.rate, limits) != nil else { continue }
                        other.insert(moved, at: place)
                        let plan = run(other, limits)
                        if plan.last < best.last { (order, best) = (other, plan) }
                    }
                }
            }
            if best.last == before { break }
        }
        return best
    }

    private static func power(_ base: Double, _ exponent: Int) -> Double { (0..<exponent).reduce(1) { product, _ in product * base } }

    /// The longest first, and those that take most of the line first; ties by name, so that a plan is the same each time.
    private static func orders(_ machines: [Machine], _ rates: [Double], _ limits: Limits) -> [[(machine: Machine, rate: Double)]] {
        let all = zip(machines, rates).map { (machine: $0, rate: $1, seconds: seconds($0, at: $1, limits) ?? .infinity) }
        func sorted(by key: (Double, Double) -> Double) -> [(machine: Machine, rate: Double)] {
            all.sorted { (key($1.seconds, $1.rate), $0.machine.name) < (key($0.seconds, $0.rate), $1.machine.name) }.map { ($0.machine, $0.rate) }
        }
        return [sorted { time, _ in time }, sorted { time, rate in time * rate }, sorted { time, rate in rate * 1e9 + time }]
    }

    /// What happens if machines begin in this order, each as soon as there is room; one behind that fits begins before one that does not.
    static func run(_ order: [(machine: Machine, rate: Double)], _ limits: Limits) -> (parts: [Part], last: Double) {
        var waiting = order[...].map { $0 }
        var moving: [(end: Double, rate: Double)] = []
        var parts: [Part] = []
        var now = 0.0
        var free = limits.lineBytesPerSecond
        while !waiting.isEmpty {
            var next = 0
            // A millionth of the line is no rate: sums of shares are never quite the whole.
            while next < waiting.count, moving.count < limits.concurrency, free > limits.lineBytesPerSecond * 1e-6 {
                let (machine, rate) = waiting[next]
                guard rate <= free * (1 + 1e-9), let time = seconds(machine, at: rate, limits) else {
                    next += 1
                    continue
                }
                waiting.remove(at: next)
                free -= rate
                moving.append((now + time, rate))
                parts.append(Part(name: machine.name, bytesPerSecond: rate, begin: now, end: now + time))
            }
            guard let first = moving.indices.min(by: { moving[$0].end < moving[$1].end }) else { break }
            now = moving[first].end
            free += moving[first].rate
            moving.remove(at: first)
        }
        return (parts, parts.map(\.end).max() ?? 0)
    }
}

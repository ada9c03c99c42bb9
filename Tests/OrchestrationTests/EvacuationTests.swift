internal import Testing
internal import TestSupport
@testable internal import Orchestration

/// Plans for whole sites, against every order there is where that can be tried, and against what no order can beat.
struct EvacuationTests {
    private static let limits = EvacuationPlan.Limits(
        lineBytesPerSecond: 1.25e9, mostBytesPerSecond: 1.25e9, leastBytesPerSecond: 1.25e6, concurrency: 16, downtimeSeconds: 0.3, fixedSeconds: 2)

    private static func machines(_ count: Int, _ generator: inout SeededGenerator, most: Double = 200e6) -> [EvacuationPlan.Machine] {
        (0..<count).map { number in
            // From half a gibibyte that hardly writes to 32 GiB that writes what half of the line carries.
            let memory = Double([1, 2, 4, 8, 16, 64].randomElement(using: &generator) ?? 1) * 512 * 1_048_576
            let dirty = Double.random(in: 0...1, using: &generator)
            return EvacuationPlan.Machine(name: "vm\(number)", memoryBytes: memory, dirtyBytesPerSecond: dirty * dirty * most)
        }
    }

    /// Nothing is given twice, and each has the time that it needs.
    private func check(_ plan: EvacuationPlan, _ machines: [EvacuationPlan.Machine], _ limits: EvacuationPlan.Limits) {
        #expect(Set(plan.parts.map(\.name) + plan.hopeless) == Set(machines.map(\.name)) && plan.parts.count + plan.hopeless.count == machines.count)
        let known = Dictionary(uniqueKeysWithValues: machines.map { ($0.name, $0) })
        for part in plan.parts {
            let time = known[part.name].flatMap { EvacuationPlan.seconds($0, at: part.bytesPerSecond, limits) }
            #expect(abs((time ?? -1) - (part.end - part.begin)) < 1e-6)
            let beside = plan.parts.filter { $0.begin <= part.begin && part.begin < $0.end }
            #expect(beside.reduce(0) { $0 + $1.bytesPerSecond } <= limits.lineBytesPerSecond * 1.00001 && beside.count <= limits.concurrency)
        }
    }

    private static func permutations(_ items: [Int]) -> [[Int]] {
        guard items.count > 1 else { return [items] }
        return items.indices.flatMap { index -> [[Int]] in
            var rest = items
            let first = rest.remove(at: index)
            return permutations(rest).map { [first] + $0 }
        }
    }

    /// Five machines: every order, with each machine at each of four rates. No better one may be more than a tenth better.
    @Test(arguments: 0..<4) func withinATenthOfTheBestOrder(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let machines = Self.machines(5, &generator)
        let plan = EvacuationPlan.make(machines, Self.limits)
        check(plan, machines, Self.limits)
        let shares = [1, 0.5, 1.0 / 3, 0.2].map { $0 * Self.limits.lineBytesPerSecond }
        var best = Double.infinity
        let orders = Self.permutations(Array(machines.indices))
        for choice in 0..<1024 {
            var rest = choice
            let rates = machines.map { machine -> Double in
                defer { rest /= 4 }
                return shares[rest % 4]
            }
            guard zip(machines, rates).allSatisfy({ EvacuationPlan.seconds($0, at: $1, Self.limits) != nil }) else { continue }
            for order in orders { best = min(best, EvacuationPlan.run(order.map { (machines[$0], rates[$0]) }, Self.limits).last) }
        }
        #expect(best < .infinity)
        #expect(plan.seconds <= best * 1.1, "seed \(seed): \(plan.seconds) s, and the best order takes \(best) s")
    }

    /// A thousand machines: what all of them take of the line at the least, one after the other without a gap, is no more than a tenth less.
    @Test(arguments: 0..<5) func aThousandMachines(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let machines = Self.machines(1000, &generator)
        let plan = EvacuationPlan.make(machines, Self.limits)
        check(plan, machines, Self.limits)
        let bound = machines.reduce(0) { $0 + EvacuationPlan.leastCost($1, Self.limits) } / Self.limits.lineBytesPerSecond
        #expect(plan.seconds <= bound * 1.1, "seed \(seed): \(plan.seconds) s; at least \(bound) s")
    }

    /// Many at once would each be slower than it writes; the plan moves fewer.
    @Test func machinesThatWriteALotMoveFewAtOnce() throws {
        let quick = (0..<16).map { EvacuationPlan.Machine(name: "q\($0)", memoryBytes: 4e9, dirtyBytesPerSecond: 400e6) }
        let plan = EvacuationPlan.make(quick, Self.limits)
        check(plan, quick, Self.limits)
        for part in plan.parts { #expect(part.bytesPerSecond > 400e6 && plan.parts.filter { $0.begin <= part.begin && part.begin < $0.end }.count <= 3) }
        // As many as may, each with the same share, would never end.
        #expect(EvacuationPlan.seconds(quick[0], at: Self.limits.lineBytesPerSecond / 16, Self.limits) == nil)
        let calm = (0..<64).map { EvacuationPlan.Machine(name: "c\($0)", memoryBytes: 1e9, dirtyBytesPerSecond: 1e5) }
        let other = EvacuationPlan.make(calm, Self.limits)
        check(other, calm, Self.limits)
        #expect(other.parts.filter { $0.begin == 0 }.count > 4)
    }

    @Test func whatIsFasterThanTheLineIsNamed() {
        let machines = [EvacuationPlan.Machine(name: "a", memoryBytes: 1e9, dirtyBytesPerSecond: 2e9), EvacuationPlan.Machine(name: "b", memoryBytes: 1e9, dirtyBytesPerSecond: 0)]
        let plan = EvacuationPlan.make(machines, Self.limits)
        #expect(plan.hopeless == ["a"] && plan.parts.map(\.name) == ["b"])
        #expect(EvacuationPlan.make([], Self.limits).seconds == 0)
    }
}

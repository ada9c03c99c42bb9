internal import Foundation
internal import TestSupport
internal import Testing
internal import TurntableCore
@testable internal import Orchestration

/// Plans of evacuations, by the model that `EvacuationPlan.swift` states.
struct FleetTests {
    private static let gibibyte = Double(1 << 30)

    private func machines(_ count: Int, seed: UInt64, busiest: Double) -> [FleetMachine] {
        var generator = SeededGenerator(seed: seed)
        return (0..<count).map { number in
            // Most are quiet, some are busy: a cubed uniform number.
            let busy = pow(Double.random(in: 0...1, using: &generator), 3)
            return FleetMachine(
                name: "m\(number)", bytes: Double.random(in: 0.25...16, using: &generator) * Self.gibibyte,
                dirtyBytesPerSecond: busy * busiest)
        }
    }

    private func check(_ plan: EvacuationPlan, _ machines: [FleetMachine], _ line: FleetLine) {
        #expect(Set(plan.moves.map(\.machine.name)) == Set(machines.map(\.name)) && plan.moves.count == machines.count)
        // At each begin: the line is not given twice, not too many move, and whoever moves does so faster than it writes.
        for move in plan.moves {
            let beside = plan.moves.filter { $0.start <= move.start && move.start < $0.end }
            #expect(beside.reduce(0) { $0 + $1.bytesPerSecond } <= line.bytesPerSecond * (1 + 1e-6) && beside.count <= line.most)
            #expect(move.bytesPerSecond > move.machine.dirtyBytesPerSecond)
            #expect(move.end > move.start)
        }
    }

    /// No order and no rates are over before the bound, so a plan within 10 % of it is within 10 % of the best.
    @Test(arguments: 1...3) func aThousandMachinesLeaveWithinATenthOfTheBestOrder(_ seed: Int) {
        let line = FleetLine(bytesPerSecond: 10e9 / 8, overheadSeconds: 1.5, most: 16)
        let machines = machines(1000, seed: UInt64(seed), busiest: 400e6)
        let planner = EvacuationPlanner(line: line)
        let plan = planner.plan(machines)
        check(plan, machines, line)
        #expect(plan.seconds <= planner.bound(machines) * 1.1, "seed \(seed): \(plan.seconds) s, bound \(planner.bound(machines)) s")
    }

    /// All orders, with all rates of a grid, of few machines.
    @Test(arguments: 1...4) func fewMachinesLeaveWithinATenthOfTheBestOrder(_ seed: Int) {
        let line = FleetLine(bytesPerSecond: 125e6, overheadSeconds: 1.5, most: 3)
        let machines = machines(5, seed: UInt64(seed), busiest: 60e6)
        let planner = EvacuationPlanner(line: line)
        var best = Double.infinity
        func search(_ chosen: [PlannedMove], _ left: [FleetMachine]) {
            if left.isEmpty { best = min(best, planner.scheduled(chosen).map(\.end).max() ?? 0) }
            for (index, machine) in left.enumerated() {
                var rest = left
                rest.remove(at: index)
                for share in 1...3 where line.bytesPerSecond / Double(share) > machine.dirtyBytesPerSecond * EvacuationPlanner.convergence {
                    search(chosen + [PlannedMove(machine: machine, bytesPerSecond: line.bytesPerSecond / Double(share))], rest)
                }
            }
        }
        search([], machines)
        let plan = planner.plan(machines)
        check(plan, machines, line)
        #expect(plan.seconds <= best * 1.1, "seed \(seed): \(plan.seconds) s, best \(best) s")
    }

    /// What everybody does: all at once. Busy machines then get less of the line than they write, and never end.
    @Test func allAtOnceIsWorseWhereItEndsAtAll() {
        let line = FleetLine(bytesPerSecond: 10e9 / 8, overheadSeconds: 1.5, most: 16)
        let machines = machines(16, seed: 4, busiest: 60e6)
        let planner = EvacuationPlanner(line: line)
        let together = machines.map { planner.duration(of: $0, at: line.bytesPerSecond / 16) }.max() ?? 0
        #expect(planner.plan(machines).seconds < together)
    }

    @Test func whoWritesFasterThanTheLineIsNamed() {
        let line = FleetLine(bytesPerSecond: 125e6, overheadSeconds: 1.5, most: 4)
        let busy = FleetMachine(name: "busy", bytes: Self.gibibyte, dirtyBytesPerSecond: 120e6)
        let quiet = FleetMachine(name: "quiet", bytes: Self.gibibyte, dirtyBytesPerSecond: 0)
        let plan = EvacuationPlanner(line: line).plan([busy, quiet])
        #expect(plan.unmovable == [busy] && plan.moves.map(\.machine) == [quiet])
    }

    @Test func higherPrioritiesLeaveFirst() {
        let line = FleetLine(bytesPerSecond: 125e6, overheadSeconds: 1.5, most: 2)
        var machines = machines(9, seed: 5, busiest: 50e6)
        for index in machines.indices { machines[index].priority = index % 3 }
        let plan = EvacuationPlanner(line: line).plan(machines)
        check(plan, machines, line)
        let ends = (0..<3).map { priority in plan.moves.filter { $0.machine.priority == priority }.map(\.end).max() ?? 0 }
        #expect(ends[2] < ends[1] && ends[1] < ends[0])
    }

    @Test func whatIsPlannedFirstBeginsFirstAndNobodyWaitsBehindWhatDoesNotFit() {
        #expect(EvacuationPlanner.beginning([5, 4, 3, 1], free: 8, running: 0, most: 9) == [0, 2])
        #expect(EvacuationPlanner.beginning([5, 4, 3], free: 4, running: 1, most: 2) == [1])
        #expect(EvacuationPlanner.beginning([5], free: 4, running: 0, most: 2) == [])
        #expect(EvacuationPlanner.beginning([0, 0, 0], free: .infinity, running: 1, most: 2) == [0])
    }

    /// Whoever begins a machine's move, the migration is the same one.
    @Test func aMigrationsNameFollowsFromWhatItIsFor() {
        let name = Evacuation.migration("e", "m", 1)
        #expect(name == Evacuation.migration("e", "m", 1) && Admission.isIdentifier(name))
        #expect(Set([name, Evacuation.migration("e", "m", 2), Evacuation.migration("e", "n", 1), Evacuation.migration("f", "m", 1)]).count == 4)
    }

    @Test(arguments: [
        (EvacuationRequest(source: "a", target: "../b"), "target"), (EvacuationRequest(source: "../a", target: "b"), "source"),
        (EvacuationRequest(source: "a", target: "b", vms: []), "vms"), (EvacuationRequest(source: "a", target: "b", vms: ["m", "m"]), "vms"),
        (EvacuationRequest(id: "1", source: "a", target: "b"), "id"), (EvacuationRequest(source: "a", target: "b", priorities: ["m": 5000]), "priorities"),
        (EvacuationRequest(source: "a", target: "b", priorities: ["m": .min]), "priorities"),
        (EvacuationRequest(source: "a", target: "b", downtimeMilliseconds: 0), "downtimeMilliseconds"),
    ]) func aBadRequestIsNamed(_ request: EvacuationRequest, _ member: String) throws {
        let problem = try #require(throws: Problem.self) { try EvacuationsAPI.check(request) }
        #expect(problem.status == 400 && problem.title == member)
    }
}

// In which order many machines leave over one line, and at what rate each.
//
// Pre-copy at rate r of M bytes, of which d a second are written meanwhile, sends M + M(d/r) + M(d/r)² + … = M·r/(r - d) bytes. Beside
// them a move takes f seconds in which its part of the line idles: greeting, the target's shell, the hand-over. So it takes
//
//   time   t(r) = f + M/(r - d)          area of the line   r·t(r) = r·f + M·r/(r - d)
//
// and the area is least at r = d + √(M·d/f): a busy machine wants the line for itself, while quiet ones cost nothing by moving side by side,
// which hides their f. Below d a move never ends: too many at once converge none. What is left is packing rectangles that may be
// reshaped into a strip: each machine gets the thriftiest rate with which it takes no longer than a bound, the longest begins first,
// and the bound is chosen for the earliest end of all. Where there are few machines, changes of order and rate are tried on top.

internal import Foundation
internal import TurntableCore

/// A machine that is to move.
struct FleetMachine: Equatable, Sendable {
    var name: String
    /// The memory that it uses, and its disks if they come along.
    var bytes: Double
    var dirtyBytesPerSecond: Double
    /// Higher ones leave first.
    var priority = 0
}

/// A line as it is free for this.
struct FleetLine: Equatable, Sendable {
    var bytesPerSecond: Double
    /// What a move takes besides sending.
    var overheadSeconds: Double
    /// The most that move at once: each costs both hosts something.
    var most: Int
}

struct PlannedMove: Equatable, Sendable {
    var machine: FleetMachine
    var bytesPerSecond: Double
    var start = 0.0
    var end = 0.0
}

struct EvacuationPlan: Equatable, Sendable {
    /// In the order in which they begin: the next one that fits into what is free.
    var moves: [PlannedMove]
    var seconds: Double { moves.map(\.end).max() ?? 0 }
    /// Those that write faster than the whole line.
    var unmovable: [FleetMachine]
}

struct EvacuationPlanner {
    let line: FleetLine

    /// A move below this share above its dirty rate takes too long to be counted on.
    static let convergence = 1.25
    private static let bounds = 40
    private static let trials = 4000
    /// With more machines than this their number evens out what a better order would gain.
    private static let fewMachines = 12

    func plan(_ machines: [FleetMachine]) -> EvacuationPlan {
        let movable = machines.filter { leastRate($0) <= line.bytesPerSecond }
        var moves: [PlannedMove] = []
        // Each class of priority as if it were alone; where one ends the next fills what is free.
        for priority in Set(movable.map(\.priority)).sorted(by: >) { moves += packed(movable.filter { $0.priority == priority }) }
        return EvacuationPlan(moves: scheduled(moves), unmovable: machines.filter { leastRate($0) > line.bytesPerSecond })
    }

    func duration(of machine: FleetMachine, at rate: Double) -> Double { line.overheadSeconds + machine.bytes / (rate - machine.dirtyBytesPerSecond) }

    /// No plan is over before: all areas at their least, side by side without a gap, and the longest move at the line's whole rate.
    func bound(_ machines: [FleetMachine]) -> Double {
        let area = machines.reduce(0) { $0 + thriftiestRate($1) * duration(of: $1, at: thriftiestRate($1)) }
        return max(area / line.bytesPerSecond, machines.map { duration(of: $0, at: line.bytesPerSecond) }.max() ?? 0)
    }

    private func leastRate(_ machine: FleetMachine) -> Double {
        max(line.bytesPerSecond / Double(line.most), machine.dirtyBytesPerSecond * Self.convergence)
    }

    private func thriftiestRate(_ machine: FleetMachine) -> Double {
        let (bytes, dirty) = (machine.bytes, machine.dirtyBytesPerSecond)
        return clamped(dirty + (bytes * dirty / line.overheadSeconds).squareRoot(), machine)
    }

    private func clamped(_ rate: Double, _ machine: FleetMachine) -> Double { min(line.bytesPerSecond, max(leastRate(machine), rate)) }

    /// The thriftiest rate with which it takes no longer than `bound`, if any does.
    private func rate(_ machine: FleetMachine, within bound: Double) -> Double {
        let sending = bound - line.overheadSeconds
        let needed = sending > 0 ? machine.dirtyBytesPerSecond + machine.bytes / sending : line.bytesPerSecond
        return clamped(max(needed, thriftiestRate(machine)), machine)
    }

    private func packed(_ machines: [FleetMachine]) -> [PlannedMove] {
        guard !machines.isEmpty else { return [] }
        let least = machines.map { duration(of: $0, at: line.bytesPerSecond) }.min() ?? 0
        let most = max(bound(machines), least) * 1.5
        var best: [PlannedMove] = []
        var bestSeconds = Double.infinity
        for step in 0...Self.bounds {
            let bound = least * pow(most / least, Double(step) / Double(Self.bounds))
            let moves = machines.map { machine in
                let chosen = rate(machine, within: bound)
                return PlannedMove(machine: machine, bytesPerSecond: chosen, end: duration(of: machine, at: chosen))
            }
            .sorted { ($0.end, $0.machine.name) > ($1.end, $1.machine.name) }
            let seconds = length(moves)
            if seconds < bestSeconds { (best, bestSeconds) = (moves, seconds) }
        }
        return machines.count <= Self.fewMachines ? improved(best, bestSeconds) : best
    }

    /// Tries exchanging two moves and giving one another rate, and keeps what is shorter. The same for the same machines.
    private func improved(_ moves: [PlannedMove], _ seconds: Double) -> [PlannedMove] {
        var (best, bestSeconds) = (moves, seconds)
        var generator = SeededGenerator(seed: 1)
        for _ in 0..<Self.trials where best.count > 1 {
            var trial = best
            for _ in 0...Int.random(in: 0...2, using: &generator) {
                let (one, other) = (Int.random(in: best.indices, using: &generator), Int.random(in: best.indices, using: &generator))
                if Bool.random(using: &generator) {
                    trial.swapAt(one, other)
                } else {
                    let share = Double(Int.random(in: 1...line.most, using: &generator))
                    trial[one].bytesPerSecond = clamped(line.bytesPerSecond / share, trial[one].machine)
                }
            }
            let seconds = length(trial)
            if seconds < bestSeconds { (best, bestSeconds) = (trial, seconds) }
        }
        return best
    }

    private func length(_ moves: [PlannedMove]) -> Double { scheduled(moves).map(\.end).max() ?? 0 }

    /// When each begins and ends, if whenever something ends the first ones that fit begin: what the master does.
    func scheduled(_ moves: [PlannedMove]) -> [PlannedMove] {
        var (waiting, running, done) = (moves, [PlannedMove](), [PlannedMove]())
        var (time, free) = (0.0, line.bytesPerSecond)
        let least = moves.map(\.bytesPerSecond).min() ?? 0
        while !waiting.isEmpty || !running.isEmpty {
            let chosen = Self.beginning(waiting.lazy.map(\.bytesPerSecond), least: least, free: free, running: running.count, most: line.most)
            for index in chosen {
                var move = waiting[index]
                (move.start, move.end) = (time, time + duration(of: move.machine, at: move.bytesPerSecond))
                free -= move.bytesPerSecond
                running.append(move)
            }
            for index in chosen.reversed() { waiting.remove(at: index) }
            guard let next = running.map(\.end).min() else { preconditionFailure("a move fits into an empty line") }
            time = next
            for move in running where move.end <= time { free += move.bytesPerSecond }
            done += running.filter { $0.end <= time }
            running.removeAll { $0.end <= time }
            if running.isEmpty { free = line.bytesPerSecond }
        }
        return done.sorted { $0.start < $1.start }
    }

    /// Which of those that wait begin now: in their order, leaving out what does not fit.
    /// - Parameter least: none of them wants less.
    static func beginning(_ rates: some Sequence<Double>, least: Double = 0, free: Double, running: Int, most: Int) -> [Int] {
        var (left, room, chosen) = (free * (1 + 1e-9), most - running, [Int]())
        for (index, rate) in rates.enumerated() {
            if room == 0 || left < least { break }
            guard rate <= left else { continue }
            left -= rate
            room -= 1
            chosen.append(index)
        }
        return chosen
    }
}

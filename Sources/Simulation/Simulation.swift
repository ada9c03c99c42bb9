// The deterministic simulation of a migration: both of the engine's state machines, their scheduler and journals, on a line,
// disks and hosts that fail as the seed says. See docs/simulation.md.

internal import TurntableCore
internal import TurntableLinux

/// What happened in simulations, to see that they are about something.
public struct Tally: Sendable, Codable {
    public var seeds = 0
    public var sends = 0
    public var completed = 0
    /// Completed over more than one connection.
    public var resumed = 0
    /// Sessions that another process went on with, at either end.
    public var takenUp = 0
    /// Machines that the target refused after the hand-off, and that ran on at the source.
    public var reclaimed = 0
    /// Sends that were killed, or their hosts.
    public var killed = 0
    /// Failed sends by the kind of their error.
    public var ends: [String: Int] = [:]
    public var faults: [String: Int] = [:]
    /// Segments that were lost and sent again.
    public var losses = 0
    /// Of targets that were asked what became of an epoch.
    public var answers: [String: Int] = [:]
    /// Times that a promise was looked at.
    public var checks = 0
    public var steps = 0
    /// Of simulated time.
    public var seconds = 0.0

    public init() {}

    public static func += (sum: inout Tally, more: Tally) {
        sum.seeds += more.seeds
        sum.sends += more.sends
        sum.completed += more.completed
        sum.resumed += more.resumed
        sum.takenUp += more.takenUp
        sum.reclaimed += more.reclaimed
        sum.killed += more.killed
        sum.losses += more.losses
        sum.checks += more.checks
        sum.steps += more.steps
        sum.seconds += more.seconds
        sum.ends.merge(more.ends, uniquingKeysWith: +)
        sum.faults.merge(more.faults, uniquingKeysWith: +)
        sum.answers.merge(more.answers, uniquingKeysWith: +)
    }
}

public struct SimulationOutcome: Sendable {
    public var seed: UInt64
    /// The promise that was broken; nil if all were kept.
    public var failure: String?
    public var tally: Tally
    /// The same whenever the seed goes the same way.
    public var fingerprint: UInt64
}

/// Runs simulations one after the other, on the calling thread.
public final class Simulator {
    private let pools = Pools()
    public init() {}

    /// - Parameter trace: is told every step that an end takes.
    public func run(seed: UInt64, mutation: Mutation? = nil, trace: ((String) -> Void)? = nil) -> SimulationOutcome {
        let world = World(seed: seed, mutation: mutation, pools: pools, trace: trace)
        world.scheduler.standIn {
            let human = Operator(world)
            world.scheduler.run { human.run() }
        }
        world.clear()
        world.tally.seeds = 1
        world.tally.steps = world.scheduler.steps
        world.tally.seconds = world.scheduler.time.seconds
        return SimulationOutcome(seed: seed, failure: world.failure, tally: world.tally, fingerprint: world.fingerprint)
    }
}

// What one seed decides before anything happens: the line, the machine, the options, and which faults come when.

internal import TurntableCore
internal import WireFormat

/// What may happen to it.
enum Fault: String, CaseIterable {
    case killSource, killTarget, killCurrent
    /// What it said last comes later than what its successor says.
    case killSourceLate
    case crashSourceHost, crashTargetHost
    case killSourceMachine, killTargetMachine
    case silence, longSilence, reset, halfReset, stall
    /// What was said on a control stream is said again, on another connection.
    case repeatWords
    case fillSourceDisk, fillTargetDisk
    case cancel, interruptReceiver
    case failPrepare, failPause, failSave, failLoad, failWrite
}

/// When it does, counted from the fault before it, or from the beginning.
enum Trigger {
    case points(Int)
    /// Points after the machine was paused.
    case pointsOfHandOff(Int)
    case steps(Int)
    case time(Nanoseconds)
}

struct Plan {
    var mutation: Mutation?
    var faults: [(Fault, Trigger)] = []
    /// How seldom another thread goes on where it could.
    var passesOnceIn: UInt64
    // The line.
    var delay: Nanoseconds
    var jitter: Nanoseconds
    /// 0 for none.
    var lossOnceIn: UInt64
    var rate: BitRate
    var pipeBytes: Int
    // The machine.
    var hotPages: Int
    /// Between two steps it writes once in so many times.
    var writesOnceIn: UInt64
    var isRunning: Bool
    var dirtyLogOutlivesProcess: Bool
    var hasDisk: Bool
    /// A target tells what its disk still holds.
    var recycles: Bool
    /// 0 for never.
    var losesDeltasOnceIn: UInt64
    // The options.
    var streams: Int
    var frameExtents: Int
    var budget: Nanoseconds
    var verification: Verification
    var resumeWindow: Nanoseconds
    var targetWindow: Nanoseconds
    let stall = Nanoseconds.seconds(2)
    let commit = Nanoseconds.seconds(3)
    let prepare = Nanoseconds.seconds(4)
    /// Moves: there, back, there again.
    var trips: Int

    init(seed: UInt64, mutation: Mutation?) {
        var chance = SeededGenerator(seed: seed ^ 0x5eed)
        self.mutation = mutation
        passesOnceIn = chance.pick([1, 2, 4, 8])
        delay = chance.pick([.microseconds(50), .milliseconds(1), .milliseconds(10), .milliseconds(90)])
        jitter = chance.once(in: 2) ? .zero : Nanoseconds(delay.value / 2 + 1)
        lossOnceIn = chance.pick([0, 0, 200, 40, 10])
        rate = BitRate(bitsPerSecond: chance.pick([100e6, 1e9, 10e9]))
        // What a line holds grows with its length, or the heartbeats' silence would be the line's.
        pipeBytes = chance.pick(delay > .milliseconds(1) ? [128 << 10, 1 << 20] : [8 << 10, 64 << 10, 1 << 20])
        hotPages = chance.pick(4..<24)
        writesOnceIn = chance.pick([2, 8, 40])
        isRunning = !chance.once(in: 12)
        dirtyLogOutlivesProcess = !chance.once(in: 4)
        hasDisk = !chance.once(in: 3)
        recycles = chance.once(in: 2)
        losesDeltasOnceIn = chance.pick([0, 0, 3])
        streams = chance.pick(1..<4)
        frameExtents = chance.pick([1, 3, 256])
        budget = chance.once(in: 5) ? .milliseconds(Double(chance.pick(20..<400))) : .seconds(60)
        verification = chance.pick([.off, .before, .after, .after])
        resumeWindow = chance.pick([.zero, .seconds(3), .seconds(8)])
        targetWindow = chance.pick([.seconds(2), .seconds(8)])
        trips = chance.once(in: 3) ? 2 : 1
        if let mutation { aim(mutation, &chance) } else { addFaults(&chance) }
    }

    /// Faults in which the mistake shows, if there is one.
    private mutating func aim(_ mutation: Mutation, _ chance: inout SeededGenerator) {
        // A refusal would show nothing.
        budget = .seconds(60)
        if mutation.isOfDisk { hasDisk = true }
        if !mutation.faults.isEmpty {
            let trigger = mutation.isOfHandOff ? Trigger.pointsOfHandOff(chance.pick(0..<40)) : .points(chance.pick(10..<80))
            faults = [(chance.pick(mutation.faults), trigger)]
        }
    }

    private mutating func addFaults(_ chance: inout SeededGenerator) {
        let count = chance.pick([0, 1, 1, 1, 2, 2, 3, 3, 4, 6])
        // Some seeds have no crash of a host or a machine, so that their end can be told: the machine runs somewhere.
        let isMild = chance.once(in: 2)
        let severe: [Fault] = [.crashSourceHost, .crashTargetHost, .killSourceMachine, .killTargetMachine]
        let kinds = Fault.allCases.filter { !isMild || !severe.contains($0) }
        for _ in 0..<count {
            let trigger: Trigger
            switch chance.pick(0..<8) {
            case 0...2: trigger = .points(chance.pick(0..<90))
            case 3...5: trigger = .pointsOfHandOff(chance.pick(0..<50))
            case 6: trigger = .steps(chance.pick(0..<2500))
            default: trigger = .time(.milliseconds(Double(chance.pick(0..<4000))))
            }
            faults.append((chance.pick(kinds), trigger))
        }
    }
}

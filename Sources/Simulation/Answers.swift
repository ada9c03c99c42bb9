internal import MigrationEngine
internal import TurntableCore
internal import WireFormat

/// What ends have said of an epoch. Such an answer is never taken back, whatever crashed since.
final class Answers {
    private unowned let world: World
    enum Answer: String {
        case committed, refused
    }
    /// By the host that answered, and the epoch.
    private var given: [Int: [Epoch: Answer]] = [:]

    init(_ world: World) { self.world = world }

    func note(_ message: ControlMessage, by process: SimulatedProcess) {
        switch message {
        case .committed(let committed): note(.committed, committed.epoch, process.host)
        case .refused(let refusal) where refusal.epoch.value > 0: note(.refused, refusal.epoch, process.host)
        case .resolution(let resolution):
            switch resolution.state {
            case .committed: note(.committed, resolution.epoch, process.host)
            case .refused: note(.refused, resolution.epoch, process.host)
            case .unknown, .waiting: noteUnknown(resolution.epoch, process.host)
            }
        default: return
        }
    }

    private func note(_ answer: Answer, _ epoch: Epoch, _ host: SimulatedHost) {
        world.tally.checks += 1
        if let before = given[host.index]?[epoch], before != answer {
            world.fail("taken back: \(host.name) said that epoch \(epoch.value) is \(before.rawValue), and says \(answer.rawValue)")
        }
        given[host.index, default: [:]][epoch] = answer
    }

    private func noteUnknown(_ epoch: Epoch, _ host: SimulatedHost) {
        if let before = given[host.index]?[epoch] {
            world.fail("taken back: \(host.name) said that epoch \(epoch.value) is \(before.rawValue), and says that it does not know")
        }
    }

    /// What the journal at rest says is what was answered.
    func check(_ host: SimulatedHost) {
        guard let history = host.history else { return world.fail("the journal of \(host.name) cannot be read") }
        for (epoch, answer) in given[host.index] ?? [:] {
            world.tally.checks += 1
            let right = history.target(epoch)
            guard answer == .committed ? right == .owning : right == .refused else {
                return world.fail(
                    "taken back: \(host.name) said that epoch \(epoch.value) is \(answer.rawValue); its journal says \(right)")
            }
        }
    }
}

import ArgumentParser
import MigrationEngine
import TurntableCore
import TurntableLinux
import WireFormat

struct ResolveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resolve",
        abstract: "Say who has the right to run a machine whose migration did not end well, and what may be done.",
        discussion: """
            Reads the journal here and, at the source of a hand-off that was not answered, asks the target. Its answer goes into the \
            journal; the machine is not touched: `turntable send` again, to the same target, goes on with what is found. A target \
            that has nothing of the machine any more remembers that it refused it. What it says is about the last migration that is in \
            the journal, in which this host was the source or the target ("role" in JSON).

            EXAMPLES
              turntable resolve web
              turntable resolve web --json
            """)

    @Argument(help: "The machine.") var machine: String
    @Flag(help: "Print one JSON object.") var json = false
    @OptionGroup var asking: AskingOptions
    @OptionGroup var stateDirectory: StateDirectoryOption

    func run() throws {
        try reportingErrors(json: json) {
            let history = try stateDirectory.directory.history(of: machine)
            guard let last = history.records.last else {
                throw TurntableError(
                    .usage, "looking for the journal of \(machine)", "there is none in \(stateDirectory.path)",
                    remedy: "see `turntable journal`")
            }
            let (word, text) = last.role == .source ? try source(history, last.epoch) : target(history, last.epoch)
            print(
                json
                    ? jsonLine([
                        "state": .text(word), "epoch": .number(Double(last.epoch.value)), "text": .text(text),
                        "role": .text(last.role == .source ? "source" : "target"),
                    ])
                    : "\(word)  epoch \(last.epoch.value): \(text)")
        }
    }

    private func source(_ history: HandOffHistory, _ epoch: Epoch) throws(TurntableError) -> (String, String) {
        if history.isRelinquished(epoch) { return try ask(history, epoch) }
        let records = history.records(of: .source, epoch)
        guard let last = records.last else { return ("UNKNOWN", "its journal says nothing of it") }
        if last.kind == .committed, let offer = records.first(where: { $0.kind == .offer }) {
            // Who told it may not have come to say that to the target.
            try? asking.confirm(Query(machine: machine, epoch: epoch, session: offer.session), offer)
        }
        return switch last.kind {
        case .committed: ("COMMITTED", "the target runs it; what is here are its remains")
        case .refused: ("REFUSED", "the target never ran it; it is this host's, under epoch \(epoch.next.value)")
        case .fenced: ("FENCED", "\(last.statement); it is this host's, under epoch \(epoch.next.value), and its memory may run on")
        case .fencedSeen: ("FENCED", "\(last.statement); it is this host's, to be started from its disk (`turntable run`)")
        case .started: ("STARTED", "it was started from its disk; it is this host's")
        case .offer: ("OFFERED", "it was not handed off; it is this host's. `turntable send` goes on with the migration")
        case .withdrawn, .offered, .handoff, .confirmed: ("WITHDRAWN", "it was not handed off; it is this host's")
        }
    }

    private func target(_ history: HandOffHistory, _ epoch: Epoch) -> (String, String) {
        switch history.target(epoch) {
        case .owning: return ("COMMITTED", "it is this host's")
        case .refused: return ("REFUSED", "it never ran here under that epoch, and never will")
        case .idle, .offered:
            return history.mayRefuse(epoch)
                ? ("OFFERED", "it has not run here. Go on at the source with `turntable send`")
                : ("UNKNOWN", "this host was restarted since it was offered the machine, and may have run it; nothing of it runs now")
        }
    }

    /// Asks the target that the offer went to, and remembers what it says.
    private func ask(_ history: HandOffHistory, _ epoch: Epoch) throws(TurntableError) -> (String, String) {
        guard let offer = history.records(of: .source, epoch).first(where: { $0.kind == .offer }) else {
            return ("UNKNOWN", "it was handed off, and the journal does not say to whom; do not let it run here")
        }
        let resolution: Resolution
        do throws(TurntableError) {
            guard let answer = try asking.answer(machine, offer, of: epoch) else {
                return ("UNKNOWN", "\(offer.peer) cannot be asked; do not let it run here before it can, or see `turntable fence`")
            }
            resolution = answer
        } catch {
            return ("UNKNOWN", "\(error); do not let it run here")
        }
        let said = "\(offer.peer) says: \(resolution.detail)"
        let finish = "`turntable send \(machine) \(offer.peer)` here finishes what is left to do"
        switch history.hear(resolution, of: offer, of: machine, believing: asking.believes(offer.peer)) {
        case .outcome(let record):
            let journal = try stateDirectory.journals().open(machine)
            let stands = try journal.settle(record)
            try journal.sync()
            guard stands == record.kind else { return ("UNKNOWN", "\(said), against the journal here; do not let it run here") }
            guard stands == .committed else { return ("REFUSED", "\(said). \(finish)") }
            try? asking.confirm(Query(machine: machine, epoch: epoch, session: offer.session), offer)
            return ("COMMITTED", "\(said). \(finish)")
        case .waiting: return ("UNKNOWN", "\(said); do not let it run here. \(finish)")
        case .unknown: return ("UNKNOWN", "\(said); do not let it run here, but see `turntable fence`")
        case .anotherHost: return ("UNKNOWN", "another host answers at \(offer.peer) than the one that it was handed to; do not let it run here")
        case .unsigned: return ("UNKNOWN", "\(said), and did not sign that; do not let it run here")
        }
    }
}

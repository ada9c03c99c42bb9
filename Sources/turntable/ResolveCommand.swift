import ArgumentParser
import MigrationEngine
import Protection
import Transport
import TransportTCP
import TurntableCore
import TurntableLinux
import WireFormat

struct ResolveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resolve",
        abstract: "Say who has the right to run a machine whose migration did not end well, and what may be done.",
        discussion: """
            Reads the journal here and, at the source of a hand-off that was not answered, asks the target. Changes nothing at \
            the source: `turntable send` again, to the same target, goes on with what is found. A target that has nothing of the \
            machine any more remembers that it refused it.

            EXAMPLES
              turntable resolve web
              turntable resolve web --json
            """)

    @Argument(help: "The machine.") var machine: String
    @Flag(help: "Print one JSON object.") var json = false
    @Option(help: ArgumentHelp("As `turntable send` was told.", valueName: "host")) var peer: String?
    @OptionGroup var protection: ProtectionOptions
    @OptionGroup var stateDirectory: StateDirectoryOption

    func run() throws {
        try reportingErrors(json: json) {
            let history = try stateDirectory.directory.history(of: machine)
            guard let last = history.records.last else {
                throw TurntableError(
                    .usage, "looking for the journal of \(machine)", "there is none in \(stateDirectory.path)",
                    remedy: "see `turntable journal`")
            }
            let (word, text) = last.role == .source ? source(history, last.epoch) : target(history, last.epoch)
            print(
                json
                    ? jsonLine(["state": .text(word), "epoch": .number(Double(last.epoch.value)), "text": .text(text)])
                    : "\(word)  epoch \(last.epoch.value): \(text)")
        }
    }

    private func source(_ history: HandOffHistory, _ epoch: Epoch) -> (String, String) {
        switch history.source(epoch) {
        case .committed: return ("COMMITTED", "the target runs it; what is here are its remains")
        case .reclaimed: return ("REFUSED", "the target never ran it; it is this host's, under epoch \(epoch.next.value)")
        case .owning, .paused: return ("WITHDRAWN", "it was not handed off; it is this host's")
        case .offering where history.isComplete(.source, epoch):
            return ("OFFERED", "it was not handed off; it is this host's. `turntable send` goes on with the migration")
        case .offering, .relinquished: return ask(history, epoch)
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

    /// Asks the target that the offer went to.
    private func ask(_ history: HandOffHistory, _ epoch: Epoch) -> (String, String) {
        let offer = history.records(of: .source, epoch).first { $0.kind == .offer }
        guard let offer, let address = Address(parsing: offer.peer, defaultPort: defaultPort) else {
            return ("UNKNOWN", "it was handed off, and the journal does not say to whom; do not let it run here")
        }
        do throws(TurntableError) {
            let security = try protection.security()
            let control = try TCPSourceTransport(address: address, options: LineOptions(), security: security, peer: peer)
                .connectControl()
            defer { control.shutDown() }
            try control.send(.query(Query(machine: machine, epoch: epoch, session: offer.session)))
            guard case .resolution(let resolution)? = try control.receive(within: Limits.helloTime), resolution.epoch == epoch else {
                return ("UNKNOWN", "\(address) gave no answer to it; do not let it run here")
            }
            let known = history.records(of: .source, epoch).last { $0.host != .none }?.host ?? resolution.host
            guard resolution.host == known else {
                return ("UNKNOWN", "another host answers at \(address) than the one that it was handed to; do not let it run here")
            }
            let finish = "`turntable send \(machine) \(address)` here finishes what is left to do"
            switch resolution.state {
            case .committed: return ("COMMITTED", "\(address) says: \(resolution.detail). \(finish)")
            case .refused: return ("REFUSED", "\(address) says: \(resolution.detail). \(finish)")
            case .unknown: return ("UNKNOWN", "\(address) says: \(resolution.detail); do not let it run here. \(finish)")
            }
        } catch {
            return ("UNKNOWN", "\(address) cannot be asked: \(error); do not let it run here before it can")
        }
    }
}

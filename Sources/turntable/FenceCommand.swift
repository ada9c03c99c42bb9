import ArgumentParser
import Hypervisors
import MigrationEngine
import Protection
import TurntableCore
import TurntableLinux
import WireFormat

struct FenceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fence",
        abstract: "State that a machine's target is off, when nobody else can say what became of its hand-off.",
        discussion: """
            For a machine that was handed off and stands still, because its target's host died before it answered. Switch that host \
            off, or restart it by its power supply or watchdog; ending programs there is not enough. Then state it here, and \
            whether clients can have seen the machine at the target: if they cannot, its memory runs on here; if they may have, it \
            is thrown away, and the machine is started from its disk (`turntable run`). What is stated is in the journal for good. \
            A target that can be asked is asked first: see `turntable resolve`.

            EXAMPLES
              turntable fence web --by alice --clients unseen --host-is-off
              turntable fence web --by stonith --clients may-have-seen --host-is-off
            """)

    @Argument(help: "The machine.") var machine: String
    @Option(help: ArgumentHelp("Who states it; goes into the journal.", valueName: "name")) var by: String
    @Option(help: ArgumentHelp("unseen or may-have-seen: what clients know of the machine at the target.", valueName: "what"))
    var clients: String
    @Flag(name: .customLong("host-is-off"), help: "The target's host is off, or was restarted by its power supply.") var isHostOff = false
    @Flag(help: "Print one JSON object.") var json = false
    @OptionGroup var asking: AskingOptions
    @OptionGroup var stateDirectory: StateDirectoryOption
    @OptionGroup var runDirectory: RunDirectoryOption

    func run() throws {
        try reportingErrors(json: json) {
            guard !by.isEmpty else { throw TurntableError(.usage, "--by", "it names nobody") }
            guard let clients = Fence.Clients(rawValue: clients) else {
                throw TurntableError(
                    .usage, "--clients \(clients)", "it must be \(Fence.Clients.allCases.map(\.rawValue).joined(separator: " or "))")
            }
            // Nobody sends it meanwhile: one process at a time moves a machine.
            let waiting = try attach()
            var fence = Fence(clients: clients, name: by, isHostOff: isHostOff)
            fence.sign = try asking.protection.security().sign
            let record = try fence.state(of: machine, in: try stateDirectory.journals().open(machine)) { (offer) throws(TurntableError) in
                try asking.answer(machine, offer, of: offer.epoch)
            }
            if let waiting { try Fence.carryOut(record, on: waiting) }
            let text = "\(record.statement); \(outcome(record, isHere: waiting != nil))"
            print(
                json
                    ? jsonLine(["state": .text("FENCED"), "epoch": .number(Double(record.epoch.value)), "text": .text(text)])
                    : "FENCED  epoch \(record.epoch.value): \(text)")
        }
    }

    /// What waits here; nil if it is gone.
    private func attach() throws(TurntableError) -> QEMUSourceMachine? {
        guard let record = try? runDirectory.directory.read(machine), record.isAlive else { return nil }
        return try QEMUSourceMachine(machine, in: runDirectory.directory)
    }

    private func outcome(_ record: JournalRecord, isHere: Bool) -> String {
        if record.kind == .fencedSeen || !isHere { return "start it from its disk with `turntable run`" }
        return "it runs here, under epoch \(record.epoch.next.value)"
    }
}

extension JournalRecord {
    /// A fence in words.
    var statement: String {
        "\(detail) states that the host of \(peer.isEmpty ? "its target" : peer) is off, and that clients "
            + (kind == .fencedSeen ? "may have seen the machine there" : "cannot have seen the machine there")
    }
}

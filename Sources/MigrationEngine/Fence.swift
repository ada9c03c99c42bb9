// A fence: somebody's word, in place of the target's, on what became of an epoch that was handed off. Whoever gives it knows that
// the target's host is off, or was restarted by its power supply: nothing that ran there runs any more.
//
//   unseen         no client can have seen the machine at the target: the memory that waits at the source runs on
//   mayHaveSeen    it is older than what clients know: it never runs, and the machine is started from its disk
//
// Allowed only while the source cannot hand the epoch off any more and does not know what became of it; an answer that is on
// record stands against a fence, and a fence against an answer (docs/model/README.md, rules 6 and 7). FENCED is durable before
// anything is done because of it.

public import Transport
public import TurntableCore
public import WireFormat

public struct Fence: Sendable {
    /// Whether a client can have seen what the machine did at the target.
    public enum Clients: String, Sendable, CaseIterable {
        case unseen
        case mayHaveSeen = "may-have-seen"
    }

    public var clients: Clients
    /// Who states it.
    public var name: String
    /// The target's host is off, or was restarted by its power supply.
    public var isHostOff: Bool
    /// Signs the statement; empty without keys.
    public var sign: @Sendable ([UInt8]) -> [UInt8] = { _ in [] }

    public init(clients: Clients, name: String, isHostOff: Bool) {
        self.clients = clients
        self.name = name
        self.isHostOff = isHostOff
    }

    /// States it about the epoch that `machine` was handed off under, and gives the record. The caller sees to it that nobody
    /// sends the machine meanwhile.
    /// - Parameter ask: what the target that an offer went to says of its epoch; nil if it cannot be reached.
    public func state(
        of machine: String, in journal: Journal, ask: (JournalRecord) throws(TurntableError) -> Resolution?
    ) throws(TurntableError) -> JournalRecord {
        let history = try journal.history()
        let offer = try openOffer(of: machine, history)
        let what = "fencing epoch \(offer.epoch.value) of \(machine)"
        let target = offer.peer.isEmpty ? "its target" : offer.peer
        guard isHostOff else {
            throw TurntableError(
                .usage, what, "nobody says that the host of \(target) is off",
                remedy: "switch it off or restart it by its power supply, not by ending programs; then add --host-is-off")
        }
        if let resolution = try ask(offer), resolution.state != .unknown {
            throw TurntableError(
                .refused, what, "\(target) is there and says: \(resolution.detail)", remedy: "see `turntable resolve \(machine)`")
        }
        let known = history.records(of: .source, offer.epoch).last { $0.host != .none }?.host ?? .none
        var record = JournalRecord(
            role: .source, kind: clients == .unseen ? .fenced : .fencedSeen, epoch: offer.epoch, session: offer.session, host: known,
            peer: offer.peer, detail: name)
        record.signature = sign(record.signedBytes(machine: machine))
        guard try journal.settle(record) == record.kind else {
            throw TurntableError(.refused, what, "its end became known meanwhile", remedy: "see `turntable resolve \(machine)`")
        }
        try journal.sync()
        return record
    }

    /// The offer that only its target or a fence can end.
    private func openOffer(of machine: String, _ history: HandOffHistory) throws(TurntableError) -> JournalRecord {
        guard let epoch = history.lastSourceEpoch else {
            throw TurntableError(.usage, "fencing \(machine)", "it was never offered from here", remedy: "see `turntable journal`")
        }
        let offer = history.records(of: .source, epoch).first { $0.kind == .offer }
        // It may have come back since.
        if let offer, history.isRelinquished(epoch), history.elsewhere?.epoch == epoch { return offer }
        let why =
            switch history.source(epoch) {
            case .committed: "the target has said that it runs it: it is the target's"
            case .offering: "it was not handed off; `turntable send` goes on with it"
            case .owning, .paused, .relinquished, .reclaimed: "it is this host's already"
            }
        throw TurntableError(.refused, "fencing epoch \(epoch.value) of \(machine)", why, remedy: "see `turntable resolve \(machine)`")
    }

    /// Does with what waits here what FENCED says, once that is on disk. Nothing if the machine waits for no word on that epoch.
    public static func carryOut(_ record: JournalRecord, on machine: any SourceMachine) throws(TurntableError) {
        let regions = machine.pages.regions
        let ledger = SendLedger(try machine.sessionMemory(bytes: LedgerMemory.bytes(regions)), regions: regions)
        if ledger.isBegun {
            guard ledger.epoch == record.epoch else { return }
            if record.kind.letsMemoryRun { try machine.runAgain(ledger) } else { machine.discard() }
        }
        machine.forgetSession()
    }

    /// What waited for an epoch that clients may have seen is gone.
    static func remainsAreGone(_ machine: String, _ epoch: Epoch) -> TurntableError {
        TurntableError(
            .refused, "moving \(machine)", "clients may have seen epoch \(epoch.value), which is fenced; what was left here of before is gone",
            remedy: "start it from its disk with `turntable run`")
    }
}

/// The end of fences: a target that knows that the source knows may start the machine from its disk.
public enum Confirmation {
    /// Tells the target, over a line of its own, that COMMITTED is on disk here.
    public static func send(_ name: Query, over transport: any SourceTransport) throws(TurntableError) {
        let control = try transport.connectControl()
        defer { control.shutDown() }
        try control.send(.confirmed(name))
    }
}

extension SourceMachine {
    /// The right to run came back: the machine goes on from where it stood still, under the next epoch.
    func runAgain(_ ledger: SendLedger) throws(TurntableError) {
        try takeUp(wasRunning: ledger.wasRunning)
        try reclaim(ledger.epoch.next)
        try resume()
        ledger.clear()
    }
}

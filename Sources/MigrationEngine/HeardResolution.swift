public import TurntableCore
public import WireFormat

extension Journal {
    /// Writes down what the target of an offer says became of it, which then stands. False if it does not know.
    /// - Parameter believing: whether a statement is signed by that target.
    public func settle(
        _ resolution: Resolution, of offer: JournalRecord, believing: (_ statement: [UInt8], _ signature: [UInt8]) -> Bool
    ) throws(TurntableError) -> Bool {
        let what = "asking \(offer.peer) for epoch \(offer.epoch.value) of \(machine)"
        let known = try history().records(of: .source, offer.epoch).last { $0.host != .none }?.host ?? resolution.host
        guard resolution.host == known else {
            throw TurntableError(.relinquished, what, "another host answers than the one that it was handed to", remedy: "ask that one")
        }
        guard resolution.state == .committed || resolution.state == .refused else { return false }
        let record = JournalRecord(
            role: .source, kind: resolution.state == .committed ? .committed : .refused, epoch: offer.epoch, session: offer.session,
            host: resolution.host, peer: offer.peer, detail: resolution.detail, signature: resolution.signature)
        // A yes can only keep the machine still here; a no lets it run.
        guard record.kind == .committed || believing(record.signedBytes(machine: machine), record.signature) else {
            throw TurntableError(.relinquished, what, "it says that it never ran there, and did not sign that")
        }
        _ = try settle(record)
        try sync()
        return true
    }
}

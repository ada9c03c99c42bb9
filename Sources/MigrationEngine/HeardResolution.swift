public import WireFormat

/// What the source of an offer makes of its target's answer.
public enum HeardResolution: Sendable, Equatable {
    /// To be settled in the journal (``Journal/settle(_:)``), whose first word stands.
    case outcome(JournalRecord)
    /// It may still come to run there.
    case waiting
    /// The target does not know.
    case unknown
    /// Another host answers than the one that it was handed to.
    case anotherHost
    /// It says that it never ran there, and did not sign that.
    case unsigned
}

extension HandOffHistory {
    /// - Parameter believing: whether a statement is signed by the target of this offer.
    public func hear(
        _ resolution: Resolution, of offer: JournalRecord, of machine: String,
        believing: (_ statement: [UInt8], _ signature: [UInt8]) -> Bool
    ) -> HeardResolution {
        let known = records(of: .source, offer.epoch).last { $0.host != .none }?.host ?? resolution.host
        guard resolution.host == known else { return .anotherHost }
        let kind: JournalRecord.Kind
        switch resolution.state {
        case .committed: kind = .committed
        case .refused: kind = .refused
        case .waiting: return .waiting
        case .unknown: return .unknown
        }
        let record = JournalRecord(
            role: .source, kind: kind, epoch: offer.epoch, session: offer.session, host: resolution.host, peer: offer.peer,
            detail: resolution.detail, signature: resolution.signature)
        // A yes can only keep the machine still here; a no lets it run.
        guard kind == .committed || believing(record.signedBytes(machine: machine), record.signature) else { return .unsigned }
        return .outcome(record)
    }
}

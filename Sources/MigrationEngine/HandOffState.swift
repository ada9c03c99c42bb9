// Who has the right to run the machine under one epoch. docs/model/handoff.pml has the same states under the same names
// and checks the rules; docs/promise.md says what they mean to an operator.

public import TurntableCore
public import WireFormat

/// What the source may do with the machine it offers under an epoch.
public enum SourceRight: String, Sendable, Codable, CaseIterable {
    /// It runs the machine; nothing is offered, or what was is withdrawn.
    case owning
    /// It runs the machine, and has logged that it offers it.
    case offering
    /// It holds the machine still and may still let it run on.
    case paused
    /// It has given the right away, and waits to hear what became of it. The machine stays still whatever happens.
    case relinquished
    /// The target runs the machine.
    case committed
    /// The target never ran it and never will: the source runs the machine under the next epoch.
    case reclaimed
}

/// What the target may do with the machine it is offered under an epoch.
public enum TargetRight: String, Sendable, Codable, CaseIterable {
    case idle
    /// It waits for the machine, and has logged that it does.
    case offered
    /// The machine is its own, running or about to.
    case owning
    /// It never ran the machine under this epoch and never will.
    case refused
}

extension JournalRecord.Kind {
    /// Gives the source the right to run back. See ``letsMemoryRun``.
    var givesBack: Bool { letsMemoryRun || self == .fencedSeen }
    /// The machine's memory that waits at the source is all that anybody has seen of it.
    var letsMemoryRun: Bool { self == .refused || self == .fenced }
}

/// What a machine's journal proves, read on the boot of the kernel that `boot` names.
public struct HandOffHistory: Sendable {
    public let records: [JournalRecord]
    public let boot: BootID

    public init(_ records: [JournalRecord], boot: BootID) {
        self.records = records
        self.boot = boot
    }

    /// The highest epoch that anything here was said of; a new offer takes a higher one.
    /// After a refusal the source runs under the one above it.
    public var highestEpoch: Epoch {
        let epochs = records.map { record in
            record.role == .source && record.kind.givesBack ? record.epoch.next : record.epoch
        }
        return epochs.max() ?? Epoch(0)
    }

    /// The epoch that the next offer of the machine takes, which is at `epoch` itself.
    /// - Parameter isInterrupted: a sender was killed, and the next one takes up what it began.
    public func nextOffer(at epoch: Epoch, isInterrupted: Bool) -> Epoch {
        isInterrupted && source(highestEpoch) == .offering ? highestEpoch : max(epoch, highestEpoch).next
    }

    /// The record by which the machine is another host's, or may be; nil if it is this one's or nobody's.
    public var elsewhere: JournalRecord? {
        var found: JournalRecord?
        for record in records {
            switch (record.role, record.kind) {
            case (.source, .handoff), (.source, .committed): found = record
            // Of another boot: whether it was handed off may have been lost with the host.
            case (.source, .offer): found = record.boot == boot ? found : record
            case (.source, .refused), (.source, .fenced), (.source, .fencedSeen), (.source, .withdrawn), (.source, .started),
                (.target, .committed):
                found = nil
            default: break
            }
        }
        return found
    }

    public func records(of role: JournalRecord.Role, _ epoch: Epoch) -> [JournalRecord] {
        records.filter { $0.role == role && $0.epoch == epoch }
    }

    /// The source's right as its records say. What a live migration holds still is `offering` here.
    public func source(_ epoch: Epoch) -> SourceRight {
        switch records(of: .source, epoch).last?.kind {
        case .offer: .offering
        case .handoff: .relinquished
        case .committed: .committed
        case .refused, .fenced, .fencedSeen: .reclaimed
        case .withdrawn, .started, .offered, .confirmed, nil: .owning
        }
    }

    /// The record by which the machine is this host's and which its source may not know, so that it may have taken a fence instead;
    /// nil if there is none. Until then the machine is not started from its disk here.
    public var unconfirmed: JournalRecord? {
        var found: JournalRecord?
        for record in records {
            switch (record.role, record.kind) {
            case (.target, .committed): found = record
            case (.target, .confirmed) where record.epoch == found?.epoch: found = nil
            case (.source, _): found = nil
            default: break
            }
        }
        return found
    }

    /// What became of an epoch that was offered here; nil if that is not known, or not decided.
    public func outcome(_ epoch: Epoch) -> JournalRecord.Kind? {
        guard let last = records(of: .source, epoch).last?.kind else { return nil }
        return last == .committed || last.givesBack ? last : nil
    }

    /// The epoch that the machine was last offered or started under here.
    public var lastSourceEpoch: Epoch? { records.filter { $0.role == .source }.map(\.epoch).max() }

    /// Whether only the target can say what became of the epoch, or a fence: it was handed off, or may have been.
    public func isRelinquished(_ epoch: Epoch) -> Bool {
        let right = source(epoch)
        return right == .relinquished || right == .offering && !isComplete(.source, epoch)
    }

    public func target(_ epoch: Epoch) -> TargetRight {
        let kinds = records(of: .target, epoch).map(\.kind)
        // A machine that ran cannot be refused any more, whatever was written after it.
        if kinds.contains(.committed) { return .owning }
        if kinds.contains(.refused) { return .refused }
        return kinds.contains(.offered) ? .offered : .idle
    }

    /// Whether the absence of a record proves anything. What was written but not made durable survives a process and is
    /// lost with the host, so only on the boot that wrote the last record is a later one's absence its non-existence.
    public func isComplete(_ role: JournalRecord.Role, _ epoch: Epoch) -> Bool {
        records(of: role, epoch).allSatisfy { $0.boot == boot }
    }

    /// Whether this target may say that it never ran the epoch: see ``isComplete(_:_:)``.
    public func mayRefuse(_ epoch: Epoch) -> Bool {
        switch target(epoch) {
        case .idle, .refused: true
        case .owning: false
        case .offered: isComplete(.target, epoch)
        }
    }
}

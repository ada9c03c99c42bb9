// What the source does with a domain, by what its journal and Xen say of it. The same table is asked before a move and after one.

public import MigrationEngine
public import WireFormat

/// How Xen says that a domain stands.
public enum DomainStanding: String, Sendable, CaseIterable {
    case runs
    /// Shut down in order to be moved or saved: it can run on.
    case suspended
    case paused
    /// Shut down for another reason.
    case ended

    /// An operator who knows better can have it moved.
    var canBeOverruled: Bool { self == .runs || self == .suspended }
}

/// What is to be done with the domain of a move.
public enum MoveDecision: Equatable, Sendable {
    /// It is this host's, and runs: it can be moved.
    case move
    /// It is this host's, and an attempt to move it left it suspended: it runs on here.
    case resume
    /// It is another's: what is here are remains.
    case end
    /// Only the target that this offer went to can say whose it is.
    case ask(JournalRecord)
    /// None of it, and why.
    case refuse(String)

    /// - Parameter wasOurs: a move of this process has just ended, and whatever suspended the domain was part of it.
    public init(_ history: HandOffHistory, _ standing: DomainStanding, wasOurs: Bool = false) {
        let elsewhere = history.elsewhere
        switch (elsewhere?.kind, standing) {
        case (.handoff, _), (.offer, _): self = .ask(Self.offer(of: elsewhere!, history))
        case (.some, .suspended): self = .end
        case (.some, _): self = .refuse("the journal here says that \(elsewhere!.peer.isEmpty ? "another host" : elsewhere!.peer) took it over")
        case (nil, .runs): self = .move
        case (nil, .suspended): self = Self.ofSuspended(history, wasOurs)
        case (nil, .paused): self = .refuse("it is paused, and would run at the target")
        case (nil, .ended): self = .refuse("it has shut down")
        }
    }

    private static func ofSuspended(_ history: HandOffHistory, _ wasOurs: Bool) -> MoveDecision {
        guard let epoch = history.lastSourceEpoch else { return .refuse(others) }
        switch history.source(epoch) {
        case .offering, .paused: return .resume
        // Given up, and it did not come to run on.
        case .owning where wasOurs: return .resume
        // Clients know of it what its memory here does not: that never runs.
        case .reclaimed: return history.outcome(epoch) == .fencedSeen ? .end : .resume
        case .owning, .relinquished, .committed: return .refuse(others)
        }
    }

    private static let others = "it is suspended, and not by a move of Turntable's"

    /// The record that names the session and the peer.
    private static func offer(of record: JournalRecord, _ history: HandOffHistory) -> JournalRecord {
        history.records(of: .source, record.epoch).first { $0.kind == .offer } ?? record
    }
}

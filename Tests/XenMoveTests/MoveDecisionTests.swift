internal import MigrationEngine
internal import Testing
internal import TurntableCore
internal import WireFormat
internal import XenMove

/// What a journal says, record by record, and what is done with a domain that stands so.
struct MoveDecisionTests {
    private static let now = BootID(high: 1, low: 1)
    private static let before = BootID(high: 1, low: 2)
    private static let session = SessionID(high: 2, low: 2)

    private static func record(
        _ role: JournalRecord.Role, _ kind: JournalRecord.Kind, epoch: UInt64 = 1, boot: BootID = now, peer: String = ""
    ) -> JournalRecord {
        var record = JournalRecord(role: role, kind: kind, epoch: Epoch(epoch), session: session, peer: peer)
        record.boot = boot
        return record
    }

    private static let offer = record(.source, .offer, peer: "10.5.0.2:4909")
    private static let handoff = record(.source, .handoff)

    private enum Wanted: Equatable {
        case move, resume, end, ask, refuse
        init(_ decision: MoveDecision) {
            self =
                switch decision {
                case .move: .move
                case .resume: .resume
                case .end: .end
                case .ask: .ask
                case .refuse: .refuse
                }
        }
    }

    private static let table: [(what: String, records: [JournalRecord], runs: Wanted, suspended: Wanted)] = [
        ("nothing is known", [], .move, .refuse),
        ("offered", [offer], .move, .resume),
        ("given up", [offer, record(.source, .withdrawn)], .move, .refuse),
        ("offered on an earlier boot, so perhaps handed off", [record(.source, .offer, boot: before)], .ask, .ask),
        ("handed off", [offer, handoff], .ask, .ask),
        ("the target runs it", [offer, handoff, record(.source, .committed)], .refuse, .end),
        ("the target refused it", [offer, handoff, record(.source, .refused)], .move, .resume),
        ("fenced, unseen by clients", [offer, handoff, record(.source, .fenced)], .move, .resume),
        ("fenced, perhaps seen by clients", [offer, handoff, record(.source, .fencedSeen)], .move, .end),
        ("started here anew", [offer, handoff, record(.source, .committed), record(.source, .started, epoch: 2)], .move, .refuse),
        ("it came back", [offer, handoff, record(.source, .committed), record(.target, .committed, epoch: 2)], .move, .refuse),
        ("it came, and was offered on", [record(.target, .committed), record(.source, .offer, epoch: 2)], .move, .resume),
        ("an attempt after one that was refused",
            [offer, handoff, record(.source, .refused), record(.source, .offer, epoch: 3), record(.source, .handoff, epoch: 3)], .ask, .ask),
    ]

    @Test func everyJournalHasItsDecision() {
        for row in Self.table {
            let history = HandOffHistory(row.records, boot: Self.now)
            #expect(Wanted(MoveDecision(history, .runs)) == row.runs, "\(row.what), and it runs")
            #expect(Wanted(MoveDecision(history, .suspended)) == row.suspended, "\(row.what), and it is suspended")
        }
    }

    /// Who else would have suspended it: the next move would not know that.
    @Test func whatOurMoveLeftSuspendedRunsOn() {
        let givenUp = HandOffHistory([Self.offer, Self.record(.source, .withdrawn)], boot: Self.now)
        #expect(MoveDecision(givenUp, .suspended, wasOurs: true) == .resume)
        #expect(MoveDecision(givenUp, .runs, wasOurs: true) == .move)
    }

    /// Whatever the journal says, what is handed off is never let run without an answer, and what is not ours never at all.
    @Test func nothingRunsThatMayRunElsewhere() {
        for row in Self.table where HandOffHistory(row.records, boot: Self.now).elsewhere != nil {
            for standing in DomainStanding.allCases {
                for wasOurs in [false, true] {
                    let decision = Wanted(MoveDecision(HandOffHistory(row.records, boot: Self.now), standing, wasOurs: wasOurs))
                    #expect(decision != .resume && decision != .move, "\(row.what), \(standing), \(wasOurs)")
                }
            }
        }
    }

    @Test(arguments: [DomainStanding.paused, .ended])
    func whatDoesNotRunIsNotMoved(standing: DomainStanding) {
        #expect(Wanted(MoveDecision(HandOffHistory([], boot: Self.now), standing)) == .refuse)
    }

    @Test func theTargetThatIsAskedIsTheOffers() {
        #expect(MoveDecision(HandOffHistory([Self.offer, Self.handoff], boot: Self.now), .suspended) == .ask(Self.offer))
    }
}

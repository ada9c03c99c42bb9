internal import Testing
internal import TurntableCore
internal import WireFormat
@testable internal import MigrationEngine

/// What a source makes of its target's answer, before it is in the journal.
struct HeardResolutionTests {
    private static let session = SessionID(high: 3, low: 3)
    private static let target = HostID(high: 4, low: 4)
    private static let offer = JournalRecord(role: .source, kind: .offer, epoch: Epoch(1), session: session, peer: "there:4909")

    /// Epoch 1 was handed off.
    private static let history = HandOffHistory(
        [offer, JournalRecord(role: .source, kind: .handoff, epoch: Epoch(1), session: session, host: target)], boot: BootID(high: 1, low: 1))

    private struct Missing: Error {}

    private func hear(_ state: Resolution.State, host: HostID = target, isSigned: Bool = true) -> HeardResolution {
        Self.history.hear(
            Resolution(epoch: Epoch(1), host: host, state: state, detail: "so it says"), of: Self.offer, of: "web", believing: { _, _ in isSigned })
    }

    @Test(arguments: [(Resolution.State.committed, JournalRecord.Kind.committed, SourceRight.committed), (.refused, .refused, .reclaimed)])
    func anAnswerIsAnOutcome(said: Resolution.State, kind: JournalRecord.Kind, right: SourceRight) throws {
        guard case .outcome(let record) = hear(said) else { throw Missing() }
        #expect((record.kind, record.host, record.peer, record.detail) == (kind, Self.target, "there:4909", "so it says"))
        #expect(HandOffHistory(Self.history.records + [record], boot: Self.history.boot).source(Epoch(1)) == right)
    }

    @Test func whoDoesNotKnowDecidesNothing() {
        #expect(hear(.unknown) == .unknown)
        #expect(hear(.waiting) == .waiting)
    }

    @Test(arguments: [Resolution.State.committed, .refused, .waiting, .unknown])
    func onlyTheHostThatWasAskedIsHeard(said: Resolution.State) { #expect(hear(said, host: HostID(high: 5, low: 5)) == .anotherHost) }

    @Test func aNoIsSignedAndAYesNeedNotBe() throws {
        #expect(hear(.refused, isSigned: false) == .unsigned)
        guard case .outcome = hear(.committed, isSigned: false) else { throw Missing() }
    }
}

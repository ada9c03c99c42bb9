internal import TestSupport
internal import Testing
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

@testable import MigrationEngine

/// Somebody's word in place of a dead target's: when it counts, and what it lets happen.
@Suite(.serialized) struct FenceTests {
    private let epoch = Epoch(42)

    private func fence(_ clients: Fence.Clients, isHostOff: Bool = true) -> Fence {
        Fence(clients: clients, name: "alice", isHostOff: isHostOff)
    }

    private func state(
        _ fence: Fence, _ journal: Journal, answer: Resolution.State? = nil
    ) -> Result<JournalRecord, TurntableError> {
        do throws(TurntableError) {
            return .success(
                try fence.state(of: "fake", in: journal) { offer in
                    answer.map { Resolution(epoch: offer.epoch, host: .none, state: $0, detail: "a word") }
                })
        } catch { return .failure(error) }
    }

    /// A machine that stands still at the source, whose target died with the hand-off.
    private func stageOfADeadTarget() throws -> Stage {
        let stage = try Stage()
        stage.host.whenLoading = { [unowned stage] () throws(TurntableError) in
            stage.loopback.cut()
            throw TurntableError(.relinquished, "loading", "the host has died")
        }
        let (sent, _) = stage.run()
        #expect(sent.error?.kind == .relinquished, "\(sent)")
        #expect(!stage.source.isRunning)
        return stage
    }

    @Test func whatNobodySawRunsOnUnderTheNextEpoch() throws {
        let stage = try stageOfADeadTarget()
        let journal = try stage.sourceJournals().open("fake")
        let record = try state(fence(.unseen), journal).get()
        #expect(record.kind == .fenced && record.epoch == epoch && record.detail == "alice")
        #expect(!stage.source.isRunning, "a statement lets nothing run by itself")
        // Durable before anything is done because of it.
        stage.sourceDisk.crash()
        #expect(try stage.sourceJournals().open("fake").history().source(epoch) == .reclaimed)
        try Fence.carryOut(record, on: stage.source)
        #expect(stage.source.isRunning && stage.source.epoch == epoch.next && stage.source.isForgotten)
    }

    @Test func whatClientsMayHaveSeenIsNotRolledBack() throws {
        let stage = try stageOfADeadTarget()
        let record = try state(fence(.mayHaveSeen), try stage.sourceJournals().open("fake")).get()
        try Fence.carryOut(record, on: stage.source)
        #expect(stage.source.isDiscarded && stage.source.resumes == 0 && stage.source.isForgotten)
        let history = try stage.sourceJournals().open("fake").history()
        #expect(history.elsewhere == nil && history.highestEpoch == epoch.next)
    }

    /// The process that stated it was killed before it did anything: `send` does it.
    @Test(arguments: Fence.Clients.allCases) func theNextSenderCarriesItOut(_ clients: Fence.Clients) throws {
        let stage = try stageOfADeadTarget()
        _ = try state(fence(clients), try stage.sourceJournals().open("fake")).get()
        stage.host.whenLoading = { () throws(TurntableError) in }
        let serving = stage.receive()
        let sent = stage.send()
        stage.reception.interrupt()
        _ = serving.outcome()
        switch clients {
        case .unseen:
            #expect(stage.source.resumes == 1)
            #expect(try sent.get().epoch == epoch.next.next.value)
        case .mayHaveSeen:
            #expect(sent.error?.why.contains("fenced") == true, "\(sent)")
            #expect(stage.source.isDiscarded && stage.source.resumes == 0)
        }
    }

    @Test func itNeedsAHostThatIsOff() throws {
        let stage = try stageOfADeadTarget()
        let refused = state(fence(.unseen, isHostOff: false), try stage.sourceJournals().open("fake"))
        #expect(refused.error?.kind == .usage && refused.error?.remedy.contains("--host-is-off") == true, "\(refused)")
    }

    /// Who can answer is heard; whose host was restarted cannot know.
    @Test func aTargetThatAnswersIsNotFenced() throws {
        let stage = try stageOfADeadTarget()
        let journal = try stage.sourceJournals().open("fake")
        for answer in [Resolution.State.committed, .refused, .waiting] {
            #expect(state(fence(.unseen), journal, answer: answer).error?.kind == .refused, "\(answer)")
        }
        #expect(try state(fence(.unseen), journal, answer: .unknown).get().kind == .fenced)
    }

    // MARK: - What the journal allows

    private static let here = BootID(high: 1, low: 1), later = BootID(high: 1, low: 2)

    /// A source's journal with these records of epoch 2, read on that boot.
    private func journal(_ kinds: [JournalRecord.Kind], on boot: BootID = here) throws -> Journal {
        let disk = MemoryStore()
        let journal = try Journal(of: "fake", store: disk, boot: Self.here) { 0 }
        for kind in kinds { try journal.log(JournalRecord(role: .source, kind: kind, epoch: Epoch(2), session: SessionID(high: 1, low: 2))) }
        return try Journal(of: "fake", store: disk, boot: boot) { 0 }
    }

    @Test func onlyWhatWasHandedOffCanBeFenced() throws {
        #expect(try state(fence(.unseen), journal([])).error?.kind == .usage)
        for kinds in [[.offer], [.offer, .withdrawn], [.offer, .handoff, .committed], [.offer, .handoff, .refused], [.started]] as [[JournalRecord.Kind]] {
            let refused = try state(fence(.unseen), journal(kinds))
            #expect(refused.error?.kind == .refused, "\(kinds): \(refused)")
        }
        // It came back, and is here, whatever became of that epoch.
        let returned = try journal([.offer, .handoff])
        try returned.log(JournalRecord(role: .target, kind: .committed, epoch: Epoch(3), session: SessionID(high: 1, low: 3)))
        #expect(state(fence(.unseen), returned).error?.kind == .refused)
        #expect(try state(fence(.unseen), journal([.offer, .handoff])).get().kind == .fenced)
        // An offer of an earlier boot may have been handed off.
        #expect(try state(fence(.mayHaveSeen), journal([.offer], on: Self.later)).get().kind == .fencedSeen)
    }

    /// Whichever is on record first counts for good.
    @Test func anEpochHasOneEnd() throws {
        let ends: [JournalRecord.Kind] = [.committed, .refused, .fenced, .fencedSeen]
        for first in ends {
            let journal = try journal([.offer, .handoff])
            for end in [first] + ends {
                let record = JournalRecord(role: .source, kind: end, epoch: Epoch(2), session: SessionID(high: 1, low: 2))
                #expect(try journal.settle(record) == first)
            }
            #expect(try journal.history().records.count == 3)
        }
    }

    /// An answer that comes after a fence does not count, whatever it is.
    @Test(arguments: Fence.Clients.allCases) func anAnswerAfterAFenceDoesNotCount(_ clients: Fence.Clients) throws {
        let stage = try Stage()
        let fence = fence(clients)
        stage.toSource = { [unowned stage] message in
            if case .committed = message, let journal = try? stage.sourceJournals().open("fake") { _ = state(fence, journal) }
            return [message]
        }
        let (sent, _) = stage.run()
        #expect(sent.error?.kind == .relinquished, "\(sent)")
        #expect(stage.source.resumes == 0 && !stage.source.isDiscarded)
        #expect(try stage.sourceJournals().open("fake").history().outcome(epoch) != .committed)
    }

    // MARK: - At the target

    /// A source that knows takes no fence: only then may a machine that crashed at its target be started there.
    @Test func theTargetKnowsThatTheSourceKnows() throws {
        let stage = try Stage(seed: 8)
        _ = try stage.run().source.get()
        let history = try stage.targetJournals().open("fake").history()
        #expect(history.records.map(\.kind) == [.offered, .committed, .confirmed] && history.unconfirmed == nil)
        // Once is enough.
        let serving = stage.receive()
        let record = try #require(history.records.first)
        let control = try stage.loopback.connectControl()
        try control.send(.confirmed(Query(machine: "fake", epoch: epoch, session: record.session)))
        // It ends the connection when it has dealt with that.
        while (try? control.receive(within: .seconds(5))) != nil {}
        stage.reception.interrupt()
        _ = serving.outcome()
        #expect(try stage.targetJournals().open("fake").history().records.count == 3)
    }

    @Test func aSourceThatLeftBeforeItKnewConfirmsLater() throws {
        let stage = try Stage(seed: 9)
        stage.host.whenLoading = { [unowned stage] () throws(TurntableError) in stage.loopback.cut() }
        let (sent, _) = stage.run()
        #expect(sent.error?.kind == .relinquished)
        func unconfirmed() throws -> Epoch? { try stage.targetJournals().open("fake").history().unconfirmed?.epoch }
        #expect(try unconfirmed() == epoch)
        // The next sender hears it from the journal there, and says that it has.
        let serving = stage.receive()
        _ = try stage.send().get()
        #expect(eventually { (try? unconfirmed()) == .some(nil) })
        stage.reception.interrupt()
        _ = serving.outcome()
    }

    @Test func whatStartsAMachineEndsTheDoubt() throws {
        let journal = try journal([])
        func log(_ role: JournalRecord.Role, _ kind: JournalRecord.Kind, _ epoch: UInt64) throws {
            try journal.log(JournalRecord(role: role, kind: kind, epoch: Epoch(epoch), session: SessionID(high: 1, low: epoch)))
        }
        try log(.target, .offered, 2)
        #expect(try journal.history().unconfirmed == nil)
        try log(.target, .committed, 2)
        #expect(try journal.history().unconfirmed?.epoch == Epoch(2))
        try log(.target, .confirmed, 1)
        #expect(try journal.history().unconfirmed?.epoch == Epoch(2))
        try log(.source, .started, 3)
        #expect(try journal.history().unconfirmed == nil)
    }

    @Test func aStatementSaysWhoSaysWhat() throws {
        let record = JournalRecord(role: .source, kind: .fenced, epoch: Epoch(2), session: SessionID(high: 1, low: 2), detail: "alice")
        var other = record
        other.kind = .fencedSeen
        #expect(record.signedBytes(machine: "m") != other.signedBytes(machine: "m"))
        other = record
        other.detail = "bob"
        #expect(record.signedBytes(machine: "m") != other.signedBytes(machine: "m"))
        var fence = fence(.unseen)
        fence.sign = { $0 + [7] }
        let stated = try state(fence, journal([.offer, .handoff])).get()
        #expect(stated.signature == stated.signedBytes(machine: "fake") + [7])
    }
}

internal import MigrationEngine
internal import TestSupport
internal import Testing
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What the target says, when it says it in an unlucky moment. Each of these was found by the simulation.
@Suite(.serialized) struct AnswerTests {
    /// Verified comes while the device state is still being loaded, and Committed some time later.
    @Test func aComparisonBeforeTheHandOffIsHeardBeforeTheAnswer() throws {
        let stage = try Stage(seed: 21)
        stage.options.verification = .before
        stage.host.whenLoading = { () throws(TurntableError) in Clock.sleep(.milliseconds(300)) }
        let report = try stage.run().source.get()
        #expect(report.attachments == 1)
        let verification = try #require(report.verification)
        #expect(verification.stripesCompared > 0 && verification.stripesDiffering == 0)
    }

    /// The answer is lost, and the line breaks again when the journal gives it: the next connection has it.
    @Test func anAnswerThatIsLostTwiceIsGivenAgain() throws {
        let stage = try Stage(seed: 22)
        stage.options.resumeWindow = .seconds(10)
        stage.options.waits.prepare = .seconds(3)
        let answers = Monitor(0)
        stage.fromTarget = { [unowned stage] message in
            guard case .committed = message else { return [message] }
            let count = answers.update { count in
                count += 1
                return count
            }
            if count <= 2 { stage.loopback.cut() }
            return [message]
        }
        let report = try stage.run().source.get()
        #expect(report.attachments == 1 && answers.read { $0 } == 3)
        #expect(stage.source.isDiscarded && stage.source.resumes == 0)
    }

    /// A session that is back says nothing new of an epoch that was decided before.
    @Test(arguments: [JournalRecord.Kind.committed, .refused])
    func aLiveSessionTakesNoAnswerBack(_ kind: JournalRecord.Kind) throws {
        let stage = try Stage(seed: 23)
        let session = SessionID(high: 1, low: 2)
        let journal = try stage.targetJournals().open("fake")
        for kind in [JournalRecord.Kind.offered, kind] {
            try journal.write(JournalRecord(role: .target, kind: kind, epoch: Epoch(42), session: session))
        }
        let resolver = TargetResolver(host: stage.host, journals: stage.targetJournals()) { _ in [] }
        let query = Query(machine: "fake", epoch: Epoch(42), session: session)
        #expect(try resolver.resolve(query, isLive: true).state == (kind == .committed ? .committed : .refused))
        // What is said is on the disk.
        stage.targetDisk.crash()
        #expect(try journal.history().records.count == 2)
    }

    /// The source gave up, its last words were lost with the line, and it offers the machine anew before the target has given up.
    @Test func anAttemptWhoseEndWasNotHeardMakesRoom() throws {
        let stage = try Stage(seed: 24, rate: BitRate(bitsPerSecond: 30e6))
        stage.options.resumeWindow = .seconds(60)
        stage.fromSource = { [unowned stage] message in
            guard case .abort = message else { return [message] }
            stage.loopback.cut()
            return []
        }
        stage.whenReported = { event, stage in if case .progress = event { _ = stage.migration.cancel() } }
        let serving = stage.receive()
        #expect(stage.send().error?.kind == .cancelled)
        let first = try #require(stage.host.machine)
        stage.host.whenPreparing = { () throws(TurntableError) in
            if !first.isDiscarded { throw TurntableError(.refused, "preparing", "a machine of that name is here") }
        }
        stage.whenReported = { _, _ in }
        let outcome = stage.send()
        stage.reception.interrupt()
        _ = serving.outcome()
        stage.source.end()
        _ = try outcome.get()
        #expect(try #require(stage.host.machine).memory.differences(from: stage.source.memory) == [])
    }
}

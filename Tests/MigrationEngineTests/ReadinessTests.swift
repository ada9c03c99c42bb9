internal import MigrationEngine
internal import Testing
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A target that still prepares what the machine needs beside memory and state.
@Suite(.serialized) struct ReadinessTests {
    @Test func theMachineRunsUntilTheTargetIsReady() throws {
        let stage = try Stage()
        let isReady = Monitor(false)
        let pausesBefore = Monitor(-1)
        stage.host.isReady = { isReady.read { $0 } }
        stage.whenReported = { event, stage in
            guard case .round(let round) = event, round.round == 0 else { return }
            // Long enough for a pause that does not wait.
            _ = WorkerThread("devices") {
                Clock.sleep(.milliseconds(500))
                pausesBefore.update { $0 = stage.source.pauses }
                isReady.update { $0 = true }
            }
        }
        let (sent, received) = stage.run()
        let report = try sent.get()
        _ = try received?.get()
        #expect(pausesBefore.read { $0 } == 0)
        #expect(report.rounds.count >= 2, "what was written meanwhile goes in a round of its own")
        #expect(stage.conversation.filter { $0 == "T readiness" }.count == 2)
    }

    @Test func aTargetThatIsNeverReadyIsNotWaitedForForEver() throws {
        let stage = try Stage()
        stage.options.waits.readiness = .milliseconds(200)
        stage.host.isReady = { false }
        let notes = Monitor([String]())
        stage.whenReported = { event, _ in if case .note(let text) = event { notes.update { $0.append(text) } } }
        let (sent, received) = stage.run()
        _ = try sent.get()
        _ = try received?.get()
        #expect(notes.read { $0.filter { $0.contains("not ready") }.count } == 1)
    }

    @Test func anEndIsHeededMeanwhile() throws {
        let stage = try Stage()
        stage.host.isReady = { false }
        stage.whenReported = { event, stage in
            guard case .round = event else { return }
            _ = WorkerThread("operator") { _ = stage.migration.cancel() }
        }
        let (sent, _) = stage.run()
        #expect(sent.error?.kind == .cancelled)
        #expect(stage.source.isRunning && stage.source.pauses == 0)
    }

    @Test func aTargetThatIsReadySaysNothingOfIt() throws {
        let stage = try Stage()
        _ = try stage.run().source.get()
        #expect(!stage.conversation.contains("T readiness"))
    }

    /// A machine that is to run on, for something beside the migration.
    @Test func theMachineRunsUntilItMayBePaused() throws {
        let stage = try Stage()
        let wishes = Monitor(0)
        let pausesBefore = Monitor(-1)
        stage.source.mayBePaused = { [source = stage.source] in
            let count = wishes.update { count in
                count += 1
                return count
            }
            if count == 5 { pausesBefore.update { $0 = source.pauses } }
            return count >= 5
        }
        let (sent, received) = stage.run()
        let report = try sent.get()
        _ = try received?.get()
        #expect(pausesBefore.read { $0 } == 0 && stage.source.pauses == 1)
        #expect(report.rounds.count >= 2, "what was written meanwhile goes in a round of its own")
    }

    /// How long that takes is not the engine's to shorten.
    @Test func theBudgetIsForTheRestOfWhatIsCarriedBeside() throws {
        let stage = try Stage()
        stage.source.isCarriedBeside = true
        stage.source.whenPaused = { [budget = stage.options.budget] in Clock.sleep(budget + .milliseconds(100)) }
        let (sent, received) = stage.run()
        let report = try sent.get()
        _ = try received?.get()
        #expect(report.withdrawnPauses == 0 && report.blackout.pauseMilliseconds > stage.options.budget.milliseconds)
    }
}

internal import MigrationEngine
internal import TestSupport
internal import Testing
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// Whole migrations of a machine that goes on writing its memory.
@Suite(.serialized) struct EndToEndTests {
    @Test(arguments: [UInt64(1), 2, 3], [1, 2, 5])
    func theMachineArrivesPageByPage(seed: UInt64, streams: Int) throws {
        let stage = try Stage(seed: seed)
        stage.options.streams = streams
        let (sent, received) = stage.run()
        let report = try sent.get()
        let machine = try #require(stage.host.machine)
        #expect(machine.memory.differences(from: stage.source.memory) == [], "seed \(seed)")
        #expect(machine.deviceState == stage.source.deviceState, "seed \(seed)")
        #expect(machine.isRunning && !machine.isDiscarded)
        #expect(stage.source.isDiscarded && stage.source.resumes == 0)
        #expect(report.epoch == stage.source.epoch.value + 1)
        #expect(try received?.get().epoch == stage.source.epoch.next)
        #expect(report.streams.count == streams)
        #expect(report.rounds.count >= 1 && report.rounds[0].pagesSent + report.rounds[0].zeroPages > 1000)
        #expect(report.blackout.deviceStateBytes == stage.source.deviceState.count)
        #expect(report.bytesOnWire > report.pagesSent * pageBytes)
    }

    /// A page that was sent and is zero later must be zero at the target too.
    @Test func pagesThatBecomeZeroAreClearedAtTheTarget() throws {
        let stage = try Stage(seed: 9, writes: 0)
        stage.whenReported = { event, stage in
            guard case .round = event else { return }
            for page in 0..<400 {
                stage.source.memory.clear(page, 0)
                stage.source.log.mark(page, 0)
            }
        }
        _ = try stage.run().source.get()
        #expect(try #require(stage.host.machine).memory.differences(from: stage.source.memory) == [])
    }

    @Test func theConversationIsAsDocumented() throws {
        let stage = try Stage()
        _ = try stage.run().source.get()
        #expect(
            stage.conversation == [
                "S offer", "T offered", "S handoff", "T committed", "S confirmed", "S digests", "S digests", "S digests", "T verified",
            ])
    }

    /// From the pause to Handoff the target may say nothing at all: half a round trip, no more.
    @Test func nothingOfTheTargetsIsAwaitedBetweenPauseAndHandoff() throws {
        let stage = try Stage(writes: 40)
        let isPaused = Monitor(false)
        stage.source.whenPaused = { isPaused.update { $0 = true } }
        stage.afterSource = { message, _ in if case .handoff = message { isPaused.update { $0 = false } } }
        stage.toSource = { message in
            // Held back as long as the source has not handed off; a source that waits for it waits for ever.
            _ = isPaused.wait(atMost: .seconds(8)) { $0 ? nil : true }
            return [message]
        }
        stage.source.whenSaving = { () throws(TurntableError) in Clock.sleep(.milliseconds(600)) }
        let started = Clock.now
        let report = try stage.run().source.get()
        #expect(Clock.now - started < .seconds(8))
        #expect(report.withdrawnPauses == 0)
    }

    /// A target that is busy making a machine is not a dead one.
    @Test func aTargetMayTakeItsTimeToPrepare() throws {
        let stage = try Stage()
        stage.options.waits.stall = .milliseconds(900)
        stage.host.whenPreparing = { () throws(TurntableError) in Clock.sleep(.seconds(1.5)) }
        _ = try stage.run().source.get()
    }
}

internal import MigrationEngine
internal import TestSupport
internal import Testing
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// One owner, always: what happens from Handoff's first byte on.
@Suite(.serialized) struct HandoffTests {
    /// The machine is stopped and preserved at the source, and nothing lets it run there.
    private func expectRelinquished(_ stage: Stage, _ sent: Result<MigrationReport, TurntableError>) {
        #expect(sent.error?.kind == .relinquished, "\(sent)")
        #expect(!stage.source.isRunning && stage.source.resumes == 0 && !stage.source.isDiscarded)
        #expect(!stage.migration.cancel())
        #expect(stage.source.resumes == 0)
    }

    @Test func aRefusalGivesTheRightBack() throws {
        let stage = try Stage()
        stage.host.whenLoading = { () throws(TurntableError) in throw TurntableError(.hypervisor, "loading", "a device is missing") }
        let (sent, received) = stage.run()
        #expect(sent.error?.kind == .refused && sent.error?.why.contains("a device is missing") == true, "\(sent)")
        #expect(received?.error?.kind == .hypervisor)
        #expect(stage.source.isRunning && stage.source.resumes == 1 && !stage.source.isDiscarded)
        #expect(try #require(stage.host.machine).isDiscarded)
    }

    /// A source that keeps keys to the machine's memory could write it while it runs.
    @Test func theReportCountsWhatTheHandoffWaitedForOnItsWay() throws {
        let stage = try Stage()
        stage.toTarget = { message in
            if case .handoff = message { Clock.sleep(.milliseconds(150)) }
            return [message]
        }
        let report = try stage.run().source.get()
        #expect(report.blackout.oneWayMilliseconds >= 150)
        #expect(report.blackout.totalMilliseconds >= report.blackout.oneWayMilliseconds)
    }

    @Test func theSourcesAccessEndsBeforeTheMachineRuns() throws {
        let stage = try Stage()
        stage.options.streams = 3
        let ended = Monitor([Int]())
        stage.host.whenResuming = { () throws(TurntableError) in ended.update { $0.append(stage.accessesEnded.read { $0 }) } }
        let (sent, _) = stage.run()
        #expect(sent.error == nil && ended.read { $0 } == [3], "\(sent)")
    }

    @Test func aRefusalOfAnotherEpochGivesNothingBack() throws {
        let stage = try Stage()
        stage.fromTarget = { message in
            guard case .committed(let committed) = message else { return [message] }
            return [.refused(Refusal(epoch: Epoch(committed.epoch.value - 1), reason: "an old one"))]
        }
        expectRelinquished(stage, stage.run().source)
    }

    @Test func anAnswerForAnotherEpochIsNoCommit() throws {
        let stage = try Stage()
        stage.fromTarget = { message in
            guard case .committed(var committed) = message else { return [message] }
            committed.epoch = committed.epoch.next
            return [.committed(committed)]
        }
        expectRelinquished(stage, stage.run().source)
    }

    @Test func silenceAfterHandoffKeepsTheMachineStopped() throws {
        let stage = try Stage()
        stage.options.waits.commit = .milliseconds(300)
        stage.fromTarget = { message in if case .committed = message { [] } else { [message] } }
        // The line stays open: only the time tells.
        let isOver = Monitor(false)
        stage.host.whenResuming = { () throws(TurntableError) in _ = isOver.wait(atMost: .seconds(1)) { $0 ? true : nil } }
        let (sent, _) = stage.run()
        expectRelinquished(stage, sent)
        #expect(sent.error?.why.contains("no answer for 300.0 ms") == true, "\(sent)")
    }

    @Test func aLineThatBreaksAfterHandoffKeepsTheMachineStopped() throws {
        let stage = try Stage()
        stage.host.whenLoading = { [unowned stage] () throws(TurntableError) in stage.loopback.cut() }
        let (sent, received) = stage.run()
        expectRelinquished(stage, sent)
        // The target had everything: it owns the machine and runs it.
        #expect(received?.error == nil)
        #expect(try #require(stage.host.machine).isRunning)
    }

    /// The line breaks with the first byte: whether the target got it, the source cannot know.
    @Test func aHandoffThatCouldNotBeSentWholeKeepsTheMachineStopped() throws {
        let stage = try Stage()
        stage.fromSource = { [unowned stage] message in
            if case .handoff = message { stage.loopback.cut() }
            return [message]
        }
        let (sent, received) = stage.run()
        expectRelinquished(stage, sent)
        #expect(received?.error != nil)
    }

    /// The source is gone, and all that it sent is there: the target runs the machine, for nobody else will.
    @Test(arguments: [1, 2, 5])
    func aSourceThatDiesAfterHandoffLosesNothing(streams: Int) throws {
        let stage = try Stage(seed: 12)
        stage.options.streams = streams
        stage.afterSource = { message, stage in if case .handoff = message { stage.killSource() } }
        stage.toTarget = { message in
            // The ends of the streams are noticed first, and a heartbeat that cannot be answered comes before.
            guard case .handoff = message else { return [message] }
            Clock.sleep(.milliseconds(200))
            return [.ping(1), message]
        }
        let (sent, received) = stage.run()
        #expect(sent.error?.kind == .relinquished)
        #expect(received?.error == nil, "\(received as Any)")
        let machine = try #require(stage.host.machine)
        #expect(machine.isRunning && !machine.isDiscarded)
        #expect(machine.memory.differences(from: stage.source.memory) == [])
        #expect(machine.deviceState.elementsEqual(stage.source.deviceState))
    }

    @Test func neitherEndCanBeCancelledAfterHandoff() throws {
        let stage = try Stage()
        let accepted = Monitor([Bool]())
        stage.host.whenLoading = { [unowned stage] () throws(TurntableError) in
            accepted.update { $0 += [stage.migration.cancel(), stage.cancelTarget()] }
        }
        _ = try stage.run().source.get()
        #expect(accepted.read { $0 } == [false, false])
        #expect(stage.source.resumes == 0)
        #expect(try #require(stage.host.machine).isRunning)
    }

    /// Once the target may have run the machine, it never refuses.
    @Test func aTargetThatFailsToResumeDoesNotRefuse() throws {
        let stage = try Stage()
        stage.host.whenResuming = { () throws(TurntableError) in throw TurntableError(.hypervisor, "resuming", "it hangs") }
        let (sent, received) = stage.run()
        expectRelinquished(stage, sent)
        #expect(received?.error?.kind == .relinquished)
        #expect(!stage.conversation.contains("T refused"))
        #expect(try #require(stage.host.machine).isDiscarded == false)
    }

    enum Lie: String, CaseIterable { case epoch, session, fewerFrames, moreFrames, streams }

    /// A hand-off that is not of this migration, or does not add up, is refused, and the source runs on.
    @Test(arguments: Lie.allCases)
    func aHandoffThatDoesNotAddUpIsRefused(_ lie: Lie) throws {
        let stage = try Stage()
        stage.options.streams = 2
        stage.options.waits.stall = .seconds(1)
        stage.fromSource = { message in
            guard case .handoff(var handoff) = message else { return [message] }
            switch lie {
            case .epoch: handoff.epoch = handoff.epoch.next
            case .session: handoff.session = .none
            case .fewerFrames: handoff.frames[0] = 0
            case .moreFrames: handoff.frames[1] += 1
            case .streams: handoff.frames.append(0)
            }
            return [.handoff(handoff)]
        }
        let (sent, received) = stage.run()
        #expect(sent.error?.kind == .refused, "\(sent)")
        #expect(received?.error != nil)
        #expect(stage.source.isRunning && stage.source.resumes == 1)
        #expect(try #require(stage.host.machine).isDiscarded)
    }
}

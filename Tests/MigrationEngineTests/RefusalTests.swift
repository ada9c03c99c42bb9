internal import MigrationEngine
internal import TestSupport
internal import Testing
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// Migrations that do not happen: the machine runs on, or says plainly that it is stopped here.
@Suite(.serialized) struct RefusalTests {
    /// The machine is where it was, running, and nothing of it is left at the target.
    private func expectUnharmed(_ stage: Stage, _ what: String = "") {
        #expect(stage.source.isRunning, "\(what)")
        #expect(!stage.source.isDiscarded, "\(what)")
        #expect(stage.source.resumes == stage.source.pauses, "\(what)")
        if let machine = stage.host.machine { #expect(machine.isDiscarded && !machine.isRunning, "\(what)") }
    }

    /// The machine is stopped and whole, and nothing but the target's own word decides on it.
    private func expectPreserved(_ stage: Stage, _ error: TurntableError) {
        #expect(error.kind == .relinquished, "\(error)")
        #expect(!stage.source.isRunning && !stage.source.isDiscarded)
        #expect(stage.source.resumes == stage.source.pauses - 1)
    }

    @Test func aBudgetBelowWhatTheLineTakesIsRefusedWithTheFigures() throws {
        let stage = try Stage()
        stage.options.budget = .milliseconds(40)
        stage.options.roundTrip = .milliseconds(0.2)
        stage.source.deviceCost = DeviceCost(bytes: .kibi(64), save: .milliseconds(30), load: .milliseconds(30))
        let (sent, received) = stage.run()
        let error = try #require(sent.error)
        #expect(error.kind == .refused)
        for figure in ["below what the pause, the line and the devices alone take, 65.", "budget 40.0 ms"] {
            #expect(error.why.contains(figure), "\(error)")
        }
        #expect(stage.source.pauses == 0)
        expectUnharmed(stage)
        // The target is told why.
        #expect(received?.error?.kind == .cancelled && received?.error?.why.contains("budget") == true, "\(received as Any)")
    }

    /// Nothing is done about an offer before it is admitted, and what it shows is what is asked about.
    @Test func anOfferThatIsNotAdmittedCostsTheTargetNothing() throws {
        let stage = try Stage()
        stage.options.token = [1, 2, 3]
        stage.admit = { (offer, _, _) throws(TurntableError) in
            throw TurntableError(.refused, "taking \(offer.machine)", "its token is \(offer.token)")
        }
        let serving = stage.receive()
        let error = try #require(stage.send().error)
        #expect(error.kind == .refused && error.why.contains("its token is [1, 2, 3]"), "\(error)")
        stage.reception.interrupt()
        _ = serving.outcome()
        stage.source.end()
        #expect(stage.host.machine == nil && stage.source.pauses == 0)
        #expect(try stage.targetJournals().open(stage.source.name).history().records.isEmpty)
        expectUnharmed(stage)
    }

    @Test(arguments: [1 << 20, 64 << 10]) func noMoreBytesComeThanAreGranted(_ bytes: Int) throws {
        let stage = try Stage()
        stage.admit = { (_, _, _) throws(TurntableError) in ByteCount(bytes) }
        let (sent, received) = stage.run()
        let error = try #require(sent.error)
        #expect(error.kind == .refused && error.why.contains("more has come than the \(ByteCount(bytes))"), "\(error)")
        #expect(received?.error?.kind == .refused)
        expectUnharmed(stage)
    }

    @Test func aGuestThatWritesFasterThanTheLineIsRefused() throws {
        let stage = try Stage(writes: 200, rate: BitRate(bitsPerSecond: 200e6))
        stage.options.budget = .milliseconds(50)
        stage.options.statedRate = BitRate(bitsPerSecond: 200e6)
        let error = try #require(stage.run().source.error)
        #expect(error.kind == .refused && error.why.contains("does not converge"), "\(error)")
        expectUnharmed(stage)
    }

    @Test func aPauseThatTurnsOutTooLongIsTakenBack() throws {
        let stage = try Stage()
        stage.options.budget = .milliseconds(400)
        stage.source.whenSaving = { () throws(TurntableError) in Clock.sleep(.milliseconds(450)) }
        let error = try #require(stage.run().source.error)
        #expect(error.kind == .refused && error.why.contains("paused \(Limits.pauseAttempts) times"), "\(error)")
        #expect(stage.source.pauses == Limits.pauseAttempts)
        expectUnharmed(stage)
    }

    @Test func anOfferThatTheTargetRefusesLeavesTheMachineAlone() throws {
        let stage = try Stage()
        stage.host.whenPreparing = { () throws(TurntableError) in throw TurntableError(.refused, "preparing", "no machines today") }
        let (sent, received) = stage.run()
        #expect(sent.error?.kind == .refused && sent.error?.why.contains("no machines today") == true, "\(sent)")
        #expect(received?.error?.kind == .refused)
        #expect(stage.source.pauses == 0 && stage.source.isRunning)
    }

    @Test func aTargetWithOtherMemoryRefuses() throws {
        let stage = try Stage()
        stage.host.regionPages = [1500, 600, 4]
        #expect(stage.run().source.error?.kind == .refused)
        expectUnharmed(stage)
    }

    @Test func aTargetWhoseHypervisorDiesSaysSo() throws {
        let stage = try Stage(rate: BitRate(bitsPerSecond: 100e6))
        stage.host.whenAsked = { () throws(TurntableError) in
            throw TurntableError(.hypervisor, "looking at the machine", "its process is gone")
        }
        let error = try #require(stage.run().source.error)
        #expect(error.kind == .refused && error.why.contains("its process is gone"), "\(error)")
        expectUnharmed(stage)
    }

    // MARK: - Before the hand-off

    enum Moment: String, CaseIterable { case preparing, copying, paused, saving }

    private func at(_ moment: Moment, of stage: Stage, _ body: @escaping @Sendable (Stage) -> Void) {
        switch moment {
        case .preparing: stage.host.whenPreparing = { [unowned stage] () throws(TurntableError) in body(stage) }
        case .copying:
            let isFirst = Monitor(true)
            stage.whenReported = { event, stage in
                if case .round = event,
                    isFirst.update({ isFirst in
                        defer { isFirst = false }; return isFirst
                    })
                {
                    body(stage)
                }
            }
        case .paused: stage.source.whenPaused = { [unowned stage] in body(stage) }
        case .saving: stage.source.whenSaving = { [unowned stage] () throws(TurntableError) in body(stage) }
        }
    }

    @Test(arguments: Moment.allCases, [1, 3])
    func aLineThatBreaksLeavesTheMachineRunning(_ moment: Moment, streams: Int) throws {
        let stage = try Stage()
        stage.options.streams = streams
        at(moment, of: stage) { $0.loopback.cut() }
        let (sent, received) = stage.run()
        #expect(sent.error?.kind == .line, "\(sent)")
        #expect(received?.error != nil)
        expectUnharmed(stage, moment.rawValue)
        #expect(!stage.conversation.contains("S handoff"))
    }

    /// The data streams hold, so that only the control stream tells: no hand-off into the void.
    @Test(arguments: [Moment.paused, .saving])
    func aTargetThatHangsUpDuringThePauseGetsNoHandoff(_ moment: Moment) throws {
        let stage = try Stage()
        // However slow the computer is, it is not the budget that ends it.
        stage.options.budget = .seconds(60)
        at(moment, of: stage) { stage in
            stage.targetControl?.shutDown()
            Clock.sleep(.milliseconds(300))
        }
        let (sent, _) = stage.run()
        // What the target says of it may come through before its stream is shut.
        #expect([.line, .refused].contains(sent.error?.kind), "\(sent)")
        #expect(!stage.conversation.contains("S handoff"))
        expectUnharmed(stage)
    }

    @Test(arguments: Moment.allCases)
    func cancellingLeavesTheMachineRunningAndTellsTheTarget(_ moment: Moment) throws {
        let stage = try Stage()
        let accepted = Monitor(false)
        at(moment, of: stage) { stage in accepted.update { $0 = stage.migration.cancel() } }
        let (sent, received) = stage.run()
        #expect(accepted.read { $0 })
        #expect(sent.error?.kind == .cancelled, "\(sent)")
        #expect(received?.error?.kind == .cancelled && received?.error?.why.contains("cancelled") == true, "\(received as Any)")
        #expect(stage.conversation.last { $0.hasPrefix("S") } == "S abort")
        expectUnharmed(stage, moment.rawValue)
    }

    @Test(arguments: [Moment.preparing, .copying, .paused, .saving])
    func cancellingAtTheTargetLeavesTheMachineRunning(_ moment: Moment) throws {
        let stage = try Stage()
        let accepted = Monitor(false)
        at(moment, of: stage) { stage in accepted.update { $0 = stage.cancelTarget() } }
        let (sent, received) = stage.run()
        #expect(accepted.read { $0 })
        #expect(received?.error?.kind == .cancelled, "\(received as Any)")
        // In the pause nobody waits for the target's word: it may come after the hand-off, and gives the right back then.
        #expect(sent.error?.kind == .refused && sent.error?.why.contains("interrupted") == true, "\(sent)")
        expectUnharmed(stage, moment.rawValue)
    }

    @Test func aDeviceStateThatCannotBeSavedLeavesTheMachineRunning() throws {
        let stage = try Stage()
        stage.source.whenSaving = { () throws(TurntableError) in throw TurntableError(.hypervisor, "saving", "it cannot") }
        #expect(stage.run().source.error?.kind == .hypervisor)
        expectUnharmed(stage)
    }

    /// A peer's numbers never trap.
    @Test func anAbsurdHeartbeatIsHarmless() throws {
        let stage = try Stage()
        stage.fromTarget = { message in
            if case .offered = message {
                return [.pong(Pong(stamp: UInt64(bitPattern: .min), received: [])), .pong(Pong(stamp: .max, received: [.max])), message]
            }
            return [message]
        }
        _ = try stage.run().source.get()
    }

    @Test func aTargetThatClaimsAMachineBeforeItWasGivenOneIsNotBelieved() throws {
        let stage = try Stage()
        stage.fromTarget = { message in
            guard case .offered(let offered) = message else { return [message] }
            return [
                message, .committed(Committed(epoch: offered.epoch, waitedForStreams: .zero, loadedDeviceState: .zero, resumed: .zero)),
            ]
        }
        #expect(stage.run().source.error?.kind == .protocol)
        expectUnharmed(stage)
    }

    /// Heard at once it is one answer, heard later it is not for now, and what is heard after the hand-off takes nothing back: the machine
    /// then stays as it is until the target's own word is known. Never may it run at both ends.
    @Test(arguments: 1...8)
    func aTargetThatOffersTwiceGetsTheMachineOnceOrNotAtAll(_ attempt: Int) throws {
        let stage = try Stage()
        stage.fromTarget = { message in
            guard case .offered = message else { return [message] }
            return [message, message]
        }
        guard let error = stage.run().source.error else {
            #expect(stage.source.isDiscarded)
            return
        }
        if stage.conversation.contains("S handoff") {
            expectPreserved(stage, error)
        } else {
            #expect(error.kind == .protocol, "\(error)")
            expectUnharmed(stage)
        }
    }

    @Test func anOfferedInPlaceOfCommittedTakesNothingBack() throws {
        let stage = try Stage()
        let first = Monitor<ControlMessage?>(nil)
        stage.toSource = { message in
            if case .offered = message { first.update { $0 = message } }
            guard case .committed = message else { return [message] }
            return [first.read { $0! }]
        }
        let error = try #require(stage.run().source.error)
        expectPreserved(stage, error)
        #expect(stage.host.machine?.isRunning == true)
    }
}

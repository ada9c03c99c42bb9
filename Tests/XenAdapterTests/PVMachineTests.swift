internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux
@testable internal import XenAdapter

/// What the engine has of a PV domain, with this test in the place of Xen's own helper.
struct PVMachineTests {
    private let patience = Nanoseconds.seconds(60)
    private let runsOn = Monitor(0)
    private func machine(isOwned: Bool) -> PVSourceMachine {
        let letRunOn: @Sendable () throws(TurntableError) -> Void = { [runsOn] () throws(TurntableError) in runsOn.update { $0 += 1 } }
        return PVSourceMachine("web", [], letRunOn: isOwned ? letRunOn : nil)
    }

    @Test func itIsPausedWhenTheHelperWouldSuspendItAndHas() throws {
        let machine = machine(isOwned: true)
        #expect(!machine.mayPause(), "the helper is in its rounds")
        let helper = Background { () throws(TurntableError) in machine.awaitPause() }
        #expect(eventually(within: patience) { machine.mayPause() })
        let engine = Background { () throws(TurntableError) in try machine.pause() }
        #expect(try helper.value(within: patience), "the engine lets it suspend")
        #expect(engine.outcome(within: .milliseconds(50)) == nil, "nothing is suspended yet")
        machine.tell(isSuspended: true)
        try engine.value(within: patience)
    }

    @Test func itIsHandedOffWhenItsMemoryHasLeft() throws {
        let machine = machine(isOwned: true)
        let engine = Background { () throws(TurntableError) in try machine.saveDeviceState() }
        #expect(engine.outcome(within: .milliseconds(50)) == nil)
        machine.memoryHasLeft()
        #expect(try engine.value(within: patience) == [])
        #expect(try self.machine(isOwned: false).saveDeviceState() == [], "under xl that is xl's to wait for")
    }

    @Test func aGuestThatDoesNotSuspendIsNotPaused() throws {
        let machine = machine(isOwned: true)
        machine.tell(isSuspended: false)
        #expect(failure { () throws(TurntableError) in try machine.pause() }?.kind == .hypervisor)
    }

    /// The reason is the target's then.
    @Test func whatTheTargetRefusedIsThisHostsAgain() throws {
        let machine = machine(isOwned: true)
        machine.tell(isSuspended: true)
        machine.reclaim(Epoch(2))
        try machine.resume()
        #expect(runsOn.read { $0 } == 1)
    }

    /// What was given up before the hand-off runs on, and the move is over; what was not suspended runs.
    @Test(arguments: [true, false]) func whatWasSuspendedRunsOn(isSuspended: Bool) throws {
        let machine = machine(isOwned: true)
        machine.tell(isSuspended: isSuspended)
        #expect(failure { () throws(TurntableError) in try machine.resume() }?.kind == .cancelled)
        #expect(runsOn.read { $0 } == (isSuspended ? 1 : 0))
    }

    /// Whatever it waits for.
    @Test func anEndIsHeeded() throws {
        let machine = machine(isOwned: true)
        let helper = Background { () throws(TurntableError) in machine.awaitPause() }
        let engine = Background { () throws(TurntableError) in try machine.saveDeviceState() }
        machine.end()
        #expect(try !helper.value(within: patience))
        #expect(failure { () throws(TurntableError) in try engine.outcome(within: patience)?.get() }?.kind == .cancelled)
        #expect(failure { () throws(TurntableError) in try machine.pause() } != nil)
        #expect(failure { () throws(TurntableError) in try machine.checkAlive() }?.kind == .cancelled)
    }
}

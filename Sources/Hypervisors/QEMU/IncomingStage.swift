internal import TurntableCore
internal import TurntableLinux

/// How far a QEMU that was told to wait for a machine has come, as it says itself: the only witness that survives both the
/// receiver and the keeper.
///
/// QEMU ends when the state that it loads breaks off, so `loading` passes by itself. Checked with 7.2: `query-migrate` says
/// nothing while it waits, then `active`, then `completed`, and nothing again once it ran.
enum IncomingStage {
    /// For device state.
    case waiting
    case loading
    /// It can run, or runs.
    case loaded

    init(_ monitor: QMP) throws(TurntableError) {
        guard try monitor.execute("query-status")["status"]?.text == "inmigrate" else {
            self = .loaded
            return
        }
        switch try monitor.execute("query-migrate")["status"]?.text {
        case nil, "none", "setup": self = .waiting
        default: self = .loading
        }
    }

    /// Waits out `loading`. Throws if QEMU is gone, or loads on.
    static func afterLoading(_ monitor: QMP) throws(TurntableError) -> IncomingStage {
        let deadline = Clock.now + Limits.hypervisorTime
        while Clock.now < deadline {
            let stage = try IncomingStage(monitor)
            if stage != .loading { return stage }
            Clock.sleep(.milliseconds(5))
        }
        throw TurntableError(.hypervisor, "waiting for QEMU to load device state", "it did not within \(Limits.hypervisorTime)")
    }
}

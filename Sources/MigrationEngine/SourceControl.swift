// The control stream at the source, and the ends of a migration.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

extension SourceMigration {
    /// Reads the control stream until it ends.
    func listen(_ control: any ControlChannel, _ ledger: SendLedger, _ older: OlderCopies) {
        while true {
            do throws(TurntableError) {
                guard let message = try control.receive(within: Limits.pollTime) else {
                    // It answers heartbeats whatever else it does.
                    let silence = Clock.now - state.read { $0.lastHeard }
                    if silence > options.waits.stall { throw TurntableError(.line, "hearing from the target", "silent for \(silence)") }
                    continue
                }
                switch message {
                case .pong(let pong): ledger.confirm(pong.received)
                // Before the scheduler hears of it: digests follow at once.
                case .offered(let offered) where offered.received.isEmpty:
                    try older.begin(offered.contents, ledger.regions, session: ledger.session)
                case .olderPages(let pages): try older.take(pages)
                default: break
                }
                let now = Clock.now
                state.update { state in
                    state.lastHeard = now
                    switch message {
                    case .pong(let pong):
                        let sent = Nanoseconds(Int64(truncatingIfNeeded: pong.stamp))
                        if sent == state.handOffPing { state.handOffRoundTrip = now - sent }
                        state.meter.sawRoundTrip(now - sent)
                    case .offered(let offered) where state.phase == .preparing: state.said = .offered(offered)
                    case .refused(let refusal): state.said = .refused(refusal)
                    case .abort(let reason) where state.right != .relinquished:
                        state.said = .refused(Refusal(epoch: ledger.epoch, reason: reason))
                    case .abort(let reason): state.said = .lost(TurntableError(.line, "the target", reason))
                    case .committed(let committed): (state.said, state.committedAt) = (.committed(committed), now)
                    case .verified(let verified) where state.right == .relinquished || state.right == .committed: state.verified = verified
                    case .readiness(let isReady): state.isTargetReady = isReady
                    case .olderPages: break
                    case .welcome, .offer, .offered, .ping, .handoff, .digests, .verified, .query, .resolution, .keys,
                        .confirmed, .program:
                        state.said = .lost(TurntableError(.protocol, "the target", "it sent a message that is not for now"))
                    }
                }
            } catch {
                return state.update { $0.lost = error }
            }
        }
    }

    func heartbeat() {
        let (control, due) = state.update { state in
            let now = Clock.now
            let due = now - state.lastPing >= Limits.heartbeatTime
            if due { state.lastPing = now }
            return (state.control, due)
        }
        // Where this fails, the listening thread hears what the target said before it left.
        if due { try? control?.send(.ping(UInt64(bitPattern: Clock.now.value))) }
    }

    /// Throws what the target said instead of going on.
    func checkTarget() throws(TurntableError) {
        switch state.read({ $0.answer }) {
        case .refused(let refusal): throw TurntableError(.refused, "the target", refusal.reason)
        case .lost(let error): throw error
        case .committed where state.read({ $0.right }) != .relinquished:
            throw TurntableError(.protocol, "the target", "it says that it runs a machine it was not given")
        case .committed, .offered, nil: return
        }
    }

    func checkCancelled() throws(TurntableError) {
        if state.read({ $0.isCancelled }) { throw TurntableError(.cancelled, "moving \(machine.name)", "cancelled") }
    }

    func enter(_ phase: MigrationPhase) {
        state.update { $0.phase = phase }
        report(.phase(phase))
    }

    /// A target that refuses closes its streams, and that can be seen before its reason is.
    func refusalOnItsWay() -> TurntableError? {
        guard state.read({ $0.listener }) != nil,
            case .refused(let refusal)? = state.wait(atMost: Limits.lastWordTime, until: { $0.answer })
        else { return nil }
        return TurntableError(.refused, "the target", refusal.reason)
    }

    /// Removes what was made of the disks here.
    func endDisks() {
        for disk in machine.disks {
            do throws(TurntableError) { try disk.end() } catch { report(.note("afterwards, of the disk \(disk.name): \(error)")) }
        }
    }

    func endStreams() { for sender in state.read({ $0.senders }) { sender.stop() } }

    /// Ends the attachment; when this returns none of its threads is left.
    func endConnections() {
        endStreams()
        let (control, listener, senders) = state.update { state in
            defer { (state.control, state.listener, state.senders, state.said) = (nil, nil, [], nil) }
            return (state.control, state.listener, state.senders)
        }
        control?.shutDown()
        listener?.join()
        for sender in senders { sender.join() }
        state.update { state in for sender in senders { state.earlier += sender.counts } }
    }
}

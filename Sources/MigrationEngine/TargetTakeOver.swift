// The end of a migration at the target: everything is here and the machine is taken over, or it never will be and is refused.
// The journal decides which, once: whoever is second finds what the first decided.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

extension TargetMigration {
    func takeOver(
        _ handoff: (Handoff, arrived: Nanoseconds), _ machine: any TargetMachine, _ arrival: Arrival, _ journal: Journal,
        _ attachment: TargetAttachment
    ) throws(TurntableError) -> Outcome {
        let delivered = Clock.now
        // Every frame is here: from now on only the machine writes its memory.
        attachment.endAccess()
        if offer.verification == .before {
            let verified = compare(attachment, arrival)
            guard verified.stripesDiffering == 0 else {
                throw TurntableError(
                    .damaged, "comparing the memory of \(offer.machine)",
                    "\(verified.stripesDiffering) of \(verified.stripesCompared) stripes differ from the source's: "
                        + VerificationReport(verified, machine.pages.regions).examples.joined(separator: ", "))
            }
            try? attachment.control.send(.verified(verified))
        }
        let flush = DiskFlush(machine.disks)
        do throws(TurntableError) {
            try unsafe machine.loadDeviceState(arrival.deviceState(bytes: Int(handoff.0.deviceStateBytes)))
        } catch {
            try? flush.wait()
            throw error
        }
        try flush.wait()
        let loaded = Clock.now
        // Survives this process before the machine runs; the disk hears of it afterwards (docs/promise.md). From here on
        // the machine may have run, so nothing below refuses any more.
        guard try journal.decide(record(.committed, peer: attachment.peer)) == .owning else {
            throw TurntableError(.refused, "taking \(offer.machine) over", "its epoch was refused here meanwhile")
        }
        state.update { $0.right = .owning }
        // Packets come here from now on, and wait for the machine if they are faster than its hypervisor.
        state.read { $0.announce }()
        let crash = try resume(machine)
        let committed = Committed(
            epoch: offer.epoch, waitedForStreams: delivered - handoff.arrived, loadedDeviceState: loaded - delivered,
            resumed: Clock.now - loaded)
        if crash == nil { enter(.completed) }
        // The machine is this host's whether or not the rest gets through.
        var verified: Verified?
        do throws(TurntableError) {
            try journal.sync()
            try attachment.control.send(.committed(committed))
            try awaitConfirmed(attachment)
            try journal.log(record(.confirmed, peer: attachment.peer))
            if offer.verification == .after { verified = try compareLater(attachment, arrival) }
        } catch {
            report(.note("the machine is this host's; afterwards \(error)"))
        }
        machine.forgetSession()
        if let crash { throw crash }
        return Outcome(
            machine: offer.machine, epoch: offer.epoch, isRunning: machine.isRunning, committed: committed,
            verification: verified.map { VerificationReport($0, machine.pages.regions) })
    }

    /// Lets the machine run. Gives what became of one whose hypervisor died in that: it has crashed, and is this host's, which
    /// the source must hear.
    private func resume(_ machine: any TargetMachine) throws(TurntableError) -> TurntableError? {
        do {
            try machine.resume()
            return nil
        } catch {
            // A monitor that broke off is seen before the end of its process.
            let deadline = Clock.now + Limits.lastWordTime
            while Clock.now < deadline {
                do { try machine.checkAlive() } catch {
                    return TurntableError(
                        .hypervisor, "resuming \(offer.machine)", "\(error.why); it has crashed, and is this host's",
                        remedy: "start it from its disk here")
                }
                Clock.sleep(Limits.greetingPollTime)
            }
            throw TurntableError(
                .relinquished, "resuming \(offer.machine)", "\(error); it is here and stopped, or runs",
                remedy: "look at it through its hypervisor")
        }
    }

    /// Waits until the source has the answer on its disk, while the machine runs.
    private func awaitConfirmed(_ attachment: TargetAttachment) throws(TurntableError) {
        let confirmed = attachment.state.wait(atMost: options.waits.stall) { state -> Result<Void, TurntableError>? in
            state.isConfirmed ? .success(()) : state.failure.map { .failure($0) }
        }
        guard let confirmed else { throw TurntableError(.line, "waiting for the source to know", "nothing came in \(options.waits.stall)") }
        try confirmed.get()
    }

    /// Waits for the source's digests while the machine runs, and tells the source what they say.
    private func compareLater(_ attachment: TargetAttachment, _ arrival: Arrival) throws(TurntableError) -> Verified {
        let complete = attachment.state.wait(atMost: options.waits.stall) { state -> Result<Void, TurntableError>? in
            state.digests.last?.isLast == true ? .success(()) : state.failure.map { .failure($0) }
        }
        guard let complete else { throw TurntableError(.line, "waiting for the source's digests", "none came in \(options.waits.stall)") }
        try complete.get()
        let verified = compare(attachment, arrival)
        try attachment.control.send(.verified(verified))
        return verified
    }

    private func compare(_ attachment: TargetAttachment, _ arrival: Arrival) -> Verified {
        var verified = Verified(epoch: offer.epoch, stripesCompared: 0, stripesDiffering: 0, examples: [])
        for digests in attachment.state.read({ $0.digests }) {
            for (index, digest) in digests.stripes.enumerated() {
                let stripe = Int(digests.firstStripe) + index
                verified.stripesCompared += 1
                guard arrival.stripeDigest(stripe, in: Int(digests.region)) != digest else { continue }
                verified.stripesDiffering += 1
                if verified.examples.count < Verified.maximumExamples {
                    verified.examples.append(.init(region: digests.region, stripe: UInt32(stripe)))
                }
            }
        }
        return verified
    }

    // MARK: - Ends

    /// The machine does not come to run here: throws it away, remembers that, and says so.
    func giveUp(
        _ error: TurntableError, _ machine: (any TargetMachine)?, _ journal: Journal?, _ attachment: TargetAttachment
    ) -> TurntableError {
        // It may have run, here or in a time before this one.
        if right == .owning || error.kind == .relinquished { return error }
        var cause = error
        if cause.kind == .line, let abort = abortOnItsWay(attachment) { cause = abort }
        guard right == .offered, let journal else {
            machine?.discard()
            machine?.forgetSession()
            // Nothing of it is in the journal, so it names no epoch: it gives no right back to a source that gave it up.
            try? attachment.control.send(.refused(Refusal(epoch: Epoch(0), reason: cause.description)))
            return cause
        }
        do throws(TurntableError) {
            var record = record(.refused, peer: attachment.peer, detail: cause.description)
            record.signature = options.sign(record.signedBytes(machine: offer.machine))
            guard try journal.decide(record) == .refused else { return cause }
            machine?.discard()
            machine?.forgetSession()
            try journal.sync()
            state.update { $0.right = .refused }
            try? attachment.control.send(.refused(Refusal(epoch: offer.epoch, reason: cause.description, signature: record.signature)))
            return cause
        } catch {
            // Not remembered, not said: the source asks again.
            machine?.discard()
            return TurntableError(error.kind, error.what, "\(error.why); before that, \(cause)", remedy: error.remedy)
        }
    }
}

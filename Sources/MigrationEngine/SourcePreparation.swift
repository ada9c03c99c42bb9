// Before the first page: the offer, the data streams, and the wait for the target to be ready.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

extension SourceMigration {
    /// Opens the data streams side by side: each handshake takes a round trip.
    func connectStreams(_ attachment: AttachmentID, _ shared: SendState, _ dirtyLog: any DirtyLog) throws(TurntableError) -> [StripeSender]
    {
        let opened = Monitor([Result<any FrameSender, TurntableError>?](repeating: nil, count: options.streams))
        let threads = (0..<options.streams).map { stream in
            WorkerThread("tt-connect-\(stream)") { [transport, machine] in
                let result = Result { () throws(TurntableError) in
                    try transport.connectStream(stream, attachment: attachment, pages: machine.pages)
                }
                opened.update { $0[stream] = result }
            }
        }
        for thread in threads { thread.join() }
        var senders: [StripeSender] = []
        var failure: TurntableError?
        for (stream, result) in opened.read({ $0 }).enumerated() {
            switch result {
            case .success(let sender): senders.append(StripeSender(stream: stream, sender: sender, shared: shared, dirtyLog: dirtyLog))
            case .failure(let error): failure = error
            case nil: preconditionFailure("a thread that has ended has a result")
            }
        }
        state.update { $0.senders = senders }
        if let failure { throw failure }
        return senders
    }

    /// The first round is every page that may hold something.
    func populate(_ shared: SendState) {
        for region in shared.pending.indices {
            machine.pages.forEachPopulatedRun(in: RegionIndex(region)) { shared.pending[region].insert($0) }
        }
    }

    func makeOffer(epoch: Epoch, _ shared: SendState) -> Offer {
        var populations: [Offer.Population] = []
        for (region, pending) in shared.pending.enumerated() {
            var next = 0
            while let run = pending.nextRun(from: next, to: pending.pages) {
                next = run.upperBound
                let first = run.lowerBound / Limits.stripePages
                let end = (run.upperBound + Limits.stripePages - 1) / Limits.stripePages
                if let last = populations.last, last.region == region,
                    Int(last.firstStripe + last.stripeCount) >= first || populations.count == Offer.maximumPopulations
                {
                    populations[populations.count - 1].stripeCount = UInt32(end) - last.firstStripe
                } else if populations.count < Offer.maximumPopulations {
                    populations.append(.init(region: UInt16(region), firstStripe: UInt32(first), stripeCount: UInt32(end - first)))
                }
            }
        }
        return Offer(
            session: session, epoch: epoch, machine: machine.name, streams: UInt16(options.streams),
            regions: machine.pages.regions.map { .init(name: $0.name, bytes: UInt64($0.pages.bytes.value)) },
            populations: populations, description: machine.description)
    }

    func awaitOffered() throws(TurntableError) {
        let deadline = Clock.now + options.waits.prepare
        while Clock.now < deadline {
            heartbeat()
            let answer = state.wait(atMost: Limits.pollTime) { state -> Answer? in
                let answer = state.answer
                // In one step, so that a second Offered is not for now.
                if case .offered = answer {
                    state.answer = nil
                    state.phase = .copying
                }
                return answer
            }
            switch answer {
            case .offered: return
            case .refused(let refusal): throw TurntableError(.refused, "the target", refusal.reason)
            case .lost(let error): throw error
            case .committed: throw TurntableError(.protocol, "the target", "it says that it runs a machine it was not given")
            case nil: try checkCancelled()
            }
        }
        throw TurntableError(.line, "waiting for the target to prepare", "no answer for \(options.waits.prepare)")
    }
}

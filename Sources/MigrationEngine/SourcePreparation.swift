// Before the first page of an attachment: the offer, the data streams, and the wait for the target to be ready.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

extension SourceMigration {
    /// Connects, offers the machine, and opens the data streams; their windows open while the target makes the shell.
    func prepare(_ session: SourceSession) throws(TurntableError) -> [StripeSender] {
        enter(.connecting)
        let control = try transport.connectControl()
        state.update { state in
            state.control = control
            (state.said, state.lost, state.isTargetReady) = (nil, nil, true)
            state.lastHeard = Clock.now
            state.meter.pauseMeasuring()
        }
        // Somebody may have cancelled before there was anything to shut down.
        try checkCancelled()
        let (ledger, older) = (session.ledger, session.older)
        let listener = WorkerThread("tt-control") { [self] in
            listen(control, ledger, older)
            older.end()
        }
        state.update { $0.listener = listener }
        if let roundTrip = options.roundTrip { state.update { $0.meter.sawRoundTrip(roundTrip) } }
        enter(.preparing)
        if !session.isOffered {
            try session.journal.log(session.record(.offer, peer: options.peer))
            session.isOffered = true
            state.update { $0.right = .offering }
        }
        try control.send(.offer(makeOffer(session)))
        let senders = try connectStreams(control.attachment, session)
        let handshakes = senders.map(\.status.roundTrip)
        state.update { state in for time in handshakes { state.meter.sawRoundTrip(time) } }
        let roundTrip = state.read { $0.meter.roundTrip }
        if roundTrip > Self.longLine { for sender in senders { sender.start(.warmUp(atMost: warmUp(roundTrip, streams: senders.count))) } }
        return senders
    }

    /// What opens a stream's window: doubling with each round trip, it has sent twice the line's product when it fills the line.
    private func warmUp(_ roundTrip: Nanoseconds, streams: Int) -> ByteCount {
        let most = ByteCount(Limits.warmUpBytes)
        // Over a link element nobody measures the round trip before the first heartbeat.
        guard let rate = state.read({ $0.statedRate }), roundTrip != .forever else { return most }
        return min(most, ByteCount(2 * rate.bytes(in: roundTrip).value / streams))
    }

    /// Opens the data streams side by side: each handshake takes a round trip.
    private func connectStreams(_ attachment: AttachmentID, _ session: SourceSession) throws(TurntableError) -> [StripeSender] {
        let streams = session.ledger.streams
        let opened = Monitor([Result<any FrameSender, TurntableError>?](repeating: nil, count: streams))
        let threads = (0..<streams).map { stream in
            WorkerThread("tt-connect-\(stream)") { [transport, machine] in
                let result = Result { () throws(TurntableError) in
                    try transport.connectStream(stream, attachment: attachment, pages: machine.pages)
                }
                opened.update { $0[stream] = result }
            }
        }
        for thread in threads { thread.join() }
        let shared = SendState(pages: machine.pages, disks: session.disks, ledger: session.ledger, older: session.older)
        var senders: [StripeSender] = []
        var failure: TurntableError?
        for (stream, result) in opened.read({ $0 }).enumerated() {
            switch result {
            case .success(let sender):
                senders.append(StripeSender(stream: stream, sender: sender, shared: shared, dirtyLog: session.dirtyLog))
            case .failure(let error): failure = error
            case nil: preconditionFailure("a thread that has ended has a result")
            }
        }
        let rate = state.update { state in
            state.senders = senders
            return state.statedRate
        }
        if let failure { throw failure }
        // The transport knows the rate that was stated at the beginning.
        if let rate, rate != options.statedRate { for sender in senders { try sender.pace(at: rate.share(of: streams)) } }
        return senders
    }

    private func makeOffer(_ session: SourceSession) -> Offer {
        var populations: [Offer.Population] = []
        for (region, pending) in session.ledger.pending.prefix(machine.pages.regions.count).enumerated() {
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
            session: session.identifier, epoch: session.epoch, machine: machine.name, streams: UInt16(session.ledger.streams),
            regions: machine.pages.regions.map { .init(name: $0.name, bytes: UInt64($0.pages.bytes.value)) },
            populations: populations, disks: machine.disks.map { .init(name: $0.name, bytes: UInt64($0.size.value)) },
            verification: options.verification, resumeWindow: options.resumeWindow, isHandedOff: session.isHandedOff,
            description: machine.description, token: options.token)
    }

    /// The target's answer to the offer; nil if it says that it runs the machine, which was handed off before.
    func awaitOffered(_ session: SourceSession) throws(TurntableError) -> Offered? {
        let deadline = Clock.now + options.waits.prepare
        while Clock.now < deadline {
            heartbeat()
            let answer = state.wait(atMost: Limits.pollTime) { state -> Answer? in
                let answer = state.answer
                // In one step, so that a second Offered is not for now.
                if case .offered = answer {
                    state.said = nil
                    state.phase = .copying
                }
                return answer
            }
            if case .offered(let offered) = answer { return offered }
            if case .committed = answer, session.isHandedOff { return nil }
            if case .refused(let refusal) = answer, session.isHandedOff { return try heed(refusal, session) }
            try checkTarget()
            if !session.isHandedOff { try checkCancelled() }
        }
        throw TurntableError(.line, "waiting for the target to prepare", "no answer for \(options.waits.prepare)")
    }

    /// Takes the target's word for what it has of this session; everything else is sent, or sent again.
    func accept(_ offered: Offered, _ session: SourceSession) throws(TurntableError) {
        let ledger = session.ledger
        guard offered.epoch == session.epoch else {
            throw TurntableError(.protocol, "the target", "it awaits epoch \(offered.epoch.value) instead of \(session.epoch.value)")
        }
        if ledger.host != .none, ledger.host != offered.host {
            let why = "another host answers there: \(offered.host) instead of \(ledger.host)"
            if session.isHandedOff {
                throw TurntableError(.relinquished, "handing \(machine.name) off again", "\(why); \(Self.preserved)")
            }
            throw TurntableError(
                .refused, "taking the migration up again", "\(why); the machine runs on here", remedy: "send it again: that begins anew")
        }
        let isFirst = ledger.host == .none
        ledger.host = offered.host
        let populated = session.content(of: machine.pages)
        if offered.received.isEmpty {
            if !isFirst { report(.note("the target has nothing of this session any more: everything is sent again")) }
            ledger.restart(populated)
            for (region, content) in offered.contents.enumerated() where content != .zero { ledger.distrust(region) }
        } else {
            // Its first answer did not get through, and this one no longer says what was there before.
            if isFirst { for region in ledger.pending.indices { ledger.distrust(region) } }
            // It said so in an Offered that did not get through.
            if ledger.isBehind(offered.received) {
                report(.note("the target has lost what it had of this session: everything is sent again"))
                ledger.repeatAll(populated)
            }
            let again = try ledger.rewind(to: offered.received)
            session.pagesSentAgain += again.value
            if session.attachments > 0 || again.value > 0 { report(.resumed(pagesSentAgain: again.value)) }
        }
        session.framesReceived = max(session.framesReceived, offered.received.reduce(0, &+))
        session.isEstablished = true
        session.attachments += 1
    }
}

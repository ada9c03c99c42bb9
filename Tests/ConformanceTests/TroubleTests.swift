internal import TestSupport
internal import Testing
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What every transport does when the other end, or the line, does not do its part.
@Suite(.serialized) struct TroubleTests {
    /// Far below the stall limit, far above what waking a thread takes on a busy machine.
    static let promptly = Nanoseconds.seconds(3)

    @Test(arguments: LineKind.all.filter { $0.streams == 1 && !$0.testDescription.contains("sealed") })
    func shutDownWakesABlockedSender(_ kind: LineKind) throws {
        let memory = try TestMemory(pages: [256])
        let (source, accept) = try kind.make().sourceOfDeafTarget()
        let sender = try source.connectStream(0, attachment: .random(), pages: memory)
        let deaf = try accept()
        let sent = Monitor(0)
        let sending = Background { () throws(TurntableError) in
            let draft = FrameDraft(limits: sender.limits)
            while true {
                precondition(draft.append(extent(0, 0, 256)))
                try sender.send(draft)
                draft.startNext()
                sent.update { $0 += 1 }
            }
        }
        _ = waitUntilStill(sent)
        let started = Clock.now
        sender.shutDown()
        sender.shutDown()
        guard case .failure(let error)? = sending.outcome(within: Self.promptly) else { throw Unexpected("the sender is still blocked") }
        #expect([.cancelled, .line].contains(error.kind), "\(error)")
        #expect(Clock.now - started < Self.promptly)
        deaf.close()
    }

    @Test(arguments: LineKind.receiving)
    func shutDownWakesABlockedReceiver(_ kind: LineKind) throws {
        let line = try kind.make()
        let memory = try TestMemory(pages: [256])
        let (stranger, receiver) = try dataStream(of: line)
        // In the middle of a frame, where a receiver waits for the rest.
        try stranger.write(Array(frameBytes([extent(0, 0, 2)], payload: [UInt8](repeating: 1, count: 8192)).prefix(1000)))
        let sink = TestSink(memory, streams: 1)
        let receiving = Background { () throws(TurntableError) in try receiver.receive(1, into: sink) }
        #expect(receiving.outcome(within: .milliseconds(200)) == nil)
        receiver.shutDown()
        guard case .failure(let error)? = receiving.outcome(within: Self.promptly) else {
            throw Unexpected("the receiver is still blocked")
        }
        #expect([.cancelled, .line].contains(error.kind), "\(error)")
    }

    @Test(arguments: LineKind.receiving)
    func shutDownWakesAReaderOfTheControlStreamAtBothEnds(_ kind: LineKind) throws {
        let session = try Session(kind.make(), streams: 0, pages: TestMemory(pages: [1]))
        let readers = [session.sourceControl, session.targetControl].map { control in
            Background { () throws(TurntableError) in try control.receive(within: .seconds(25)) }
        }
        #expect(readers[0].outcome(within: .milliseconds(100)) == nil)
        session.sourceControl.shutDown()
        for reader in readers {
            guard case .failure(let error)? = reader.outcome(within: Self.promptly) else { throw Unexpected("a reader is still blocked") }
            #expect([.cancelled, .line].contains(error.kind), "\(error)")
        }
    }

    /// Where a frame of two pages and a zero extent can be cut: at its start, in its header, extents and payload.
    @Test(arguments: LineKind.receiving, [0, 1, 31, 32, 40, 63, 64, 65, 5000, 8255])
    func aPeerThatLeavesIsALineError(_ kind: LineKind, bytes: Int) throws {
        let (stranger, receiver) = try dataStream(of: kind.make())
        let frame = frameBytes([extent(0, 0, 2), extent(0, 9, 1, .zero)], payload: [UInt8](repeating: 1, count: 8192))
        try stranger.write(Array(frame.prefix(bytes)))
        stranger.close()
        #expect(receiver.receiveUntilError(into: TestSink(try TestMemory(pages: [256]), streams: 1))?.kind == .line)
    }

    /// Each is a whole frame, wrong in one way.
    static let wrongFrames: [(String, [UInt8])] = [
        (
            "noise",
            {
                var generator = SeededGenerator(seed: 8); return generator.bytes(4096)
            }()
        ),
        ("wrong number", frameBytes([extent(0, 0, 1)], payload: [UInt8](repeating: 1, count: 4096), sequence: 1)),
        ("outside the region", frameBytes([extent(0, 255, 2)], payload: [UInt8](repeating: 1, count: 8192))),
        ("no such region", frameBytes([extent(1, 0, 1)], payload: [UInt8](repeating: 1, count: 4096))),
        ("too little payload", frameBytes([extent(0, 0, 2)], payload: [UInt8](repeating: 1, count: 4096))),
        ("payload of a zero extent", frameBytes([extent(0, 0, 1, .zero)], payload: [UInt8](repeating: 1, count: 4096))),
        ("device state past its limit", frameBytes([], payload: [1], kind: .deviceState, offset: UInt64(Limits.deviceStateBytes) + 1)),
    ]

    @Test(arguments: LineKind.receiving, wrongFrames.map(\.0))
    func aPeerThatSendsNonsenseIsAProtocolError(_ kind: LineKind, what: String) throws {
        let (stranger, receiver) = try dataStream(of: kind.make())
        let memory = try TestMemory(pages: [256]), untouched = try TestMemory(pages: [256])
        try stranger.write(Self.wrongFrames.first { $0.0 == what }!.1)
        #expect(receiver.receiveUntilError(into: TestSink(memory, streams: 1))?.kind == .protocol)
        #expect(memory.differences(from: untouched) == [])
    }

    /// The second stream's stripe on the first stream.
    @Test(arguments: LineKind.receiving)
    func aStripeOfAnotherStreamIsAProtocolError(_ kind: LineKind) throws {
        let (stranger, receiver) = try dataStream(of: kind.make())
        try stranger.write(frameBytes([extent(0, 256, 1)], payload: [UInt8](repeating: 1, count: 4096)))
        #expect(receiver.receiveUntilError(into: TestSink(try TestMemory(pages: [512]), streams: 2))?.kind == .protocol)
    }

    @Test(arguments: LineKind.receiving)
    func nonsenseOnTheControlStreamIsAProtocolError(_ kind: LineKind) throws {
        let line = try kind.make()
        for bytes: [UInt8] in [
            Array("GET / HTTP/1.1\r\n\r\n".utf8), [255, 255, 255, 255, 1, 0, 0, 0],
            [8, 0, 0, 0, 5, 0, 1, 0] + [UInt8](repeating: 0, count: 8),
        ] {
            let stranger = try line.stranger()
            try stranger.write(Preface(role: .control).encoded() + bytes)
            guard case .control(let control, _)? = try line.target.accept(within: .seconds(5)) else {
                throw Unexpected("no control stream came")
            }
            #expect(failure { () throws(TurntableError) in try control.receive(within: .seconds(5)) }?.kind == .protocol)
        }
    }

    @Test(arguments: LineKind.receiving)
    func aForeignGreetingIsTurnedAwayAndDisturbsNobody(_ kind: LineKind) throws {
        let line = try kind.make()
        let memory = try TestMemory(pages: [256])
        let session = try Session(line, streams: 1, pages: memory)
        var wrongRole = Preface(role: .data).encoded()
        wrongRole[12] = 9
        let greetings: [[UInt8]] = [
            Array("GET /index.html HTTP/1.1\r\nHost: example\r\n\r\n".utf8), wrongRole,
            Array(Preface(role: .control).encoded().dropFirst() + [0]),
        ]
        let strangers = try greetings.map { greeting in
            let stranger = try line.stranger()
            try stranger.write(greeting)
            return stranger
        }
        #expect(try line.target.accept(within: .milliseconds(300)) == nil)
        for stranger in strangers { #expect(stranger.isEnded()) }
        #expect(eventually { line.turnedAway == greetings.count })

        let draft = FrameDraft(limits: session.senders[0].limits)
        precondition(draft.append(extent(0, 0, 256)))
        let sending = Background { () throws(TurntableError) in
            let draft = FrameDraft(limits: session.senders[0].limits)
            precondition(draft.append(extent(0, 0, 256)))
            try session.senders[0].send(draft)
            try session.sourceControl.send(.ping(1))
        }
        #expect(try session.receivers[0].receive(1, into: TestSink(memory, streams: 1)).count == 1)
        #expect(try session.targetControl.receive(within: .seconds(5)) == .ping(1))
        try sending.value()
    }

    @Test(arguments: LineKind.receiving)
    func silentStrangersHoldNobodyUp(_ kind: LineKind) throws {
        let line = try kind.make()
        let silent = try (0..<5).map { _ in try line.stranger() }
        let halfway = try line.stranger()
        try halfway.write(Array(Preface(role: .control).encoded().prefix(20)))
        let started = Clock.now
        let session = try Session(line, streams: 2, pages: TestMemory(pages: [1]))
        try session.sourceControl.send(.ping(2))
        #expect(try session.targetControl.receive(within: .seconds(5)) == .ping(2))
        #expect(Clock.now - started < Self.promptly)
        for stranger in silent + [halfway] { stranger.close() }
    }

    @Test(arguments: LineKind.receiving)
    func waitsEndWithinTheirLimit(_ kind: LineKind) throws {
        let line = try kind.make()
        let session = try Session(line, streams: 1, pages: TestMemory(pages: [1]))
        let sink = TestSink(try TestMemory(pages: [1]), streams: 1)
        let limit = Nanoseconds.milliseconds(60)
        let waits: [(String, Nanoseconds, () throws -> Bool)] = [
            ("accept", limit, { try line.target.accept(within: limit) == nil }),
            ("control", limit, { try session.sourceControl.receive(within: limit) == nil }),
            ("frame", Limits.pollTime, { try session.receivers[0].receive(into: sink) == nil }),
        ]
        for (what, limit, isNil) in waits {
            let started = Clock.now
            #expect(try isNil(), "\(what)")
            let took = Clock.now - started
            #expect(took >= limit - .milliseconds(2) && took < limit + .seconds(1), "\(what) took \(took)")
        }
    }

    /// A data stream to a target, spoken by hand at the source's end.
    private func dataStream(of line: any Line) throws -> (any RawConnection, any FrameReceiver) {
        let stranger = try line.stranger()
        try stranger.write(Preface(role: .data).encoded())
        guard case .data(let receiver, _)? = try line.target.accept(within: .seconds(5)) else { throw Unexpected("no data stream came") }
        return (stranger, receiver)
    }
}

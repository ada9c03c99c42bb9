internal import TestSupport
internal import Testing
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What every transport does with what an honest sender gives it.
@Suite(.serialized) struct DeliveryTests {
    static let regionPages = [1100, 256, 3]

    @Test(arguments: LineKind.all, VerbsLine.address == nil ? [UInt64(1), 2] : [1])
    func pagesArriveByteExactAtTheirPlace(_ kind: LineKind, seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let source = try TestMemory(pages: Self.regionPages), target = try TestMemory(pages: Self.regionPages),
            expected = try TestMemory(pages: Self.regionPages)
        source.fillAll(with: &generator)
        // The target is full of something else: what is not sent stays, what is zero is cleared.
        var noise = SeededGenerator(seed: seed + 1000), again = SeededGenerator(seed: seed + 1000)
        target.fillAll(with: &noise)
        expected.fillAll(with: &again)

        let session = try Session(kind.make(), streams: kind.streams, pages: source)
        let sink = TestSink(target, streams: kind.streams)
        var threads: [Background<[FrameHeader]>] = []
        var frames: [[[Extent]]] = []
        for stream in 0..<kind.streams {
            let plan = randomFrames(stream, sink.layout, &generator)
            frames.append(plan)
            for extent in plan.joined() {
                for page in extent.firstPage.value..<extent.firstPage.value + extent.pageCount.value {
                    if extent.encoding == .zero {
                        expected.clear(page, extent.region.value)
                    } else {
                        expected.mutableAddress(page, extent.region.value).copyMemory(
                            from: source.mutableAddress(page, extent.region.value), byteCount: pageBytes)
                    }
                }
            }
            let (sender, receiver) = (session.senders[stream], session.receivers[stream])
            threads.append(Background { () throws(TurntableError) in try receiver.receive(plan.count, into: sink) })
            threads.append(
                Background { () throws(TurntableError) in
                    let draft = FrameDraft(limits: sender.limits)
                    for extents in plan {
                        for extent in extents { precondition(draft.append(extent)) }
                        draft.round = UInt32(draft.sequence * 3)
                        try sender.send(draft)
                        draft.startNext()
                    }
                    try sender.flush()
                    return []
                })
        }
        for (index, thread) in threads.enumerated() {
            let headers = try thread.value()
            guard index % 2 == 0 else { continue }
            let plan = frames[index / 2]
            #expect(headers.map(\.sequence) == (0..<UInt64(plan.count)).map { $0 }, "seed \(seed)")
            #expect(headers.map(\.round) == (0..<UInt32(plan.count)).map { $0 * 3 }, "seed \(seed)")
            #expect(headers.map(\.extentCount) == plan.map(\.count), "seed \(seed)")
        }
        #expect(target.differences(from: expected) == [], "seed \(seed)")
    }

    /// Frames of every shape for a stream: one whole stripe, as many extents as go, and random ones.
    private func randomFrames(_ stream: Int, _ layout: MemoryLayoutTable, _ generator: inout SeededGenerator) -> [[Extent]] {
        var stripes: [(region: Int, pages: Range<Int>)] = []
        for region in 0..<layout.regionCount {
            for stripe in 0..<layout.stripes(in: region) where layout.stream(ofStripe: stripe, region: region) == stream {
                stripes.append((region, stripe * Limits.stripePages..<min((stripe + 1) * Limits.stripePages, layout.pages(in: region))))
            }
        }
        var frames: [[Extent]] = []
        for (region, pages) in stripes {
            frames.append([extent(region, pages.lowerBound, pages.count)])
            frames.append(pages.map { extent(region, $0, 1, $0 % 3 == 0 ? .zero : .raw) })
        }
        for _ in 0..<30 where !stripes.isEmpty {
            var extents: [Extent] = []
            var payload = 0
            for _ in 0..<Int.random(in: 1...20, using: &generator) {
                let (region, pages) = stripes.randomElement(using: &generator)!
                let first = Int.random(in: pages, using: &generator)
                let chosen = extent(
                    region, first, Int.random(in: 1...pages.upperBound - first, using: &generator),
                    Bool.random(using: &generator) ? .raw : .zero)
                // Within a frame no page comes twice; frames go one after the other.
                let overlaps = extents.contains {
                    $0.region == chosen.region && $0.firstPage < chosen.firstPage + chosen.pageCount
                        && chosen.firstPage < $0.firstPage + $0.pageCount
                }
                if overlaps || payload + chosen.payloadBytes > Limits.framePayloadBytes { continue }
                payload += chosen.payloadBytes
                extents.append(chosen)
            }
            if !extents.isEmpty { frames.append(extents) }
        }
        return frames
    }

    @Test(arguments: LineKind.all)
    func theLastVersionOfAPageWins(_ kind: LineKind) throws {
        let source = try TestMemory(pages: [256 * kind.streams]), target = try TestMemory(pages: [256 * kind.streams])
        let session = try Session(kind.make(), streams: kind.streams, pages: source)
        let sink = TestSink(target, streams: kind.streams)
        let versions = 60
        var threads: [Background<[FrameHeader]>] = []
        for stream in 0..<kind.streams {
            let (sender, receiver) = (session.senders[stream], session.receivers[stream])
            threads.append(Background { () throws(TurntableError) in try receiver.receive(versions, into: sink) })
            threads.append(
                Background { () throws(TurntableError) in
                    var generator = SeededGenerator(seed: UInt64(stream))
                    let draft = FrameDraft(limits: sender.limits)
                    for version in 0..<versions {
                        // Alternately one page and all of its neighbours, so that both small and large frames are sent.
                        for page in 0..<(version % 2 == 0 ? 64 : 1) { source.fill(stream * 256 + page, 0, with: &generator) }
                        precondition(draft.append(extent(0, stream * 256, version % 2 == 0 ? 64 : 1)))
                        try sender.send(draft)
                        draft.startNext()
                    }
                    try sender.flush()
                    return []
                })
        }
        for thread in threads { _ = try thread.value() }
        #expect(target.differences(from: source) == [])
    }

    @Test(arguments: LineKind.all)
    func deviceStateArrivesInPiecesAndWarmUpIsIgnored(_ kind: LineKind) throws {
        var generator = SeededGenerator(seed: 3)
        let source = try TestMemory(pages: [4]), target = try TestMemory(pages: [4])
        let session = try Session(kind.make(), streams: kind.streams, pages: source)
        let sink = TestSink(target, streams: kind.streams)
        let state = generator.bytes((3 << 20) + 123)
        let (sender, receiver) = (session.senders[0], session.receivers[0])
        let limit = sender.limits.payloadBytes
        let sending = Background { () throws(TurntableError) in
            let draft = FrameDraft(limits: sender.limits)
            for offset in stride(from: 0, to: state.count, by: limit).reversed() {
                draft.setWarmUp([UInt8](repeating: 0xee, count: 100_000))
                try sender.send(draft)
                draft.startNext()
                draft.setDeviceState(Array(state[offset..<min(offset + limit, state.count)]), offset: offset)
                try sender.send(draft)
                draft.startNext()
            }
        }
        let headers = try receiver.receive(8, into: sink)
        _ = try sending.value()
        #expect(headers.map(\.kind) == [.warmUp, .deviceState, .warmUp, .deviceState, .warmUp, .deviceState, .warmUp, .deviceState])
        #expect(sink.deviceState(state.count).elementsEqual(state))
        #expect(target.differences(from: source) == [])
    }

    /// A slow reader gets every byte as the format says; meanwhile its sender waits, and holds no more than its buffers.
    @Test(arguments: LineKind.all.filter { $0.streams == 1 })
    func aSlowReceiverHoldsTheSenderBackAndLosesNothing(_ kind: LineKind) throws {
        var generator = SeededGenerator(seed: 4)
        let memory = try TestMemory(pages: [256 * 3])
        memory.fillAll(with: &generator)
        let line = try kind.make()
        let (source, accept) = try line.sourceOfDeafTarget()
        let sender = try source.connectStream(0, attachment: .random(), pages: memory)
        let reader = try accept()
        _ = try reader.read(Preface.bytes)

        let total = 40
        let sent = Monitor(0)
        let sending = Background { () throws(TurntableError) in
            let draft = FrameDraft(limits: sender.limits)
            for frame in 0..<total {
                let stripe = frame % 3
                precondition(draft.append(frame % 4 == 3 ? extent(0, stripe * 256 + 5, 1) : extent(0, stripe * 256, 256)))
                try sender.send(draft)
                draft.startNext()
                sent.update { $0 += 1 }
            }
            try sender.flush()
        }
        let held = waitUntilStill(sent)
        #expect(held < 24, "the sender took \(held) frames that nobody read")
        for frame in 0..<total {
            let (first, count) = frame % 4 == 3 ? (frame % 3 * 256 + 5, 1) : (frame % 3 * 256, 256)
            let payload = Array(UnsafeRawBufferPointer(start: memory.mutableAddress(first, 0), count: count * pageBytes))
            let expected = frameBytes([extent(0, first, count)], payload: payload, sequence: UInt64(frame))
            #expect(try reader.read(expected.count).elementsEqual(expected), "frame \(frame)")
        }
        try sending.value()
    }

    @Test(arguments: LineKind.receiving)
    func controlMessagesGoBothWaysInOrderAndWhole(_ kind: LineKind) throws {
        let memory = try TestMemory(pages: [1])
        let session = try Session(kind.make(), streams: 0, pages: memory)
        var generator = SeededGenerator(seed: 5)
        let offer = Offer(
            session: .random(), epoch: Epoch(7), machine: "naïve", streams: 4, regions: [.init(name: "ram", bytes: 1 << 30)],
            populations: [.init(region: 0, firstStripe: 1, stripeCount: 2)], description: generator.bytes(Limits.descriptionBytes))
        let toTarget: [ControlMessage] = [
            .offer(offer), .ping(.max), .handoff(Handoff(epoch: Epoch(7), session: offer.session, attachment: .random(), frames: [1, 2], deviceStateBytes: 3)),
            .abort("no"),
        ]
        let toSource: [ControlMessage] = [
            .welcome(Welcome(version: 1, attachment: session.targetControl.attachment)),
            .offered(Offered(epoch: Epoch(7), host: .random(), received: [1, 2])), .pong(Pong(stamp: 0, received: [3])),
            .committed(Committed(epoch: Epoch(7), waitedForStreams: .zero, loadedDeviceState: Nanoseconds(1), resumed: Nanoseconds(2))),
            .refused(Refusal(epoch: Epoch(7), reason: String(repeating: "x", count: Limits.reasonBytes))),
        ]
        let sending = Background { () throws(TurntableError) in
            for message in toTarget { try session.sourceControl.send(message) }
            for message in toSource { try session.targetControl.send(message) }
        }
        for message in toTarget { #expect(try session.targetControl.receive(within: .seconds(5)) == message) }
        for message in toSource { #expect(try session.sourceControl.receive(within: .seconds(5)) == message) }
        try sending.value()
    }

    /// Any thread sends on the control stream: messages never mix.
    @Test(arguments: LineKind.receiving)
    func sendersOfOneControlStreamDoNotMix(_ kind: LineKind) throws {
        let session = try Session(kind.make(), streams: 0, pages: TestMemory(pages: [1]))
        let threads = (0..<4).map { thread in
            Background { () throws(TurntableError) in
                for count in 0..<200 {
                    try session.sourceControl.send(.abort("\(thread):\(count):" + String(repeating: "\(thread)", count: 3000)))
                }
            }
        }
        var next = [0, 0, 0, 0]
        for _ in 0..<800 {
            guard case .abort(let text)? = try session.targetControl.receive(within: .seconds(5)) else {
                throw Unexpected("a message was lost")
            }
            let fields = text.split(separator: ":")
            let thread = try #require(Int(fields[0]))
            #expect(Int(fields[1]) == next[thread] && fields[2] == String(repeating: "\(thread)", count: 3000))
            next[thread] += 1
        }
        for thread in threads { try thread.value() }
    }
}

/// The count at which `counter` stopped.
func waitUntilStill(_ counter: Monitor<Int>) -> Int {
    var (last, since) = (-1, Clock.now)
    while Clock.now - since < .milliseconds(300) {
        let count = counter.read { $0 }
        if count != last { (last, since) = (count, Clock.now) }
        Clock.sleep(.milliseconds(5))
    }
    return last
}

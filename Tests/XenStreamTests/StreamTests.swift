internal import Glibc
internal import Protection
internal import TestSupport
internal import Testing
internal import Transport
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
@testable internal import WireFormat
@testable internal import XenStream

/// Both ends of a line.
struct Ends {
    enum Kind: CaseIterable {
        case loopback, plain, sealed
    }
    let source: any SourceTransport
    let target: any TargetTransport

    init(_ kind: Kind, streams: Int) throws {
        if kind == .loopback {
            let line = Loopback()
            (source, target) = (line, line)
            return
        }
        let identities = try Identities.shared
        let (alpha, beta): (LineSecurity, LineSecurity) = kind == .plain ? (.none, .none) : (.sealed(identities.alpha), .sealed(identities.beta))
        let receiver = try TCPTargetTransport(listening: Address(host: "127.0.0.1", port: 0), security: beta) { _ in }
        var line = LineOptions()
        line.streams = streams
        line.sendMethod = .copied
        source = TCPSourceTransport(
            address: Address(host: "127.0.0.1", port: receiver.port), options: line, security: alpha, peer: "beta.test")
        target = receiver
    }
}

let rings = XenRings(store: 7, console: 900)
let token = (1...StreamGreeting.tokenBytes).map { UInt8($0) }
/// For a computer that does other things.
let patience = Nanoseconds.seconds(60)

/// A stream on its way: Xen's helpers at both ends, and ours between them.
struct Way {
    let saver: Background<Void>
    let restorer: Background<[UInt8]>
    let source: StreamSource
    let target: StreamTarget
    let sourceOutcome: Background<StreamFigures>
    let targetOutcome: Background<Void>

    /// - Parameters:
    ///   - written: what the helper at the source writes.
    ///   - taken: how many bytes the one at the target reads before it leaves.
    init(_ written: [UInt8], _ ends: Ends, streams: Int, taken: Int = .max) throws {
        let (saver, saverEnd) = try Socket.pair(), (restorer, restorerEnd) = try Socket.pair()
        self.saver = FakeHelper.writer(written, to: saverEnd)
        self.restorer = FakeHelper.reader(of: restorerEnd, limit: taken)
        let source = StreamSource(saver: Descriptor(owning: saver), transport: ends.source, streams: streams, token: token, rings: rings)
        let target = StreamTarget(restorer: Descriptor(owning: restorer), token: token)
        (self.source, self.target) = (source, target)
        targetOutcome = Background { () throws(TurntableError) in try target.run(ends.target) }
        sourceOutcome = Background { () throws(TurntableError) in try source.run() }
    }
}

struct StreamTests {
    private static let seed = UInt64.random(in: 0 ... .max)
    /// More than the windows of few and of all streams hold, so that each stripe is filled again.
    private static let small = SavedImage(seed: seed, frames: 5000, rounds: 5)
    private static let large = SavedImage(seed: seed, frames: 10_000, rounds: 5)

    /// What the restorer reads is what the saver wrote, to the byte: every version of every page and every other record in its place.
    @Test(arguments: Ends.Kind.allCases, [1, 3, 16]) private func theStreamIsTheSame(kind: Ends.Kind, streams: Int) throws {
        let (seed, image) = (Self.seed, streams < 16 ? Self.small : Self.large)
        let way = try Way(image.bytes, try Ends(kind, streams: streams), streams: streams)
        let figures = try way.sourceOutcome.value(within: patience)
        try way.targetOutcome.value(within: patience)
        way.target.end()
        try way.saver.value(within: patience)
        let restored = try way.restorer.value(within: patience)
        #expect(restored.count == image.bytes.count, "seed \(seed)")
        #expect(restored == image.bytes, "seed \(seed)")
        #expect(figures == StreamFigures(pages: image.pages, zeroPages: image.zeroPages), "seed \(seed)")
        #expect(figures.pages - figures.zeroPages > 2 * PageWindow.stripes(for: streams) * Limits.stripePages, "seed \(seed)")
    }

    // MARK: - Ends that are killed

    /// Neither end takes what came for a whole stream; both say why, in the words of the one that saw it.
    private func expectFailure(_ way: borrowing Way, _ image: SavedImage, because why: String) throws {
        let source = try #require(way.sourceOutcome.outcome(within: patience)), target = try #require(way.targetOutcome.outcome(within: patience))
        for outcome in [source.map { _ in }, target] {
            guard case .failure(let error) = outcome else {
                Issue.record("an end takes it for whole")
                continue
            }
            #expect("\(error)".contains(why), "\(error)")
        }
        // Xen's own helpers see it: one cannot write on, the other reads an end before the stream's.
        let restored = try way.restorer.value(within: patience)
        #expect(restored.count <= image.endStart && image.bytes.starts(with: restored))
    }

    @Test(arguments: [1, 4]) func aSaverThatEndsEarlyIsToldOf(streams: Int) throws {
        let image = SavedImage(seed: 1, frames: 4000, rounds: 2)
        // In its headers, in a list, in pages, before END.
        for cut in [0, 30, image.bytes.count / 2, image.bytes.count - 4096 * 300, image.endStart] {
            let way = try Way(Array(image.bytes.prefix(cut)), try Ends(.plain, streams: streams), streams: streams)
            try expectFailure(way, image, because: "reading what Xen's own helper saves")
        }
    }

    @Test(arguments: [1, 4]) func aRestorerThatEndsEarlyIsToldOf(streams: Int) throws {
        let image = SavedImage(seed: 2, frames: 8000, rounds: 3)
        let way = try Way(image.bytes, try Ends(.sealed, streams: streams), streams: streams, taken: image.bytes.count / 3)
        try expectFailure(way, image, because: "giving Xen's own helper the domain")
    }

    @Test(arguments: [true, false]) func anEndThatIsInterruptedEndsTheOther(isSource: Bool) throws {
        let image = SavedImage(seed: 3, frames: 4000, rounds: 2)
        // The saver waits before its end, as for a guest that is to suspend.
        let (saver, saverEnd) = try Socket.pair(), (restorer, restorerEnd) = try Socket.pair()
        let held = Descriptor(owning: saverEnd)
        let ends = try Ends(.sealed, streams: 2)
        let source = StreamSource(saver: Descriptor(owning: saver), transport: ends.source, streams: 2, token: token, rings: rings)
        let target = StreamTarget(restorer: Descriptor(owning: restorer), token: token)
        let targetOutcome = Background { () throws(TurntableError) in try target.run(ends.target) }
        let sourceOutcome = Background { () throws(TurntableError) in try source.run() }
        // Before they have met nobody can be told.
        try Socket.write(held, Array(image.bytes.prefix(LibxcHeaders.bytes)), what: "saving")
        #expect(try Socket.waitReadable(Descriptor(owning: dup(restorerEnd)), within: patience))
        let reader = FakeHelper.reader(of: restorerEnd)
        try Socket.write(held, Array(image.bytes[LibxcHeaders.bytes..<image.endStart]), what: "saving")
        if isSource { source.interrupt("its xl is gone") } else { target.interrupt("its xl is gone") }
        for outcome in [sourceOutcome.outcome(within: patience)?.map { _ in }, targetOutcome.outcome(within: patience)] {
            let error = #expect(throws: TurntableError.self) { try #require(outcome).get() }
            #expect("\(error!)".contains("its xl is gone"))
        }
        #expect(try reader.value(within: patience).count <= image.endStart)
        #expect(throws: TurntableError.self) { try Socket.write(held, image.bytes, what: "saving") }
    }

    @Test func aLineThatIsCutEndsBoth() throws {
        let image = SavedImage(seed: 4, frames: 8000, rounds: 3)
        let (saver, saverEnd) = try Socket.pair(), (restorer, restorerEnd) = try Socket.pair()
        let held = Descriptor(owning: saverEnd)
        let line = Loopback()
        let source = StreamSource(saver: Descriptor(owning: saver), transport: line, streams: 4, token: token, rings: rings)
        let target = StreamTarget(restorer: Descriptor(owning: restorer), token: token)
        let reader = FakeHelper.reader(of: restorerEnd)
        let targetOutcome = Background { () throws(TurntableError) in try target.run(line) }
        let sourceOutcome = Background { () throws(TurntableError) in try source.run() }
        try Socket.write(held, Array(image.bytes.prefix(image.endStart)), what: "saving")
        line.cut()
        for outcome in [sourceOutcome.outcome(within: patience)?.map { _ in }, targetOutcome.outcome(within: patience)] {
            let error = #expect(throws: TurntableError.self) { try #require(outcome).get() }
            #expect(error?.kind == .line)
        }
        let restored = try reader.value(within: patience)
        #expect(image.bytes.prefix(image.endStart).starts(with: restored))
    }

    @Test func aSourceThatNobodyAwaitsFails() throws {
        let (saver, saverEnd) = try Socket.pair()
        let port = try TCPTargetTransport(listening: Address(host: "127.0.0.1", port: 0), security: .none) { _ in }.port
        let transport = TCPSourceTransport(address: Address(host: "127.0.0.1", port: port), options: LineOptions(), security: .none)
        let held = Descriptor(owning: saverEnd)
        let source = StreamSource(saver: Descriptor(owning: saver), transport: transport, streams: 1, token: token, rings: rings)
        #expect(failure { () throws(TurntableError) in try source.run() }?.kind == .line)
        #expect(throws: TurntableError.self) { try Socket.write(held, [1], what: "saving") }
    }

    // MARK: - A saver that is not Xen's

    @Test(arguments: [8, 16, 40, 44]) func whatIsNoStreamIsRefused(byte: Int) throws {
        let image = SavedImage(seed: 5, frames: 10, rounds: 1)
        var bytes = image.bytes
        // Marker's neighbour, options, and the first record's type and length: END with a body, and one over the limit.
        bytes.replaceSubrange(byte..<byte + 4, with: byte == 40 ? [0, 0, 0, 0, 8] : [0xff, 0xff, 0xff, 0xff])
        let way = try Way(bytes, try Ends(.plain, streams: 1), streams: 1)
        let source = try #require(way.sourceOutcome.outcome(within: patience))
        guard case .failure(let error) = source else {
            Issue.record("taken for a stream")
            return
        }
        #expect(error.kind == .protocol, "\(error)")
        let target = try #require(way.targetOutcome.outcome(within: patience))
        #expect(throws: TurntableError.self) { try target.get() }
    }

    // MARK: - A hostile source

    /// A source that does as the test wants, and its target.
    private struct Hostile {
        let control: any ControlChannel
        let senders: [any FrameSender]
        let pages: TestMemory
        let outcome: Background<Void>
        let restorer: Background<[UInt8]>

        init(streams: Int = 1) throws {
            let ends = try Ends(.plain, streams: streams)
            let (restorer, restorerEnd) = try Socket.pair()
            let target = StreamTarget(restorer: Descriptor(owning: restorer), token: token)
            self.restorer = FakeHelper.reader(of: restorerEnd)
            outcome = Background { () throws(TurntableError) in try target.run(ends.target) }
            let control = try ends.source.connectControl()
            self.control = control
            try control.send(.program(.start(StreamRequest(streams: streams, token: token, rings: rings).words)))
            let pages = try TestMemory(pages: [PageWindow.stripes(for: streams) * Limits.stripePages])
            self.pages = pages
            senders = try (0..<streams).map { try ends.source.connectStream($0, attachment: control.attachment, pages: pages) }
        }

        func say(_ outline: [UInt8]) throws { try control.send(.program(.bytes(.input, outline))) }

        func sendPages(_ first: Int, _ count: Int, _ encoding: Encoding = .raw) throws {
            let draft = FrameDraft(limits: senders[0].limits)
            #expect(draft.append(Extent(region: RegionIndex(0), firstPage: PageIndex(first), pageCount: PageCount(count), encoding: encoding)))
            try senders[0].send(draft)
        }

        /// The target gives up for that reason, and the restorer gets nothing after what was right.
        func expectRefusal(_ why: String, restored: Int) throws {
            let outcome = try #require(outcome.outcome(within: patience))
            let error = #expect(throws: TurntableError.self) { try outcome.get() }
            #expect("\(error!)".contains(why), "\(error!)")
            #expect(try restorer.value(within: patience).count == restored)
        }
    }

    private static let headers = Array(SavedImage(seed: 0, frames: 1, rounds: 0).bytes.prefix(LibxcHeaders.bytes))

    @Test func outlinesThatAreNoneAreRefused() throws {
        let tooLong = LibxcRecord(type: 2, bodyBytes: Limits.libxcRecordBytes + 1).encoded()
        let tooMany = LibxcRecord(type: 1, bodyBytes: 8).encoded() + [1, 4, 0, 0, 0, 0, 0, 0]
        let marked = LibxcRecord(type: 1, bodyBytes: 16 + pageBytes).encoded() + [1, 0, 0, 0, 0, 0, 0, 0] + [0, 0, 0, 0, 0, 0, 0x20, 0]
        let short = LibxcRecord(type: 1, bodyBytes: 16).encoded() + [1, 0, 0, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 8)
        for (outline, why) in [(tooLong, "over the limit"), (tooMany, "outside the limit"), (marked, "not zero"), (short, "add up to")] {
            let hostile = try Hostile()
            try hostile.say(Self.headers + outline)
            // Of a record that holds pages its head was good.
            try hostile.expectRefusal(why, restored: Self.headers.count + (outline == tooLong ? 0 : LibxcRecord.headBytes))
        }
        let hostile = try Hostile()
        try hostile.say([UInt8](repeating: 0, count: LibxcHeaders.bytes))
        try hostile.expectRefusal("magic number", restored: 0)
    }

    @Test func framesThatAreNotNextAreRefused() throws {
        for first in [1, 255, 256] {
            let hostile = try Hostile()
            try hostile.sendPages(first, 1)
            try hostile.expectRefusal("not 0", restored: 0)
        }
        let hostile = try Hostile()
        try hostile.sendPages(0, 1, .zero)
        try hostile.expectRefusal("an outline tells of", restored: 0)
    }

    /// More pages than the window holds wait for an outline, and take nothing else's place.
    @Test func pagesWithoutAnOutlineWait() throws {
        let hostile = try Hostile()
        let draft = FrameDraft(limits: hostile.senders[0].limits)
        for stripe in 0..<Limits.libxcStripes {
            #expect(draft.append(Extent(
                region: RegionIndex(0), firstPage: PageIndex(stripe * Limits.stripePages), pageCount: PageCount(Limits.stripePages), encoding: .raw)))
            try hostile.senders[0].send(draft)
            draft.startNext()
        }
        // The next lap begins at 0 again, which is not free.
        #expect(draft.append(Extent(region: RegionIndex(0), firstPage: PageIndex(0), pageCount: PageCount(1), encoding: .raw)))
        try hostile.senders[0].send(draft)
        try hostile.say(Self.headers)
        try hostile.control.send(.abort("that is all"))
        let outcome = try #require(hostile.outcome.outcome(within: patience))
        let error = #expect(throws: TurntableError.self) { try outcome.get() }
        #expect("\(error!)".contains("that is all"))
    }

    /// Whoever did not read the greeting is turned away, however many they are, and the move goes on.
    @Test func strangersAreTurnedAway() throws {
        let image = SavedImage(seed: 6, frames: 1000, rounds: 1)
        let ends = try Ends(.plain, streams: 2)
        let (saver, saverEnd) = try Socket.pair(), (restorer, restorerEnd) = try Socket.pair()
        let target = StreamTarget(restorer: Descriptor(owning: restorer), token: token)
        let targetOutcome = Background { () throws(TurntableError) in try target.run(ends.target) }
        let memory = try TestMemory(pages: [1])
        // One says nothing, one something else, one guesses; and their data streams.
        let silent = try ends.source.connectControl()
        let other = try ends.source.connectControl()
        try other.send(.program(.start(["xl", "migrate-receive"])))
        let guesser = try ends.source.connectControl()
        try guesser.send(.program(.start(StreamRequest(streams: 1, token: [UInt8](repeating: 0, count: token.count), rings: rings).words)))
        let stray = try ends.source.connectStream(0, attachment: guesser.attachment, pages: memory)
        let source = StreamSource(saver: Descriptor(owning: saver), transport: ends.source, streams: 2, token: token, rings: rings)
        let writer = FakeHelper.writer(image.bytes, to: saverEnd)
        let reader = FakeHelper.reader(of: restorerEnd)
        _ = try source.run()
        try targetOutcome.value(within: patience)
        try writer.value(within: patience)
        #expect(try reader.value(within: patience) == image.bytes)
        guard case .abort? = try guesser.receive(within: patience) else {
            Issue.record("a guess was not turned away")
            return
        }
        silent.shutDown()
        stray.shutDown()
    }

    @Test func aRequestComesBackOrIsNone() {
        for streams in [1, Limits.streams] {
            let request = StreamRequest(streams: streams, token: token, rings: rings)
            #expect(StreamRequest(request.words) == request)
        }
        let words = StreamRequest(streams: 1, token: token, rings: rings).words
        for (index, word) in [(0, "xl"), (1, "0"), (1, "17"), (1, "-1"), (2, ""), (2, "1.2"), (2, words[2] + ".1"), (2, words[2] + "00"), (3, "-1"), (4, "")] {
            var other = words
            other[index] = word
            #expect(StreamRequest(other) == nil, "\(word)")
        }
        #expect(StreamRequest([]) == nil && StreamRequest(words + [""]) == nil)
    }
}

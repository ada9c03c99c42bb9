internal import CTurntableVerbs
internal import Foundation
internal import Glibc
internal import Protection
internal import TestSupport
internal import Testing
internal import Transport
internal import TransportTCP
@testable internal import TransportVerbs
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What only RDMA has: memory that the other end's device writes, registrations, queue pairs that end.
@Suite(.serialized, .enabled(if: VerbsLine.address != nil, "needs an RDMA device: Tests/RDMA runs it in the laboratory"))
struct VerbsTests {
    private static let promptly = Nanoseconds.seconds(10)

    /// A stream over which one stripe was granted: what it needs to send a frame of it from memory to memory.
    private final class Stage: @unchecked Sendable {
        let line: VerbsLine
        let session: Session
        let source: TestMemory
        let target: TestMemory
        let sink: TestSink
        let draft: FrameDraft

        init(pages: Int = 256 * 4) throws {
            line = try VerbsLine(streams: 1)
            source = try TestMemory(pages: [pages])
            target = try TestMemory(pages: [pages])
            var generator = SeededGenerator(seed: 11)
            source.fillAll(with: &generator)
            session = try Session(line, streams: 1, pages: source)
            sink = TestSink(target, streams: 1)
            draft = FrameDraft(limits: session.senders[0].limits)
        }

        func send(_ extents: [Extent]) throws(TurntableError) {
            for extent in extents { precondition(draft.append(extent)) }
            try session.senders[0].send(draft)
            draft.startNext()
        }
        func receive(_ count: Int) throws(TurntableError) { _ = try session.receivers[0].receive(count, into: sink) }

        /// Frames that went from memory to memory.
        var direct: Int {
            let summary = session.senders[0].summary
            guard let range = summary.range(of: #"\d+(?= frames from memory)"#, options: .regularExpression) else { return -1 }
            return Int(summary[range]) ?? -1
        }

        /// Sends stripe 0 until it goes from memory to memory.
        func openStripe() throws {
            try send([extent(0, 0, 256)])
            try receive(1)
            let deadline = Clock.now + VerbsTests.promptly
            while direct == 0 {
                try send([extent(0, 0, 256)])
                try receive(1)
                guard Clock.now < deadline else { throw Unexpected("no stripe was granted: \(session.senders[0].summary)") }
            }
        }
    }

    @Test func aGrantedStripeGoesFromMemoryToMemory() throws {
        let stage = try Stage()
        try stage.openStripe()
        for page in 0..<256 { stage.source.fill(page, 0, with: &SeededGenerator.shared) }
        let before = stage.direct
        try stage.send([extent(0, 0, 256)])
        try stage.receive(1)
        #expect(stage.direct == before + 1)
        #expect((0..<256).allSatisfy { stage.source.bytes($0, 0) == stage.target.bytes($0, 0) })
    }

    /// What the bounce buffers bring last stays last, though the device would be faster.
    @Test func bothWaysKeepTheOrderOfVersions() throws {
        let stage = try Stage()
        try stage.openStripe()
        for round in 0..<40 {
            stage.source.fill(17, 0, with: &SeededGenerator.shared)
            // One page goes by the bounce buffer, a stripe as it may; the source writes between the two.
            try stage.send(round % 2 == 0 ? [extent(0, 17, 1)] : [extent(0, 0, 256)])
            if round % 5 == 0 {
                stage.source.clear(17, 0)
                try stage.send([extent(0, 17, 1, .zero)])
            }
            stage.source.fill(17, 0, with: &SeededGenerator.shared)
            try stage.send(round % 2 == 0 ? [extent(0, 0, 256)] : [extent(0, 17, 1)])
            try stage.session.senders[0].flush()
            try stage.receive(round % 5 == 0 ? 3 : 2)
            #expect(stage.source.bytes(17, 0) == stage.target.bytes(17, 0), "round \(round)")
        }
    }

    @Test func anAccessAfterItsEndIsRefused() throws {
        let stage = try Stage()
        try stage.openStripe()
        let held = stage.target.bytes(9, 0)
        stage.session.receivers[0].endAccess()
        for page in 0..<256 { stage.source.fill(page, 0, with: &SeededGenerator.shared) }
        // The source does not know, and its device writes with the key that it holds.
        let error = failure { () throws(TurntableError) in
            try stage.send([extent(0, 0, 256)])
            try stage.session.senders[0].flush()
        }
        #expect(error?.kind == .line && error?.why.contains("ended the access") == true, "\(String(describing: error))")
        #expect(stage.target.bytes(9, 0) == held)
        #expect(stage.session.receivers[0].receiveUntilError(into: stage.sink)?.kind == .line)
    }

    @Test func nothingIsGrantedAfterTheEndOfAllAccess() throws {
        let stage = try Stage()
        stage.session.receivers[0].endAccess()
        for _ in 0..<6 {
            try stage.send([extent(0, 256, 256)])
            try stage.receive(1)
        }
        #expect(stage.direct == 0)
        #expect(stage.source.bytes(256, 0) == stage.target.bytes(256, 0))
    }

    @Test func neitherEndPinsMoreThanItMay() throws {
        let line = try VerbsLine(streams: 1, pinned: .mebi(24))
        let pages = 256 * 64
        let source = try TestMemory(pages: [pages]), target = try TestMemory(pages: [pages])
        var generator = SeededGenerator(seed: 12)
        source.fillAll(with: &generator)
        let session = try Session(line, streams: 1, pages: source)
        let sink = TestSink(target, streams: 1)
        let isOver = Monitor(false), most = Monitor(Int64(0))
        let watching = Background { () throws(TurntableError) in
            while !isOver.read({ $0 }) {
                let pinned = tt_pinned_bytes()
                most.update { $0 = max($0, pinned) }
                Clock.sleep(.milliseconds(1))
            }
        }
        let receiving = Background { () throws(TurntableError) in try session.receivers[0].receive(128, into: sink) }
        let draft = FrameDraft(limits: session.senders[0].limits)
        for frame in 0..<128 {
            precondition(draft.append(extent(0, frame % 64 * 256, 256)))
            try session.senders[0].send(draft)
            draft.startNext()
        }
        _ = try receiving.value(within: .seconds(120))
        isOver.update { $0 = true }
        try watching.value()
        #expect(target.differences(from: source) == [])
        // Both ends are this process; the kernel's own count, and ours.
        let both = most.read { $0 }
        #expect(both > 16 << 20 && both <= 48 << 20, "\(both) bytes were pinned")
        #expect(line.budget.peak <= .mebi(24) && line.targetBudget.peak <= .mebi(24))
        #expect(!session.senders[0].summary.contains(" 0 frames from memory"), "\(session.senders[0].summary)")
    }

    @Test func memoryThatCannotBePinnedGoesByTheBounceBuffers() throws {
        let line = try VerbsLine(streams: 1)
        let source = try ReadOnlyMemory(pages: 512), target = try TestMemory(pages: [512])
        let session = try Session(line, streams: 1, pages: source)
        let sink = TestSink(target, streams: 1)
        let draft = FrameDraft(limits: session.senders[0].limits)
        for _ in 0..<6 {
            for stripe in 0..<2 {
                precondition(draft.append(extent(0, stripe * 256, 256)))
                try session.senders[0].send(draft)
                draft.startNext()
                _ = try session.receivers[0].receive(1, into: sink)
            }
        }
        #expect(target.bytes(300, 0) == source.bytes(300))
        #expect(session.senders[0].summary.contains(" 0 frames from memory"), "\(session.senders[0].summary)")
    }

    @Test func everyPinnedByteIsGivenBackAtTheEnd() throws {
        // Those of the test before are given back by another thread.
        #expect(eventually { tt_pinned_bytes() == 0 })
        try {
            let stage = try Stage()
            try stage.openStripe()
            #expect(tt_pinned_bytes() > 0)
            #expect(stage.line.budget.pinned > ByteCount(0))
            stage.session.senders[0].shutDown()
            stage.session.receivers[0].shutDown()
        }()
        #expect(eventually { tt_pinned_bytes() == 0 }, "\(tt_pinned_bytes()) bytes")
    }

    @Test func aPeerThatLeavesIsALineErrorAtOnce() throws {
        for isSourceLeaving in [true, false] {
            let stage = try Stage()
            try stage.openStripe()
            let started = Clock.now
            let error: TurntableError?
            if isSourceLeaving {
                stage.session.senders[0].shutDown()
                error = stage.session.receivers[0].receiveUntilError(into: stage.sink)
            } else {
                stage.session.receivers[0].shutDown()
                error = failure { () throws(TurntableError) in while true { try stage.send([extent(0, 0, 256)]) } }
            }
            #expect(error?.kind == .line, "\(String(describing: error))")
            #expect(Clock.now - started < Self.promptly)
        }
    }

    @Test func aSilentTargetHoldsTheSourceBackAndShutDownWakesIt() throws {
        let stage = try Stage()
        let sending = Background { () throws(TurntableError) in while true { try stage.send([extent(0, 0, 256)]) } }
        #expect(sending.outcome(within: .seconds(1)) == nil)
        stage.session.senders[0].shutDown()
        guard case .failure(let error)? = sending.outcome(within: Self.promptly) else { throw Unexpected("the sender is still blocked") }
        #expect(error.kind == .cancelled)
    }

    @Test func shutDownWakesAReceiver() throws {
        let stage = try Stage()
        let receiving = Background { () throws(TurntableError) in try stage.receive(1) }
        #expect(receiving.outcome(within: .milliseconds(200)) == nil)
        stage.session.receivers[0].shutDown()
        guard case .failure(let error)? = receiving.outcome(within: Self.promptly) else { throw Unexpected("the receiver is still blocked") }
        #expect(error.kind == .cancelled)
    }

    // MARK: - The wrong ends

    private func opening(_ line: VerbsLine, _ change: (inout VerbsHello) -> Void) throws -> TurntableError? {
        var hello = VerbsHello(stream: 0, lane: 0, lanes: 1, frames: 4, attachment: .random())
        change(&hello)
        let shape = VerbsLineShape(roundTrip: .zero, rate: nil, streams: 1)
        return failure { () throws(TurntableError) in
            try VerbsOpening(Address(host: VerbsLine.address!, port: line.port), hello, shape, PinBudget()).open()
        }
    }

    @Test func aStreamThatDoesNotProveItselfIsTurnedAway() throws {
        let line = try VerbsLine(streams: 1, isSealed: true)
        let session = try Session(line, streams: 0, pages: TestMemory(pages: [1]))
        let error = try opening(line) { hello in
            hello.attachment = session.sourceControl.attachment
            hello.proof = [UInt8](repeating: 7, count: 32)
        }
        #expect(error?.kind == .refused && error?.why.contains("prove") == true, "\(String(describing: error))")
        #expect(try opening(line) { _ in }?.why.contains("protected") == true)
        #expect(try line.target.accept(within: .milliseconds(300)) == nil)
        #expect(line.turnedAway == 2)
    }

    @Test func aSealedStreamIsNothingToATargetWithoutProtection() throws {
        let line = try VerbsLine(streams: 1)
        #expect(try opening(line) { $0.proof = [UInt8](repeating: 7, count: 32) }?.kind == .refused)
    }

    @Test func whereNobodyListensTheErrorSaysSo() throws {
        let line = try VerbsLine(streams: 1)
        let hello = VerbsHello(stream: 0, lane: 0, lanes: 1, frames: 4, attachment: .random())
        let shape = VerbsLineShape(roundTrip: .zero, rate: nil, streams: 1)
        for (host, port) in [(VerbsLine.address!, line.port ^ 1), ("127.0.0.1", line.port)] {
            let error = failure { () throws(TurntableError) in
                try VerbsOpening(Address(host: host, port: port), hello, shape, PinBudget()).open()
            }
            #expect(error != nil && error?.remedy.contains("doctor rdma") == true, "\(String(describing: error))")
        }
    }

    @Test func aSourceFallsBackToTCPWhenItIsAllowedTo() throws {
        let tcp = try TCPTargetTransport(listening: Address(host: VerbsLine.address!, port: 0), security: .none) { _ in }
        let told = Monitor([TurntableError]())
        var options = LineOptions()
        options.streams = 1
        let source = VerbsSourceTransport(
            address: Address(host: VerbsLine.address!, port: tcp.port), options: options, security: .none,
            fallback: { error in told.update { $0.append(error) } })
        let memory = try TestMemory(pages: [1])
        let session = try Session(TwoEnds(source: source, target: tcp), streams: 1, pages: memory)
        #expect(session.senders[0].summary.contains("tcp") && told.read { $0.count } == 1)
    }

    /// A stranger whose bytes in the ring are no frame.
    @Test func nonsenseInTheRingIsAProtocolError() throws {
        let line = try VerbsLine(streams: 1)
        let hello = VerbsHello(stream: 0, lane: 0, lanes: 1, frames: 4, attachment: .random())
        let shape = VerbsLineShape(roundTrip: .zero, rate: nil, streams: 1)
        for kind in 0..<4 {
            let (pairs, bounce, _, answer) = try VerbsOpening(Address(host: VerbsLine.address!, port: line.port), hello, shape, PinBudget()).open()
            guard case .data(let receiver, _)? = try line.target.accept(within: .seconds(5)) else { throw Unexpected("no stream came") }
            var generator = SeededGenerator(seed: UInt64(kind))
            var bytes = kind == 0 ? generator.bytes(4096) : [UInt8](repeating: 0, count: 10) + frameBytes([extent(0, 0, 1)], payload: [])
            if kind > 0 {
                // Its head, its payload that is not there, and a stripe that it was not let write.
                bytes[0] = 48
                bytes[2 + 1] = kind == 2 ? 0 : 16
                bytes[8] = kind == 3 ? 1 : 0
            }
            bounce.base.copyMemory(from: bytes, byteCount: bytes.count)
            var writes = WriteList(lanes: 1)
            writes.add(
                tt_write(
                    local: UInt64(UInt(bitPattern: bounce.base)), remote: answer.ring, work: 0, bytes: UInt32(bytes.count),
                    local_key: bounce.localKey, remote_key: answer.key, immediate: 0, has_immediate: 0, is_signaled: 0), lane: 0)
            try writes.forEachLane(frame: kind == 1 ? 3 : 0, place: 0) { (lane, writes, count) throws(TurntableError) in
                try pairs.post(writes, count, on: lane)
            }
            let memory = try TestMemory(pages: [256])
            if kind == 1 {
                // A frame out of its turn waits for those before it.
                #expect(try receiver.receive(into: TestSink(memory, streams: 1)) == nil)
            } else {
                #expect(receiver.receiveUntilError(into: TestSink(memory, streams: 1))?.kind == .protocol, "kind \(kind)")
            }
            #expect(memory.differences(from: try TestMemory(pages: [256])) == [])
        }
    }

    private final class TwoEnds: Line {
        let source: any SourceTransport
        let target: any TargetTransport
        var turnedAway: Int { 0 }
        init(source: any SourceTransport, target: any TargetTransport) {
            self.source = source
            self.target = target
        }
        func stranger() throws -> any RawConnection { throw Unexpected("nobody else is here") }
        func sourceOfDeafTarget() throws -> (any SourceTransport, accept: @Sendable () throws -> any RawConnection) {
            throw Unexpected("nobody else is here")
        }
    }
}

/// Pages that the device may not be given: mapped for reading only.
private final class ReadOnlyMemory: PageSource, @unchecked Sendable {
    let regions: [MemoryRegion]
    private let base: UnsafeMutableRawPointer

    init(pages: Int) throws {
        regions = [MemoryRegion(name: "region0", pages: PageCount(pages))]
        let bytes = pages * pageBytes
        guard let base = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), base != MAP_FAILED else {
            throw Unexpected("no memory")
        }
        self.base = base
        for word in 0..<bytes / 8 { base.storeBytes(of: UInt64(word) &* 0x9e37_79b9, toByteOffset: word * 8, as: UInt64.self) }
        mprotect(base, bytes, PROT_READ)
    }
    deinit { munmap(base, regions[0].pages.bytes.value) }

    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeRawPointer { UnsafeRawPointer(base + page.byteOffset) }
    func file(of region: RegionIndex) -> Int32? { nil }
    func forEachPopulatedRun(in region: RegionIndex, within pages: Range<Int>, _ body: (Range<Int>) -> Void) { body(pages) }
    func bytes(_ page: Int) -> [UInt8] { Array(UnsafeRawBufferPointer(start: base + page * pageBytes, count: pageBytes)) }
}

extension SeededGenerator {
    /// For what only has to be something else than before.
    fileprivate nonisolated(unsafe) static var shared = SeededGenerator(seed: 1)
}

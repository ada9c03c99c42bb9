internal import Foundation
internal import Glibc
internal import Protection
internal import TestSupport
internal import Testing
internal import Transport
internal import TransportTCP
internal import TransportVerbs
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// RDMA, over a device of this host with itself. $TURNTABLE_TEST_RDMA names an address of its network, as the laboratory does
/// (Tests/RDMA): then the suite runs over RDMA and over nothing else.
final class VerbsLine: Line {
    static let address = ProcessInfo.processInfo.environment["TURNTABLE_TEST_RDMA"]

    static let kinds: [LineKind] =
        [(1, "one queue pair", Nanoseconds.zero), (2, "one queue pair", .zero), (1, "many queue pairs", .milliseconds(50))].flatMap {
            (streams, what, roundTrip) in
            [false, true].map { isSealed in
                LineKind(testDescription: "rdma\(isSealed ? " sealed" : ""), \(what), \(streams) streams", streams: streams) {
                    try VerbsLine(streams: streams, isSealed: isSealed, roundTrip: roundTrip)
                }
            }
        }

    let budget: PinBudget, targetBudget: PinBudget
    let source: any SourceTransport
    let target: any TargetTransport
    private let listening: TCPTargetTransport
    private let strangers: Monitor<Int>
    private let options: LineOptions
    private let security: LineSecurity
    var turnedAway: Int { strangers.read { $0 } }
    var port: UInt16 { listening.port }

    /// - Parameter roundTrip: what the source takes its line for; a long one is given many queue pairs.
    init(streams: Int, isSealed: Bool = false, roundTrip: Nanoseconds = .zero, pinned: ByteCount = ByteCount(Limits.pinnedBytes)) throws {
        let address = Address(host: try #require(Self.address), port: 0)
        (budget, targetBudget) = (PinBudget(limit: pinned), PinBudget(limit: pinned))
        let strangers = Monitor(0)
        self.strangers = strangers
        var options = LineOptions()
        options.streams = streams
        options.roundTrip = roundTrip
        options.rate = BitRate(bitsPerSecond: 1e9)
        self.options = options
        security = isSealed ? .sealed(try Identities.shared.alpha) : .none
        let targetSecurity: LineSecurity = isSealed ? .sealed(try Identities.shared.beta) : .none
        listening = try TCPTargetTransport(listening: address, security: targetSecurity) { _ in strangers.update { $0 += 1 } }
        target = try VerbsTargetTransport(
            listening, listening: address, protection: targetSecurity.protection, budget: targetBudget
        ) { _ in strangers.update { $0 += 1 } }
        source = VerbsSourceTransport(
            address: Address(host: address.host, port: listening.port), options: options, security: security, peer: "beta.test", budget: budget)
    }

    func stranger() throws -> any RawConnection {
        RawTCP(
            try Socket.connect(to: Address(host: Self.address!, port: listening.port), within: .seconds(5)) {
                (_: borrowing Descriptor) throws(TurntableError) in
            })
    }

    func sourceOfDeafTarget() throws -> (any SourceTransport, accept: @Sendable () throws -> any RawConnection) {
        // What a target is deaf to is not protected: its bytes are read.
        let line = try VerbsLine(streams: options.streams, roundTrip: options.roundTrip ?? .zero)
        return (
            line.source,
            accept: {
                guard case .data(let receiver, let preface)? = try line.target.accept(within: .seconds(5)) else {
                    throw Unexpected("no data stream came")
                }
                return try ReadFrames(receiver, preface)
            }
        )
    }
}

/// The target's end of a stream, read as the bytes that it would be on another line: each frame is taken when it is asked for.
private final class ReadFrames: RawConnection {
    private let receiver: any FrameReceiver
    private let memory: TestMemory
    private let unread: Monitor<[UInt8]>

    init(_ receiver: any FrameReceiver, _ preface: Preface) throws {
        memory = try TestMemory(pages: [256 * 3])
        self.receiver = receiver
        unread = Monitor(preface.encoded())
    }

    func write(_ bytes: [UInt8]) throws { throw Unexpected("a target writes nothing") }

    func read(_ count: Int) throws -> [UInt8] {
        while unread.read({ $0.count }) < count {
            let sink = RecordingSink(memory)
            let header = try receiver.receive(1, into: sink)[0]
            let payload = sink.extents.filter { $0.encoding == .raw }.flatMap { extent in
                Array(UnsafeRawBufferPointer(start: memory.mutableAddress(extent.firstPage.value, 0), count: extent.payloadBytes))
            }
            unread.update { $0 += frameBytes(sink.extents, payload: payload, sequence: header.sequence) }
        }
        return unread.update { bytes in
            defer { bytes.removeFirst(count) }
            return Array(bytes.prefix(count))
        }
    }

    func isEnded() -> Bool { receiver.receiveUntilError(into: RecordingSink(memory))?.kind == .line }
    func close() { receiver.shutDown() }
}

private final class RecordingSink: FrameSink, @unchecked Sendable {
    private(set) var extents: [Extent] = []
    private let memory: TestMemory
    let layout: MemoryLayoutTable
    init(_ memory: TestMemory) {
        self.memory = memory
        layout = MemoryLayoutTable(regionPages: memory.regions.map(\.pages.value), streams: 1)
    }
    func destination(of extent: Extent) -> UnsafeMutableRawPointer {
        extents.append(extent)
        return memory.address(of: extent.firstPage, in: extent.region)
    }
    func zero(_ extent: Extent) { extents.append(extent) }
    func deviceStateDestination(offset: Int, count: Int) throws(TurntableError) -> UnsafeMutableRawPointer {
        throw TurntableError(.protocol, "device state", "none is due")
    }
    func writable(_ pages: Range<Int>, in region: RegionIndex) -> UnsafeMutableRawPointer? {
        memory.mutableAddress(pages.lowerBound, region.value)
    }
}

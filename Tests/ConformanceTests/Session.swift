internal import TestSupport
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A control stream and data streams, open at both ends.
struct Session {
    var sourceControl: any ControlChannel
    var targetControl: any ControlChannel
    var senders: [any FrameSender] = []
    var receivers: [any FrameReceiver] = []
    /// Something on the way may end with it.
    private let line: any Line

    init(_ line: any Line, streams: Int, pages: any PageSource) throws {
        self.line = line
        let connecting = Background { () throws(TurntableError) in try line.source.connectControl() }
        guard case .control(let control, _)? = try line.target.accept(within: .seconds(5)) else {
            throw Unexpected("no control stream came")
        }
        targetControl = control
        sourceControl = try connecting.value()
        let attachment = control.attachment
        guard sourceControl.attachment == attachment, attachment != .none else { throw Unexpected("no common attachment") }
        var arrived: [Int: any FrameReceiver] = [:]
        for index in 0..<streams { senders.append(try line.source.connectStream(index, attachment: attachment, pages: pages)) }
        for _ in 0..<streams {
            guard case .data(let receiver, let preface)? = try line.target.accept(within: .seconds(5)) else {
                throw Unexpected("no data stream came")
            }
            guard preface.attachment == attachment, arrived[Int(preface.stream)] == nil else { throw Unexpected("a foreign data stream") }
            arrived[Int(preface.stream)] = receiver
        }
        receivers = (0..<streams).map { arrived[$0]! }
    }
}

struct Unexpected: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// Where frames go: memory, and a buffer for device state.
final class TestSink: FrameSink, @unchecked Sendable {
    let layout: MemoryLayoutTable
    let memory: TestMemory
    private let state = UnsafeMutableRawBufferPointer.allocate(byteCount: 8 << 20, alignment: 16)
    init(_ memory: TestMemory, streams: Int) {
        self.memory = memory
        layout = MemoryLayoutTable(regionPages: memory.regions.map(\.pages.value), streams: streams)
        state.initializeMemory(as: UInt8.self, repeating: 0)
    }
    deinit { state.deallocate() }

    func destination(of extent: Extent) -> UnsafeMutableRawPointer { memory.address(of: extent.firstPage, in: extent.region) }
    func zero(_ extent: Extent) {
        for page in 0..<extent.pageCount.value { memory.clear(extent.firstPage.value + page, extent.region.value) }
    }
    func deviceStateDestination(offset: Int, count: Int) throws(TurntableError) -> UnsafeMutableRawPointer {
        guard offset + count <= state.count else { throw TurntableError(.protocol, "device state", "too much for this test") }
        return state.baseAddress! + offset
    }
    func writable(_ pages: Range<Int>, in region: RegionIndex) -> UnsafeMutableRawPointer? {
        memory.mutableAddress(pages.lowerBound, region.value)
    }
    func deviceState(_ count: Int) -> [UInt8] { Array(state.prefix(count)) }
}

extension FrameReceiver {
    /// Receives `count` frames; what came, or an error.
    func receive(_ count: Int, into sink: any FrameSink) throws(TurntableError) -> [FrameHeader] {
        var headers: [FrameHeader] = []
        let deadline = Clock.now + (VerbsLine.address == nil ? .seconds(20) : .seconds(90))
        while headers.count < count {
            if let header = try receive(into: sink) { headers.append(header) }
            guard Clock.now < deadline else { throw TurntableError(.line, "a test", "\(headers.count) of \(count) frames came") }
        }
        return headers
    }
    /// The error that ends the stream.
    func receiveUntilError(into sink: any FrameSink) -> TurntableError? {
        failure { () throws(TurntableError) in try receive(.max, into: sink) }
    }
}

/// A frame as bytes, made by hand.
func frameBytes(_ extents: [Extent], payload: [UInt8], sequence: UInt64 = 0, kind: FrameKind = .pages, offset: UInt64 = 0) -> [UInt8] {
    let header = FrameHeader(
        kind: kind, extentCount: extents.count, sequence: sequence, payloadBytes: payload.count, round: 0, offset: offset)
    var head = [UInt8](repeating: 0, count: FrameHeader.bytes + extents.count * Extent.bytes)
    head.withUnsafeMutableBytes { buffer in
        var output = MutableRawSpan(_unsafeBytes: buffer)
        header.encode(into: &output)
        for (index, extent) in extents.enumerated() { extent.encode(into: &output, at: FrameHeader.bytes + index * Extent.bytes) }
    }
    return head + payload
}

func extent(_ region: Int, _ first: Int, _ count: Int, _ encoding: Encoding = .raw) -> Extent {
    Extent(region: RegionIndex(region), firstPage: PageIndex(first), pageCount: PageCount(count), encoding: encoding)
}

public import TurntableCore
public import WireFormat

/// A frame being put together. Made once a stream and used again for every frame: no allocation while pages move.
@safe public final class FrameDraft {
    public private(set) var kind = FrameKind.pages
    public private(set) var extents: [Extent]
    public private(set) var payloadBytes = 0
    /// The bytes of a device-state or warm-up frame; empty for pages, whose bytes stay in guest memory, and blocks.
    public private(set) var inlinePayload: [UInt8] = []
    public var round: UInt32 = 0
    public private(set) var sequence: UInt64 = 0
    private var offset: UInt64 = 0
    /// The stripe of a disk that the blocks of this frame are read from.
    private var stripe: (memory: UnsafeRawPointer, firstPage: Int)?
    private let limits: TransportLimits

    public init(limits: TransportLimits) {
        self.limits = limits
        extents = []
        extents.reserveCapacity(limits.extents)
    }

    public var isEmpty: Bool { extents.isEmpty && inlinePayload.isEmpty }

    /// Adds pages next to each other; false if they do not fit, and the frame is to be sent first.
    public func append(_ extent: Extent) -> Bool {
        guard extents.count < limits.extents, payloadBytes + extent.payloadBytes <= limits.payloadBytes else { return false }
        extents.append(extent)
        payloadBytes += extent.payloadBytes
        return true
    }

    /// Makes this a frame of blocks: the page `firstPage` of its extents' region lies at the beginning of `memory`, others after it. The bytes are
    /// needed until the frame is sent.
    public func setBlocks(_ memory: UnsafeRawPointer, firstPage: Int) {
        precondition(extents.isEmpty)
        kind = .blocks
        unsafe stripe = (memory, firstPage)
    }

    /// Where the bytes of an extent lie: in guest memory, or in the stripe that was read from a disk.
    public func address(of extent: Extent, in pages: any PageSource) -> UnsafeRawPointer {
        if let stripe = unsafe stripe {
            return unsafe stripe.memory + (extent.firstPage.value - stripe.firstPage) * pageBytes
        }
        return unsafe pages.address(of: extent.firstPage, in: extent.region)
    }

    /// Makes this a device-state frame.
    public func setDeviceState(_ bytes: [UInt8], offset: Int) {
        kind = .deviceState
        inlinePayload = bytes
        payloadBytes = bytes.count
        self.offset = UInt64(offset)
    }

    /// Makes this a warm-up frame.
    public func setWarmUp(_ bytes: [UInt8]) {
        kind = .warmUp
        inlinePayload = bytes
        payloadBytes = bytes.count
    }

    public var header: FrameHeader {
        FrameHeader(kind: kind, extentCount: extents.count, sequence: sequence, payloadBytes: payloadBytes, round: round, offset: offset)
    }

    /// Bytes of header and extents.
    public var headBytes: Int { FrameHeader.bytes + extents.count * Extent.bytes }

    /// Writes header and extents to the start of `output`.
    public func encodeHead(into output: inout MutableRawSpan) {
        header.encode(into: &output)
        for index in extents.indices { extents[index].encode(into: &output, at: FrameHeader.bytes + index * Extent.bytes) }
    }

    /// After the frame was sent: the next one begins, empty, with the next number.
    public func startNext() {
        sequence += 1
        clear()
    }

    /// Nothing is in the frame any more.
    public func clear() {
        kind = .pages
        extents.removeAll(keepingCapacity: true)
        payloadBytes = 0
        offset = 0
        unsafe stripe = nil
        if !inlinePayload.isEmpty { inlinePayload = [] }
    }
}

/// The most bytes that header and extents of a frame take.
public let frameHeadBytes = FrameHeader.bytes + Limits.frameExtents * Extent.bytes

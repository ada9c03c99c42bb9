// Data frames: what travels on a data stream after its preface. All integers are little-endian.
//
//   frame    = header (40 bytes), extentCount extents (16 bytes each), payload
//   header   = magic u32 "TTF1" | kind u8 | 0 u8 | extentCount u16 | sequence u64 | payloadBytes u32 | round u32 | offset u64
//              | mac u64
//   extent   = firstPage u64 | pageCount u32 | region u16 | encoding u8 | 0 u8
//
// The mac is for the link elements on the way (LinkPass.swift), over the 32 bytes before it; 0 on a way without. The target does not look at it.
//
// A stream's frames are numbered from 0 without a gap. The payload of a page frame is the pages of its raw extents, one
// after the other, as they lie in guest memory; a zero extent has none. An extent stays within one stripe of
// Limits.stripePages pages, and a stripe belongs to one stream for the whole migration, so two versions of a page are
// never in flight on different streams and the last one sent is the last one written.
//
// Disks are regions too, after those of memory, in pages of 4 KiB; the last one of a disk may reach beyond its end, and is filled up with
// zeroes. They travel in frames of their own, each of one stripe only.

public import TurntableCore

/// What a data frame carries.
public enum FrameKind: UInt8, Sendable {
    /// Pages: extents, and the bytes of the raw ones.
    case pages = 1
    /// A piece of the hypervisor's device state, at ``FrameHeader/offset``. No extents.
    case deviceState = 2
    /// Nothing: bytes that open the connection's window while the target prepares. No extents.
    case warmUp = 3
    /// As pages, but of one stripe of a disk.
    case blocks = 4

    /// Whether such a frame has extents, and the payload is theirs.
    public var hasExtents: Bool { self == .pages || self == .blocks }
}

/// The fixed part of a data frame.
public struct FrameHeader: Equatable, Sendable {
    public static let bytes = 40
    /// What ``mac`` is over.
    public static let authenticatedBytes = 32
    static let magic: UInt32 = 0x3146_5454

    public var kind: FrameKind
    public var extentCount: Int
    public var sequence: UInt64
    public var payloadBytes: Int
    public var round: UInt32
    /// Where the payload belongs in the device state; 0 for other kinds.
    public var offset: UInt64
    /// What link elements know the frame by.
    public var mac: UInt64

    public init(
        kind: FrameKind, extentCount: Int, sequence: UInt64, payloadBytes: Int, round: UInt32, offset: UInt64 = 0, mac: UInt64 = 0
    ) {
        self.kind = kind
        self.extentCount = extentCount
        self.sequence = sequence
        self.payloadBytes = payloadBytes
        self.round = round
        self.offset = offset
        self.mac = mac
    }

    /// Writes the header to the first ``bytes`` of `output`.
    public func encode(into output: inout MutableRawSpan) {
        output.store(Self.magic, at: 0)
        output.store(kind.rawValue, at: 4)
        output.store(UInt8(0), at: 5)
        output.store(UInt16(extentCount), at: 6)
        output.store(sequence, at: 8)
        output.store(UInt32(payloadBytes), at: 16)
        output.store(round, at: 20)
        output.store(offset, at: 24)
        output.store(mac, at: Self.authenticatedBytes)
    }

    /// Reads and checks a header.
    /// - Parameter expected: the sequence number that this stream's next frame must have.
    public static func decode(_ input: RawSpan, expectedSequence expected: UInt64) throws(WireError) -> FrameHeader {
        guard input.byteCount >= bytes else { throw WireError(.truncated, value: UInt64(input.byteCount), limit: UInt64(bytes), offset: 0) }
        let magic: UInt32 = input.load(at: 0)
        guard magic == Self.magic else { throw WireError(.badMagic, value: UInt64(magic), limit: UInt64(Self.magic), offset: 0) }
        let rawKind: UInt8 = input.load(at: 4)
        guard let kind = FrameKind(rawValue: rawKind) else { throw WireError(.unknownKind, value: UInt64(rawKind), limit: 4, offset: 4) }
        let reserved: UInt8 = input.load(at: 5)
        guard reserved == 0 else { throw WireError(.reservedNotZero, value: UInt64(reserved), limit: 0, offset: 5) }
        let count: UInt16 = input.load(at: 6)
        let mostExtents = kind.hasExtents ? Limits.frameExtents : 0
        guard count <= mostExtents, count > 0 || !kind.hasExtents else {
            throw WireError(.tooMany, value: UInt64(count), limit: UInt64(mostExtents), offset: 6)
        }
        let sequence: UInt64 = input.load(at: 8)
        guard sequence == expected else { throw WireError(.outOfSequence, value: sequence, limit: expected, offset: 8) }
        let payload: UInt32 = input.load(at: 16)
        guard payload <= Limits.framePayloadBytes else {
            throw WireError(.tooLong, value: UInt64(payload), limit: UInt64(Limits.framePayloadBytes), offset: 16)
        }
        let offset: UInt64 = input.load(at: 24)
        let mostOffset = kind == .deviceState ? UInt64(Limits.deviceStateBytes) - UInt64(payload) : 0
        guard offset <= mostOffset else { throw WireError(.tooLong, value: offset, limit: mostOffset, offset: 24) }
        return FrameHeader(
            kind: kind, extentCount: Int(count), sequence: sequence, payloadBytes: Int(payload), round: input.load(at: 20), offset: offset,
            mac: input.load(at: authenticatedBytes))
    }
}

/// How the bytes of an extent are sent.
public enum Encoding: UInt8, Sendable {
    /// As they lie in memory.
    case raw = 0
    /// All zero: no payload.
    case zero = 1
}

/// A run of pages next to each other in one region and one stripe.
public struct Extent: Equatable, Sendable {
    public static let bytes = 16

    public var region: RegionIndex
    public var firstPage: PageIndex
    public var pageCount: PageCount
    public var encoding: Encoding

    public init(region: RegionIndex, firstPage: PageIndex, pageCount: PageCount, encoding: Encoding) {
        self.region = region
        self.firstPage = firstPage
        self.pageCount = pageCount
        self.encoding = encoding
    }

    /// Bytes this extent has in its frame's payload.
    public var payloadBytes: Int { encoding == .raw ? pageCount.bytes.value : 0 }

    public func encode(into output: inout MutableRawSpan, at position: Int) {
        output.store(UInt64(firstPage.value), at: position)
        output.store(UInt32(pageCount.value), at: position + 8)
        output.store(UInt16(region.value), at: position + 12)
        output.store(encoding.rawValue, at: position + 14)
        output.store(UInt8(0), at: position + 15)
    }

    /// Reads an extent of a frame of that kind, and checks it against the machine's memory or disks and against the stripes of the stream it came on.
    public static func decode(
        _ input: RawSpan, at position: Int, of kind: FrameKind = .pages, layout: MemoryLayoutTable, stream: Int
    ) throws(WireError) -> Extent {
        guard position >= 0, input.byteCount >= bytes, position <= input.byteCount - bytes else {
            throw WireError(.truncated, value: UInt64(input.byteCount), limit: UInt64(bytes), offset: position)
        }
        let region: UInt16 = input.load(at: position + 12)
        guard region < layout.regionCount, layout.isDisk(Int(region)) == (kind == .blocks) else {
            throw WireError(.badRegion, value: UInt64(region), limit: UInt64(layout.regionCount), offset: position + 12)
        }
        let rawEncoding: UInt8 = input.load(at: position + 14)
        guard let encoding = Encoding(rawValue: rawEncoding) else {
            throw WireError(.unknownKind, value: UInt64(rawEncoding), limit: 1, offset: position + 14)
        }
        let reserved: UInt8 = input.load(at: position + 15)
        guard reserved == 0 else { throw WireError(.reservedNotZero, value: UInt64(reserved), limit: 0, offset: position + 15) }
        let first: UInt64 = input.load(at: position)
        let count: UInt32 = input.load(at: position + 8)
        let pages = UInt64(layout.pages(in: Int(region)))
        guard first < pages, count > 0, UInt64(count) <= pages - first else {
            throw WireError(.outsideMemory, value: first, limit: pages, offset: position)
        }
        let stripe = first / UInt64(Limits.stripePages)
        guard (first + UInt64(count) - 1) / UInt64(Limits.stripePages) == stripe else {
            throw WireError(.crossesStripe, value: UInt64(count), limit: UInt64(Limits.stripePages), offset: position + 8)
        }
        guard layout.stream(ofStripe: Int(stripe), region: Int(region)) == stream else {
            throw WireError(.foreignStripe, value: stripe, limit: UInt64(stream), offset: position)
        }
        return Extent(
            region: RegionIndex(Int(region)), firstPage: PageIndex(Int(first)), pageCount: PageCount(Int(count)), encoding: encoding)
    }
}

/// The sizes of a machine's regions, memory first and then disks, and the number of streams: what decides which stream a page
/// travels on.
public struct MemoryLayoutTable: Equatable, Sendable {
    private let regionPages: [Int]
    public let memoryRegions: Int
    public let streams: Int

    public init(regionPages: [Int], disks: [Int] = [], streams: Int) {
        precondition(streams > 0 && streams <= Limits.streams && regionPages.count + disks.count <= Limits.regions)
        self.regionPages = regionPages + disks
        memoryRegions = regionPages.count
        self.streams = streams
    }

    public var regionCount: Int { regionPages.count }
    public func isDisk(_ region: Int) -> Bool { region >= memoryRegions }
    public func pages(in region: Int) -> Int { regionPages[region] }
    public func stripes(in region: Int) -> Int { (regionPages[region] + Limits.stripePages - 1) / Limits.stripePages }
    /// The stream that owns a stripe. Regions start at different streams, so that small ones spread.
    public func stream(ofStripe stripe: Int, region: Int) -> Int { (stripe + region) % streams }
}

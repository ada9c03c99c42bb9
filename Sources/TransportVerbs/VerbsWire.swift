// What the ends of a data stream say to each other over RDMA. All integers are little-endian. A data stream is 1 to 64 queue
// pairs of one protection domain: lanes. Every lane is a connection of its own, whose private data says whose it is.
//
//   source ─ request (private data): hello ─▶ target      lane 0 first or last, in any order
//   target ─ reply (private data): answer ─▶ source       the ring that frames are written into
//   hello  = "TV" | version u8 | bytes u8 | stream u8 | lane u8 | lanes u8 | frames u8 | attachment (16) | proof (32, sealed lines)
//   answer = "TV" | version u8 | bytes u8 | refusal u8 | 0 (3) | ring u64 | key u32 | 0 u32
//
// The ring has `frames` places of Place.bytes; frame n is written into place n mod frames when the target has taken frame
// n - frames. A place holds a prefix, the frame's head as it is on any other line (Frame.swift), and its payload:
//
//   prefix  = headBytes u16 | payloadBytes u32 | others u16 | isDirect u8 | windows u8 | windows × { stripe u32 | region u16 | wanted u16 }
//
// The head comes on lane 0 by a WRITE with an immediate; payload on lane 0 comes before it. `others` other lanes have part of
// the payload and say so by an immediate of their own. An immediate is the frame's number, the low 31 bits; the head's has the
// highest bit as well. A sealed frame's head and payload are each followed by their tag.
//
// Direct: the payload went from the source's guest memory into the target's, which had granted its stripes. A stripe is
// granted when a frame has asked for it (wanted 1), until one gives it back (0), or the target ends all of it. There is none
// of this on a sealed line, where all bytes go through the cipher.
//
//   credit  = taken u64 | grants u16 | 0 (6) | grants × { address u64 | key u32 | stripe u32 | region u16 | granted u16 | 0 u32 }
//
// The target sends one credit, on lane 0, for each frame that it has taken.

internal import Protection
internal import TurntableCore
internal import WireFormat

/// The version of all this, and what begins private data.
private let version: UInt8 = 1
private let magic: UInt16 = 0x5654

/// Why a target does not take a connection.
enum VerbsRefusal: UInt8, CaseIterable {
    case version = 1
    case protection
    case proof
    case shape
    case memory
    case busy
    case ended

    var text: String {
        switch self {
        case .version: "it speaks another version"
        case .protection: "it wants its lines protected in another way"
        case .proof: "this end does not prove that it belongs to a control stream there"
        case .shape: "it does not take so many queue pairs, frames or streams"
        case .memory: "it cannot pin memory for another stream"
        case .busy: "others have not finished connecting"
        case .ended: "it is leaving"
        }
    }
}

/// A request's private data.
struct VerbsHello: Equatable {
    static let bytes = 24
    static let sealedBytes = bytes + SessionSecret.proofBytes

    var stream: Int
    var lane: Int
    var lanes: Int
    var frames: Int
    var attachment: AttachmentID
    /// Empty on a line without protection.
    var proof: [UInt8] = []

    var preface: Preface {
        Preface(role: .data, protection: proof.isEmpty ? .none : .sealed, stream: UInt16(stream), attachment: attachment)
    }

    func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.bytes)
        fill(&bytes) { output in
            output.store(magic, at: 0)
            output.store(version, at: 2)
            output.store(UInt8(Self.bytes + proof.count), at: 3)
            output.store(UInt8(stream), at: 4)
            output.store(UInt8(lane), at: 5)
            output.store(UInt8(lanes), at: 6)
            output.store(UInt8(frames), at: 7)
            output.store(attachment.high, at: 8)
            output.store(attachment.low, at: 16)
        }
        return bytes + proof
    }

    /// Nil and a reason if it is none that this end takes. What follows its length is the device's padding.
    static func decode(_ input: [UInt8]) -> Result<VerbsHello, VerbsRefusalError> {
        guard input.count >= bytes else { return .failure(.init(.version)) }
        return input.withBytes { span in
            let magicRead: UInt16 = span.load(at: 0)
            let versionRead: UInt8 = span.load(at: 2)
            let length = Int(span.load(at: 3) as UInt8)
            guard magicRead == magic, versionRead == version else { return .failure(.init(.version)) }
            guard length == bytes || length == sealedBytes, length <= input.count else { return .failure(.init(.version)) }
            let hello = VerbsHello(
                stream: Int(span.load(at: 4) as UInt8), lane: Int(span.load(at: 5) as UInt8), lanes: Int(span.load(at: 6) as UInt8),
                frames: Int(span.load(at: 7) as UInt8), attachment: AttachmentID(high: span.load(at: 8), low: span.load(at: 16)),
                proof: Array(input[bytes..<length]))
            guard hello.stream < Limits.streams, (1...Limits.queuePairs).contains(hello.lanes), hello.lane < hello.lanes,
                (1...Limits.verbsFrames).contains(hello.frames)
            else { return .failure(.init(.shape)) }
            return .success(hello)
        }
    }
}

struct VerbsRefusalError: Error, Equatable {
    let reason: VerbsRefusal
    init(_ reason: VerbsRefusal) { self.reason = reason }
}

/// A reply's private data, or a rejection's.
struct VerbsAnswer: Equatable {
    static let bytes = 24
    var refusal: VerbsRefusal?
    var ring: UInt64 = 0
    var key: UInt32 = 0

    func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.bytes)
        fill(&bytes) { output in
            output.store(magic, at: 0)
            output.store(version, at: 2)
            output.store(UInt8(Self.bytes), at: 3)
            output.store(refusal?.rawValue ?? 0, at: 4)
            output.store(ring, at: 8)
            output.store(key, at: 16)
        }
        return bytes
    }

    /// Nil if it is no answer of this version.
    static func decode(_ input: [UInt8]) -> VerbsAnswer? {
        guard input.count >= bytes else { return nil }
        return input.withBytes { span in
            guard (span.load(at: 0) as UInt16) == magic, (span.load(at: 2) as UInt8) == version, (span.load(at: 3) as UInt8) == bytes else {
                return nil
            }
            let reason: UInt8 = span.load(at: 4)
            guard reason == 0 || VerbsRefusal(rawValue: reason) != nil else { return nil }
            return VerbsAnswer(refusal: VerbsRefusal(rawValue: reason), ring: span.load(at: 8), key: span.load(at: 16))
        }
    }
}

/// Where a frame lies in its place of the ring.
enum Place {
    static let prefixBytes = 10
    static let windowBytes = 8
    /// Prefix, head and tag, with room to the payload's alignment.
    static let headBytes = 8 << 10
    static let bytes = headBytes + Limits.framePayloadBytes + pageBytes
}

/// A stripe that is asked for or given back.
struct WindowRequest: Equatable {
    var region: Int
    var stripe: Int
    var isWanted: Bool
}

/// The first part of a place.
struct PlacePrefix: Equatable {
    var headBytes = 0
    var payloadBytes = 0
    /// Lanes but lane 0 that carry payload.
    var others = 0
    var isDirect = false
    var windows = 0

    var bytes: Int { Place.prefixBytes + windows * Place.windowBytes }

    func encode(into output: inout MutableRawSpan) {
        output.store(UInt16(headBytes), at: 0)
        output.store(UInt32(payloadBytes), at: 2)
        output.store(UInt16(others), at: 6)
        output.store(UInt8(isDirect ? 1 : 0), at: 8)
        output.store(UInt8(windows), at: 9)
    }

    /// - Parameter lanes: of the stream.
    static func decode(_ input: RawSpan, lanes: Int) throws(WireError) -> PlacePrefix {
        let head: UInt16 = input.load(at: 0)
        let payload: UInt32 = input.load(at: 2)
        let others: UInt16 = input.load(at: 6)
        let flag: UInt8 = input.load(at: 8)
        let windows: UInt8 = input.load(at: 9)
        guard head >= FrameHeader.bytes, head <= FrameHeader.bytes + Limits.frameExtents * Extent.bytes + FrameCipher.tagBytes else {
            throw WireError(.tooLong, value: UInt64(head), limit: UInt64(Place.headBytes), offset: 0)
        }
        guard payload <= Limits.framePayloadBytes + FrameCipher.tagBytes else {
            throw WireError(.tooLong, value: UInt64(payload), limit: UInt64(Limits.framePayloadBytes), offset: 2)
        }
        guard others < lanes else { throw WireError(.tooMany, value: UInt64(others), limit: UInt64(lanes - 1), offset: 6) }
        guard flag <= 1 else { throw WireError(.unknownKind, value: UInt64(flag), limit: 1, offset: 8) }
        guard windows <= Limits.grantsPerFrame else {
            throw WireError(.tooMany, value: UInt64(windows), limit: UInt64(Limits.grantsPerFrame), offset: 9)
        }
        return PlacePrefix(
            headBytes: Int(head), payloadBytes: Int(payload), others: Int(others), isDirect: flag == 1, windows: Int(windows))
    }
}

extension WindowRequest {
    func encode(into output: inout MutableRawSpan, index: Int) {
        let position = Place.prefixBytes + index * Place.windowBytes
        output.store(UInt32(stripe), at: position)
        output.store(UInt16(region), at: position + 4)
        output.store(UInt16(isWanted ? 1 : 0), at: position + 6)
    }

    /// Checked against the machine's memory and the stripes of the stream that it came on.
    static func decode(_ input: RawSpan, index: Int, layout: MemoryLayoutTable, stream: Int) throws(WireError) -> WindowRequest {
        let position = Place.prefixBytes + index * Place.windowBytes
        let stripe: UInt32 = input.load(at: position)
        let region: UInt16 = input.load(at: position + 4)
        let wanted: UInt16 = input.load(at: position + 6)
        // Disks are written by this process only.
        guard region < layout.memoryRegions else {
            throw WireError(.badRegion, value: UInt64(region), limit: UInt64(layout.memoryRegions), offset: position + 4)
        }
        guard stripe < layout.stripes(in: Int(region)) else {
            throw WireError(.outsideMemory, value: UInt64(stripe), limit: UInt64(layout.stripes(in: Int(region))), offset: position)
        }
        guard layout.stream(ofStripe: Int(stripe), region: Int(region)) == stream else {
            throw WireError(.foreignStripe, value: UInt64(stripe), limit: UInt64(stream), offset: position)
        }
        guard wanted <= 1 else { throw WireError(.unknownKind, value: UInt64(wanted), limit: 1, offset: position + 6) }
        return WindowRequest(region: Int(region), stripe: Int(stripe), isWanted: wanted == 1)
    }
}

/// What a target says to a source when it has taken a frame.
enum Credit {
    static let headerBytes = 16
    static let grantBytes = 24
    static let bytes = headerBytes + Limits.grantsPerFrame * grantBytes

    static func encode(taken: UInt64, grants: Int, into output: inout MutableRawSpan) {
        output.store(taken, at: 0)
        output.store(UInt16(grants), at: 8)
        for position in stride(from: 10, to: 16, by: 2) { output.store(UInt16(0), at: position) }
    }

    static func decode(_ input: RawSpan) throws(WireError) -> (taken: UInt64, grants: Int) {
        guard input.byteCount >= headerBytes else {
            throw WireError(.truncated, value: UInt64(input.byteCount), limit: UInt64(headerBytes), offset: 0)
        }
        let grants: UInt16 = input.load(at: 8)
        guard grants <= Limits.grantsPerFrame, input.byteCount == headerBytes + Int(grants) * grantBytes else {
            throw WireError(.tooMany, value: UInt64(grants), limit: UInt64(Limits.grantsPerFrame), offset: 8)
        }
        return (input.load(at: 0), Int(grants))
    }
}

/// A stripe that the source's device may write, or may not after all.
struct Grant: Equatable {
    var region: Int
    var stripe: Int
    var isGranted: Bool
    var address: UInt64 = 0
    var key: UInt32 = 0

    func encode(into output: inout MutableRawSpan, index: Int) {
        let position = Credit.headerBytes + index * Credit.grantBytes
        output.store(address, at: position)
        output.store(key, at: position + 8)
        output.store(UInt32(stripe), at: position + 12)
        output.store(UInt16(region), at: position + 16)
        output.store(UInt16(isGranted ? 1 : 0), at: position + 18)
        output.store(UInt32(0), at: position + 20)
    }

    static func decode(_ input: RawSpan, index: Int) -> Grant {
        let position = Credit.headerBytes + index * Credit.grantBytes
        return Grant(
            region: Int(input.load(at: position + 16) as UInt16), stripe: Int(input.load(at: position + 12) as UInt32),
            isGranted: (input.load(at: position + 18) as UInt16) == 1, address: input.load(at: position), key: input.load(at: position + 8))
    }
}

private func fill(_ bytes: inout [UInt8], _ body: (inout MutableRawSpan) -> Void) {
    unsafe bytes.withUnsafeMutableBytes { buffer in
        var output = unsafe MutableRawSpan(_unsafeBytes: buffer)
        body(&output)
    }
}

extension [UInt8] {
    fileprivate func withBytes<Value>(_ body: (RawSpan) -> Value) -> Value {
        unsafe withUnsafeBytes { body(unsafe RawSpan(_unsafeBytes: $0)) }
    }
}

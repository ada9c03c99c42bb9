internal import TestSupport
internal import TurntableCore
internal import WireFormat

extension SeededGenerator {
    mutating func text(atMost limit: Int) -> String {
        var text = ""
        let wanted = Int.random(in: 0...limit, using: &self)
        while true {
            let next = ["a", "-", "é", "漢", "🚚", "\u{0}", "e\u{301}"].randomElement(using: &self)!
            if text.utf8.count + next.utf8.count > wanted { return text }
            text += next
        }
    }
    mutating func number<Value: FixedWidthInteger>(_: Value.Type = Value.self) -> Value {
        // Edges as often as anything else.
        [0, 1, .max, .min, Value.random(in: .min ... .max, using: &self)].randomElement(using: &self)!
    }
    mutating func identifier<Named>() -> RandomID<Named> { RandomID(high: number(), low: number()) }

    mutating func offer() -> Offer {
        let regions = (0..<Int.random(in: 1...Limits.regions - 3, using: &self)).map { _ in
            Offer.Region(
                name: text(atMost: Limits.nameBytes),
                bytes: UInt64.random(in: 1...UInt64(Limits.regionPages), using: &self) * UInt64(pageBytes))
        }
        let populations = (0..<Int.random(in: 0...20, using: &self)).map { _ in
            let region = Int.random(in: regions.indices, using: &self)
            let stripes = (regions[region].bytes / UInt64(pageBytes) + 255) / 256
            let first = UInt64.random(in: 0..<stripes, using: &self)
            return Offer.Population(
                region: UInt16(region), firstStripe: UInt32(first),
                stripeCount: UInt32(UInt64.random(in: 0...stripes - first, using: &self)))
        }
        let disks = (0..<Int.random(in: 0...3, using: &self)).map { _ in
            Offer.Disk(
                name: text(atMost: Limits.nameBytes), bytes: UInt64.random(in: 1...UInt64(Limits.diskBytes / 512), using: &self) * 512)
        }
        return Offer(
            session: identifier(), epoch: Epoch(number()), machine: text(atMost: Limits.nameBytes),
            streams: UInt16.random(in: 1...UInt16(Limits.streams), using: &self),
            regions: regions, populations: populations, disks: disks, verification: Verification.allCases.randomElement(using: &self)!,
            resumeWindow: Nanoseconds(number()), isHandedOff: Bool.random(using: &self),
            description: bytes(Int.random(in: 0...3000, using: &self)), token: bytes(Int.random(in: 0...Limits.tokenBytes, using: &self)))
    }

    mutating func counts(_ limit: Int) -> [UInt64] { (0..<Int.random(in: 0...limit, using: &self)).map { _ in number() } }

    /// A message of each kind.
    mutating func messages() -> [ControlMessage] {
        [
            .welcome(Welcome(version: number(), attachment: identifier(), keyShare: bytes(Int.random(in: 0...64, using: &self)))),
            .offer(offer()),
            .offered(
                Offered(
                    epoch: Epoch(number()), host: identifier(), received: counts(Limits.streams),
                    contents: (0..<Int.random(in: 0...Limits.regions, using: &self)).map { _ in TargetContent.allCases.randomElement(using: &self)! })),
            .refused(
                Refusal(
                    epoch: Epoch(number()), reason: text(atMost: Limits.reasonBytes),
                    signature: bytes(Int.random(in: 0...200, using: &self)))),
            .ping(number()), .pong(Pong(stamp: number(), received: counts(Limits.streams))),
            .handoff(
                Handoff(
                    epoch: Epoch(number()), session: identifier(), attachment: identifier(),
                    frames: counts(Limits.streams),
                    deviceStateBytes: UInt64.random(in: 0...UInt64(Limits.deviceStateBytes), using: &self))),
            .committed(
                Committed(
                    epoch: Epoch(number()), waitedForStreams: Nanoseconds(number()), loadedDeviceState: Nanoseconds(number()),
                    resumed: Nanoseconds(number()))),
            .abort(text(atMost: Limits.reasonBytes)),
            .digests(Digests(region: number(), firstStripe: number(), stripes: counts(300), isLast: Bool.random(using: &self))),
            .verified(
                Verified(
                    epoch: Epoch(number()), stripesCompared: number(), stripesDiffering: number(),
                    examples: (0..<Int.random(in: 0...Verified.maximumExamples, using: &self)).map { _ in
                        .init(region: number(), stripe: number())
                    })),
            .query(Query(machine: text(atMost: Limits.nameBytes), epoch: Epoch(number()), session: identifier())),
            .resolution(
                Resolution(
                    epoch: Epoch(number()), host: identifier(), state: Resolution.State.allCases.randomElement(using: &self)!,
                    detail: text(atMost: Limits.reasonBytes), signature: bytes(Int.random(in: 0...200, using: &self)))),
            .keys(Keys(encapsulated: bytes(Int.random(in: 0...64, using: &self)), nonce: bytes(Int.random(in: 0...64, using: &self)))),
            .confirmed(Query(machine: text(atMost: Limits.nameBytes), epoch: Epoch(number()), session: identifier())),
            .olderPages(
                OlderPages(
                    region: number(), firstPage: number(), digests: bytes(OlderPages.digestBytes * Int.random(in: 0...40, using: &self)))),
            .program(program()), .readiness(Bool.random(using: &self)),
        ]
    }

    mutating func program() -> ProgramMessage {
        switch Int.random(in: 0...2, using: &self) {
        case 0: .start((0..<Int.random(in: 0...Limits.programWords, using: &self)).map { _ in text(atMost: Limits.nameBytes) })
        case 1: .bytes(ProgramMessage.StandardStream.allCases.randomElement(using: &self)!, bytes(Int.random(in: 0...3000, using: &self)))
        default: .ended(code: number())
        }
    }

    mutating func preface() -> Preface {
        Preface(
            role: Bool.random(using: &self) ? .control : .data, protection: Bool.random(using: &self) ? .none : .sealed,
            stream: UInt16.random(in: 0..<UInt16(Limits.streams), using: &self),
            attachment: identifier(), lowestVersion: number(), highestVersion: number())
    }
}

/// A message as a peer reads it: header, then body.
func decode(_ bytes: [UInt8]) throws(WireError) -> ControlMessage {
    let (length, type) = try ControlMessage.decodeHeader(Array(bytes.prefix(ControlMessage.headerBytes)))
    let body = Array(bytes.dropFirst(ControlMessage.headerBytes))
    guard body.count >= length else {
        throw WireError(.truncated, value: UInt64(body.count), limit: UInt64(length), offset: ControlMessage.headerBytes)
    }
    guard body.count == length else {
        throw WireError(.trailingBytes, value: UInt64(body.count - length), limit: 0, offset: ControlMessage.headerBytes + length)
    }
    return try ControlMessage.decode(type: type, body: body)
}

func bytes(of header: FrameHeader) -> [UInt8] {
    var result = [UInt8](repeating: 0xaa, count: FrameHeader.bytes)
    result.withUnsafeMutableBytes { buffer in
        var output = MutableRawSpan(_unsafeBytes: buffer)
        header.encode(into: &output)
    }
    return result
}

func bytes(of extent: Extent) -> [UInt8] {
    var result = [UInt8](repeating: 0xaa, count: Extent.bytes)
    result.withUnsafeMutableBytes { buffer in
        var output = MutableRawSpan(_unsafeBytes: buffer)
        extent.encode(into: &output, at: 0)
    }
    return result
}

func decodeHeader(_ bytes: [UInt8], expecting sequence: UInt64 = 0) throws(WireError) -> FrameHeader {
    try FrameHeader.decode(bytes.span.bytes, expectedSequence: sequence)
}

func decodeExtent(
    _ bytes: [UInt8], _ layout: MemoryLayoutTable, of kind: FrameKind = .pages, stream: Int = 0
) throws(WireError) -> Extent {
    try Extent.decode(bytes.span.bytes, at: 0, of: kind, layout: layout, stream: stream)
}

func wireError<Value>(_ body: () throws(WireError) -> Value) -> WireError? {
    do throws(WireError) { _ = try body() } catch { return error }
    return nil
}

extension Array where Element == UInt8 {
    /// With `value` written at `offset`, little-endian.
    func with<Value: FixedWidthInteger>(_ value: Value, at offset: Int) -> [UInt8] {
        var copy = self
        for index in 0..<Value.bitWidth / 8 { copy[offset + index] = UInt8(truncatingIfNeeded: value >> Value(index * 8)) }
        return copy
    }
}

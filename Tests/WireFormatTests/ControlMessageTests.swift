internal import TestSupport
internal import Testing
internal import TurntableCore

@testable import WireFormat

struct ControlMessageTests {
    @Test(arguments: UInt64(0)..<40)
    func everyMessageComesBackAsItWas(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for message in generator.messages() {
            #expect(try decode(message.encoded()) == message, "seed \(seed)")
            #expect(message.encoded().count <= ControlMessage.headerBytes + Limits.controlBodyBytes)
        }
    }

    /// The format must not drift: these bytes are the protocol.
    @Test func aHandoffIsTheseBytes() {
        let handoff = Handoff(
            epoch: Epoch(0x0102030405060708), session: SessionID(high: 0x1112131415161718, low: 0x2122232425262728),
            attachment: AttachmentID(high: 5, low: 6), frames: [3, 0x0100],
            deviceStateBytes: 0x31_3233)
        #expect(
            ControlMessage.handoff(handoff).encoded() == [
                68, 0, 0, 0, 7, 0, 0, 0,
                8, 7, 6, 5, 4, 3, 2, 1,
                0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
                5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0,
                2, 0, 0, 0,
                3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0,
                0x33, 0x32, 0x31, 0, 0, 0, 0, 0,
            ])
    }

    @Test func anOfferIsTheseBytes() {
        let offer = Offer(
            session: SessionID(high: 0x1122_3344_5566_7788, low: 1), epoch: Epoch(2), machine: "é", streams: 4,
            regions: [.init(name: "r", bytes: 0x10_0000)],
            populations: [.init(region: 0, firstStripe: 0, stripeCount: 1)], disks: [.init(name: "d", bytes: 0x1200)], verification: .after,
            resumeWindow: Nanoseconds(7), isHandedOff: true, description: [9, 8], token: [7])
        #expect(
            ControlMessage.offer(offer).encoded() == [
                101, 0, 0, 0, 2, 0, 0, 0,
                0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 1, 0, 0, 0, 0, 0, 0, 0,
                2, 0, 0, 0, 0, 0, 0, 0,
                2, 0, 0, 0, 0xc3, 0xa9,
                4, 0,
                1, 0, 0, 0, 1, 0, 0, 0, 0x72, 0, 0, 0x10, 0, 0, 0, 0, 0,
                1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
                1, 0, 0, 0, 1, 0, 0, 0, 0x64, 0, 0x12, 0, 0, 0, 0, 0, 0,
                2, 7, 0, 0, 0, 0, 0, 0, 0, 1,
                2, 0, 0, 0, 9, 8,
                1, 0, 0, 0, 7,
            ])
    }

    @Test func kindsKeepTheirNumbers() {
        var generator = SeededGenerator(seed: 1)
        #expect(generator.messages().map { $0.encoded()[4] } == Array(1...18))
    }

    @Test(arguments: UInt64(0)..<3)
    func aMessageCutAnywhereIsAnError(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for message in generator.messages() {
            let bytes = message.encoded()
            let body = Array(bytes.dropFirst(ControlMessage.headerBytes))
            for count in 0..<ControlMessage.headerBytes {
                #expect(
                    wireError { () throws(WireError) in try ControlMessage.decodeHeader(Array(bytes.prefix(count))) }?.reason == .truncated)
            }
            for count in stride(from: 0, to: body.count, by: body.count > 2000 ? 7 : 1) {
                let error = wireError { () throws(WireError) in
                    try ControlMessage.decode(type: UInt16(bytes[4]), body: Array(body.prefix(count)))
                }
                #expect(error?.reason == .truncated, "seed \(seed), \(count) bytes of \(message)")
            }
            let longer = wireError { () throws(WireError) in try ControlMessage.decode(type: UInt16(bytes[4]), body: body + [0]) }
            #expect(longer?.reason == .trailingBytes && longer?.offset == body.count)
        }
    }

    /// Whatever a peer sends is a message or a typed error; and a message that was read can be written again.
    @Test(arguments: UInt64(0)..<20)
    func flippedBitsNeverTrap(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for message in generator.messages() {
            let bytes = message.encoded()
            for _ in 0..<60 {
                var flipped = bytes
                for _ in 0..<Int.random(in: 1...4, using: &generator) {
                    flipped[Int.random(in: flipped.indices, using: &generator)] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
                }
                guard let read = try? decode(flipped) else { continue }
                #expect(try decode(read.encoded()) == read, "seed \(seed)")
            }
        }
    }

    // MARK: - Bounds

    private func error(_ message: ControlMessage) -> WireError? { wireError { () throws(WireError) in try decode(message.encoded()) } }
    private func offer(_ change: (inout Offer) -> Void) -> ControlMessage {
        var offer = Offer(
            session: .none, epoch: Epoch(1), machine: "m", streams: 1, regions: [.init(name: "r", bytes: 300 * 4096)],
            populations: [.init(region: 0, firstStripe: 1, stripeCount: 1)], description: [])
        change(&offer)
        return .offer(offer)
    }

    @Test func headersKeepToTheirBounds() {
        let header: [UInt8] = [8, 0, 0, 0, 5, 0, 0, 0]
        let most = UInt32(Limits.controlBodyBytes)
        #expect(wireError { () throws(WireError) in try ControlMessage.decodeHeader(header.with(most, at: 0)) } == nil)
        #expect(
            wireError { () throws(WireError) in try ControlMessage.decodeHeader(header.with(most + 1, at: 0)) }
                == WireError(.tooLong, value: UInt64(most) + 1, limit: UInt64(most), offset: 0))
        for kind in [UInt16(0), 19, .max] {
            #expect(wireError { () throws(WireError) in try ControlMessage.decodeHeader(header.with(kind, at: 4)) }?.reason == .unknownKind)
            #expect(wireError { () throws(WireError) in try ControlMessage.decode(type: kind, body: []) }?.reason == .unknownKind)
        }
        #expect(
            wireError { () throws(WireError) in try ControlMessage.decodeHeader(header.with(UInt16(1), at: 6)) }
                == WireError(.reservedNotZero, value: 1, limit: 0, offset: 6))
        #expect(wireError { () throws(WireError) in try ControlMessage.decodeHeader(header + [0]) }?.reason == .trailingBytes)
    }

    @Test func whatIsAtTheLimitPassesAndOneMoreDoesNot() {
        let cases: [(WireError.Reason, good: ControlMessage, bad: ControlMessage)] = [
            (
                .tooLong, offer { $0.machine = String(repeating: "x", count: Limits.nameBytes) },
                offer { $0.machine = String(repeating: "x", count: Limits.nameBytes + 1) }
            ),
            (
                .tooLong, offer { $0.regions[0].name = String(repeating: "x", count: Limits.nameBytes) },
                offer { $0.regions[0].name = String(repeating: "x", count: Limits.nameBytes + 1) }
            ),
            (.tooMany, offer { $0.streams = UInt16(Limits.streams) }, offer { $0.streams = UInt16(Limits.streams) + 1 }),
            (.tooMany, offer { $0.streams = 1 }, offer { $0.streams = 0 }),
            (
                .tooLong, offer { $0.regions = Array(repeating: $0.regions[0], count: Limits.regions) },
                offer { $0.regions = Array(repeating: $0.regions[0], count: Limits.regions + 1) }
            ),
            (
                .tooLong, offer { $0.regions[0].bytes = UInt64(Limits.regionPages) << 12 },
                offer { $0.regions[0].bytes = (UInt64(Limits.regionPages) + 1) << 12 }
            ),
            (.tooLong, offer { $0.regions[0].bytes = 257 << 12 }, offer { $0.regions[0].bytes = 0 }),
            (.tooLong, offer { $0.regions[0].bytes = 257 << 12 }, offer { $0.regions[0].bytes = (257 << 12) + 1 }),
            (
                .tooLong, offer { $0.populations = Array(repeating: $0.populations[0], count: Offer.maximumPopulations) },
                offer { $0.populations = Array(repeating: $0.populations[0], count: Offer.maximumPopulations + 1) }
            ),
            (.badRegion, offer { $0.populations[0].region = 0 }, offer { $0.populations[0].region = 1 }),
            (.outsideMemory, offer { $0.populations[0].stripeCount = 1 }, offer { $0.populations[0].stripeCount = 2 }),
            (.outsideMemory, offer { $0.populations[0].firstStripe = 0 }, offer { $0.populations[0].firstStripe = .max }),
            (
                .tooLong, offer { $0.description = [UInt8](repeating: 0, count: Limits.descriptionBytes) },
                offer { $0.description = [UInt8](repeating: 0, count: Limits.descriptionBytes + 1) }
            ),
            (
                .tooLong,
                .handoff(Handoff(epoch: Epoch(1), session: .none, attachment: .none, frames: Array(repeating: 0, count: Limits.streams), deviceStateBytes: 0)),
                .handoff(
                    Handoff(epoch: Epoch(1), session: .none, attachment: .none, frames: Array(repeating: 0, count: Limits.streams + 1), deviceStateBytes: 0))
            ),
            (
                .tooLong, .handoff(Handoff(epoch: Epoch(1), session: .none, attachment: .none, frames: [], deviceStateBytes: UInt64(Limits.deviceStateBytes))),
                .handoff(Handoff(epoch: Epoch(1), session: .none, attachment: .none, frames: [], deviceStateBytes: UInt64(Limits.deviceStateBytes) + 1))
            ),
            (
                .tooLong, .program(.start(Array(repeating: "-v", count: Limits.programWords))),
                .program(.start(Array(repeating: "-v", count: Limits.programWords + 1)))
            ),
            (
                .tooLong, .program(.bytes(.output, [UInt8](repeating: 0, count: Limits.programBytes))),
                .program(.bytes(.output, [UInt8](repeating: 0, count: Limits.programBytes + 1)))
            ),
        ]
        for (index, (reason, good, bad)) in cases.enumerated() {
            #expect(error(good) == nil, "case \(index)")
            #expect(error(bad)?.reason == reason, "case \(index)")
        }
    }

    /// A length is checked before anything is made of it.
    @Test(arguments: [UInt32(Limits.reasonBytes) + 1, .max])
    func aReasonThatClaimsToBeLongIsRefusedUnread(length: UInt32) {
        let body = [UInt8](repeating: 0, count: 12).with(length, at: 8)
        #expect(
            wireError { () throws(WireError) in try ControlMessage.decode(type: 4, body: body) }
                == WireError(.tooLong, value: UInt64(length), limit: UInt64(Limits.reasonBytes), offset: 8))
    }

    @Test(arguments: [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0x61, 0x80]] as [[UInt8]])
    func textThatIsNoUTF8IsRefused(bytes: [UInt8]) {
        let body = [UInt8](repeating: 0, count: 4).with(UInt32(bytes.count), at: 0) + bytes
        #expect(
            wireError { () throws(WireError) in try ControlMessage.decode(type: 9, body: body) }
                == WireError(.badText, value: 0, limit: 0, offset: 0))
    }

    /// Our own reasons are cut to the limit at a character's end.
    @Test func longReasonsAreShortenedWhole() throws {
        let reason = String(repeating: "🚚", count: 2000)
        guard case .abort(let text) = try decode(ControlMessage.abort(reason).encoded()) else { Issue.record("no abort"); return }
        #expect(text == String(repeating: "🚚", count: Limits.reasonBytes / 4))
    }
}

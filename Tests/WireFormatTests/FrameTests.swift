internal import TestSupport
internal import Testing
internal import TurntableCore

@testable import WireFormat

struct FrameTests {
    private func randomHeader(_ generator: inout SeededGenerator) -> FrameHeader {
        let kind = [FrameKind.pages, .deviceState, .warmUp, .blocks].randomElement(using: &generator)!
        let payload = Int.random(in: 0...Limits.framePayloadBytes, using: &generator)
        return FrameHeader(
            kind: kind, extentCount: kind.hasExtents ? Int.random(in: 1...Limits.frameExtents, using: &generator) : 0,
            sequence: generator.number(),
            payloadBytes: payload, round: generator.number(),
            offset: kind == .deviceState ? UInt64.random(in: 0...UInt64(Limits.deviceStateBytes - payload), using: &generator) : 0)
    }

    @Test(arguments: UInt64(0)..<20)
    func everyHeaderComesBackAsItWas(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<100 {
            let header = randomHeader(&generator)
            #expect(try decodeHeader(bytes(of: header), expecting: header.sequence) == header, "seed \(seed)")
        }
    }

    @Test(arguments: UInt64(0)..<20, [1, 3, Limits.streams])
    func everyExtentComesBackAsItWas(seed: UInt64, streams: Int) throws {
        var generator = SeededGenerator(seed: seed)
        let regionPages = (0..<Int.random(in: 1...Limits.regions, using: &generator)).map { _ in
            Int.random(in: 1...Limits.regionPages, using: &generator)
        }
        let layout = MemoryLayoutTable(regionPages: regionPages, streams: streams)
        for _ in 0..<100 {
            let region = Int.random(in: regionPages.indices, using: &generator)
            let first = Int.random(in: 0..<regionPages[region], using: &generator)
            let stripe = first / Limits.stripePages
            let extent = Extent(
                region: RegionIndex(region), firstPage: PageIndex(first),
                pageCount: PageCount(
                    Int.random(in: 1...min((stripe + 1) * Limits.stripePages, regionPages[region]) - first, using: &generator)),
                encoding: Bool.random(using: &generator) ? .raw : .zero)
            for stream in 0..<streams {
                let result = wireError { () throws(WireError) in try decodeExtent(bytes(of: extent), layout, stream: stream) }
                #expect(result?.reason == (stream == (stripe + region) % streams ? nil : .foreignStripe), "seed \(seed)")
            }
            #expect(try decodeExtent(bytes(of: extent), layout, stream: (stripe + region) % streams) == extent, "seed \(seed)")
        }
    }

    /// The format must not drift: these bytes are the protocol.
    @Test func aPageFramesHeadIsTheseBytes() {
        let header = FrameHeader(
            kind: .pages, extentCount: 0x0102 - 2, sequence: 0x1112131415161718, payloadBytes: 0x10_0000, round: 0x21222324,
            mac: 0x3132333435363738)
        #expect(
            bytes(of: header) == [
                0x54, 0x54, 0x46, 0x31, 1, 0, 0, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0, 0, 0x10, 0, 0x24, 0x23, 0x22, 0x21,
                0, 0, 0, 0, 0, 0, 0, 0, 0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,
            ])
        let extent = Extent(
            region: RegionIndex(0x0304), firstPage: PageIndex(0x0807060504030201), pageCount: PageCount(0x01020304), encoding: .zero)
        #expect(bytes(of: extent) == [1, 2, 3, 4, 5, 6, 7, 8, 4, 3, 2, 1, 4, 3, 1, 0])
        let state = FrameHeader(kind: .deviceState, extentCount: 0, sequence: 1, payloadBytes: 5, round: 0, offset: 0x0201)
        #expect(
            bytes(of: state) == [
                0x54, 0x54, 0x46, 0x31, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0,
            ])
    }

    @Test func headersKeepToTheirBounds() {
        let good = bytes(of: FrameHeader(kind: .pages, extentCount: 1, sequence: 7, payloadBytes: 4096, round: 0))
        let state = bytes(
            of: FrameHeader(
                kind: .deviceState, extentCount: 0, sequence: 7, payloadBytes: 1, round: 0, offset: UInt64(Limits.deviceStateBytes) - 1))
        let warmUp = bytes(of: FrameHeader(kind: .warmUp, extentCount: 0, sequence: 7, payloadBytes: Limits.framePayloadBytes, round: 0))
        for bytes in [good, state, warmUp] { #expect(wireError { () throws(WireError) in try decodeHeader(bytes, expecting: 7) } == nil) }
        let extents = UInt16(Limits.frameExtents), payload = UInt32(Limits.framePayloadBytes)
        #expect(
            wireError { () throws(WireError) in try decodeHeader(good.with(extents, at: 6).with(payload, at: 16), expecting: 7) } == nil)
        let cases: [(WireError.Reason, Int, [UInt8])] = [
            (.badMagic, 0, good.with(UInt32(0x3246_5454), at: 0)),
            (.unknownKind, 4, good.with(UInt8(0), at: 4)),
            (.unknownKind, 4, good.with(UInt8(5), at: 4)),
            (.reservedNotZero, 5, good.with(UInt8(1), at: 5)),
            (.tooMany, 6, good.with(UInt16(0), at: 6)),
            (.tooMany, 6, good.with(extents + 1, at: 6)),
            (.tooMany, 6, state.with(UInt16(1), at: 6)),
            (.tooMany, 6, warmUp.with(UInt16(1), at: 6)),
            (.outOfSequence, 8, good.with(UInt64(6), at: 8)),
            (.outOfSequence, 8, good.with(UInt64(8), at: 8)),
            (.tooLong, 16, good.with(payload + 1, at: 16)),
            (.tooLong, 16, warmUp.with(UInt32.max, at: 16)),
            (.tooLong, 24, good.with(UInt64(1), at: 24)),
            (.tooLong, 24, warmUp.with(UInt64(1), at: 24)),
            (.tooLong, 24, state.with(UInt64(Limits.deviceStateBytes), at: 24)),
            (.tooLong, 24, state.with(UInt64.max, at: 24)),
            // A piece that begins within the limit and ends beyond it.
            (.tooLong, 24, state.with(UInt32(2), at: 16)),
        ]
        for (index, (reason, offset, bytes)) in cases.enumerated() {
            let error = wireError { () throws(WireError) in try decodeHeader(bytes, expecting: 7) }
            #expect(error?.reason == reason && error?.offset == offset, "case \(index): \(error as Any)")
        }
    }

    @Test func extentsKeepToTheMachinesMemory() {
        let layout = MemoryLayoutTable(regionPages: [1000, 256], streams: 1)
        func extent(_ region: Int, _ first: UInt64, _ count: UInt32) -> [UInt8] {
            bytes(of: Extent(region: RegionIndex(region), firstPage: PageIndex(0), pageCount: PageCount(0), encoding: .raw)).with(
                first, at: 0
            ).with(count, at: 8)
        }
        for good in [extent(0, 0, 256), extent(0, 999, 1), extent(0, 768, 232), extent(1, 255, 1)] {
            #expect(wireError { () throws(WireError) in try decodeExtent(good, layout) } == nil)
        }
        let cases: [(WireError.Reason, Int, [UInt8])] = [
            (.badRegion, 12, extent(2, 0, 1)),
            (.badRegion, 12, extent(0xffff, 0, 1)),
            (.unknownKind, 14, extent(0, 0, 1).with(UInt8(2), at: 14)),
            (.reservedNotZero, 15, extent(0, 0, 1).with(UInt8(1), at: 15)),
            (.outsideMemory, 0, extent(0, 0, 0)),
            (.outsideMemory, 0, extent(0, 1000, 1)),
            (.outsideMemory, 0, extent(0, 999, 2)),
            (.outsideMemory, 0, extent(1, 0, 257)),
            (.outsideMemory, 0, extent(0, .max, 1)),
            (.outsideMemory, 0, extent(0, .max, .max)),
            (.outsideMemory, 0, extent(0, 1, .max)),
            (.outsideMemory, 0, extent(0, 1 << 63, 1)),
            (.crossesStripe, 8, extent(0, 255, 2)),
            (.crossesStripe, 8, extent(0, 0, 257)),
            (.crossesStripe, 8, extent(0, 1, 256)),
        ]
        for (index, (reason, offset, bytes)) in cases.enumerated() {
            let error = wireError { () throws(WireError) in try decodeExtent(bytes, layout) }
            #expect(error?.reason == reason && error?.offset == offset, "case \(index): \(error as Any)")
        }
    }

    /// Pages travel in frames of pages, and blocks of disks in frames of blocks.
    @Test func blocksAndPagesAreNotMixed() {
        let layout = MemoryLayoutTable(regionPages: [1000], disks: [500, 30], streams: 1)
        func extent(_ region: Int) -> [UInt8] {
            bytes(of: Extent(region: RegionIndex(region), firstPage: PageIndex(29), pageCount: PageCount(1), encoding: .raw))
        }
        for (region, kind, reason) in [
            (0, FrameKind.pages, nil), (1, .pages, WireError.Reason.badRegion), (0, .blocks, .badRegion), (1, .blocks, nil), (2, .blocks, nil),
            (3, .blocks, .badRegion),
        ] {
            let error = wireError { () throws(WireError) in try decodeExtent(extent(region), layout, of: kind) }
            #expect(error?.reason == reason, "region \(region) in \(kind)")
        }
    }

    @Test func whatIsCutIsAnError() {
        let header = bytes(of: FrameHeader(kind: .pages, extentCount: 1, sequence: 0, payloadBytes: 4096, round: 0))
        for count in 0..<FrameHeader.bytes {
            #expect(wireError { () throws(WireError) in try decodeHeader(Array(header.prefix(count))) }?.reason == .truncated)
        }
        let extent = bytes(of: Extent(region: RegionIndex(0), firstPage: PageIndex(0), pageCount: PageCount(1), encoding: .raw))
        let layout = MemoryLayoutTable(regionPages: [1], streams: 1)
        for count in 0..<Extent.bytes {
            #expect(wireError { () throws(WireError) in try decodeExtent(Array(extent.prefix(count)), layout) }?.reason == .truncated)
        }
        #expect(
            wireError { () throws(WireError) in try Extent.decode(extent.span.bytes, at: 1, layout: layout, stream: 0) }?.reason
                == .truncated)
    }

    @Test(arguments: UInt64(0)..<10)
    func flippedBitsNeverTrapAndNeverReachOutside(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let layout = MemoryLayoutTable(regionPages: [1000, 256, 1], streams: 3)
        let extent = bytes(of: Extent(region: RegionIndex(1), firstPage: PageIndex(3), pageCount: PageCount(5), encoding: .raw))
        for _ in 0..<2000 {
            var header = bytes(of: randomHeader(&generator)), flipped = extent
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                header[Int.random(in: header.indices, using: &generator)] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
                flipped[Int.random(in: flipped.indices, using: &generator)] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
            }
            if let read = try? decodeHeader(header) {
                #expect(read.payloadBytes <= Limits.framePayloadBytes && read.extentCount <= Limits.frameExtents, "seed \(seed)")
                #expect(read.offset + UInt64(read.payloadBytes) <= UInt64(Limits.deviceStateBytes), "seed \(seed)")
            }
            if let read = try? decodeExtent(flipped, layout, stream: 1) {
                #expect(read.firstPage.value + read.pageCount.value <= layout.pages(in: read.region.value), "seed \(seed)")
            }
        }
    }

    /// Every page has one stream, and streams share the stripes evenly.
    @Test(arguments: [1, 2, 5, Limits.streams])
    func stripesAreSharedEvenly(streams: Int) {
        let layout = MemoryLayoutTable(regionPages: [256 * 40 + 1, 256 * 7, 1, 1], streams: streams)
        var owned = [Int](repeating: 0, count: streams)
        for region in 0..<layout.regionCount {
            for stripe in 0..<layout.stripes(in: region) { owned[layout.stream(ofStripe: stripe, region: region)] += 1 }
        }
        #expect(owned.reduce(0, +) == 50)
        let spread: Int = owned.max()! - owned.min()!
        #expect(spread <= 4, "\(owned)")
    }
}

struct PrefaceTests {
    @Test(arguments: UInt64(0)..<20)
    func everyPrefaceComesBackAsItWas(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<20 {
            let preface = generator.preface()
            #expect(preface.encoded().count == Preface.bytes)
            #expect(try Preface.decode(preface.encoded()) == preface, "seed \(seed)")
        }
    }

    /// The format must not drift: these bytes are the protocol.
    @Test func aPrefaceIsTheseBytes() {
        let preface = Preface(
            role: .data, stream: 5, attachment: AttachmentID(high: 0x0102030405060708, low: 0x1112131415161718), lowestVersion: 1,
            highestVersion: 0x0203)
        let magic: [UInt8] = [0x54, 0x55, 0x52, 0x4e, 0x54, 0x42, 0x4c, 0x0a]
        let rest: [UInt8] = [1, 0, 3, 2, 1, 0, 5, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]
        #expect(preface.encoded() == magic + rest)
        // What this build greets with.
        let greeting: [UInt8] = [5, 0, 5, 0] + [UInt8](repeating: 0, count: 20)
        #expect(Preface(role: .control).encoded() == magic + greeting)
    }

    @Test func prefacesKeepToTheirBounds() {
        let good = Preface(role: .data, stream: UInt16(Limits.streams) - 1, attachment: .none).encoded()
        #expect(wireError { () throws(WireError) in try Preface.decode(good) } == nil)
        let cases: [(WireError.Reason, [UInt8])] = [
            (.badMagic, good.with(UInt8(0), at: 0)), (.badMagic, good.with(UInt8(13), at: 7)),
            (.unknownKind, good.with(UInt16(2), at: 12)), (.tooMany, good.with(UInt16(Limits.streams), at: 14)),
            (.trailingBytes, good + [0]),
        ]
        for (index, (reason, bytes)) in cases.enumerated() {
            #expect(wireError { () throws(WireError) in try Preface.decode(bytes) }?.reason == reason, "case \(index)")
        }
        for count in 0..<Preface.bytes {
            #expect(wireError { () throws(WireError) in try Preface.decode(Array(good.prefix(count))) }?.reason == .truncated)
        }
    }

    @Test(arguments: [(0, 4, false), (0, 5, true), (5, 5, true), (5, 9, true), (6, 9, false), (9, 0, false)] as [(UInt16, UInt16, Bool)])
    func theVersionMustBeCommon(lowest: UInt16, highest: UInt16, isFine: Bool) {
        let error = wireError { () throws(WireError) in
            try Preface(role: .control, lowestVersion: lowest, highestVersion: highest).commonVersion()
        }
        #expect(error?.reason == (isFine ? nil : .unsupportedVersion))
    }

    /// A log tells sessions apart and lets nobody join one.
    @Test func aSessionIsNotPrintedWhole() {
        let session = AttachmentID(high: 0x0123456789abcdef, low: 0xfedcba9876543210)
        #expect(session.description == "1234567")
        #expect(SessionID.random() != SessionID.random())
    }
}

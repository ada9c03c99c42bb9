internal import TestSupport
internal import Testing
internal import TurntableCore
@testable internal import WireFormat

/// The stream of Xen's own helpers, record by record.
struct LibxcStreamTests {
    private static let headers = StreamGreeting(token: Array(1...16), port: 1, addresses: [], isLast: false).encoded().prefix(LibxcHeaders.bytes)
    /// Every type that there is, with its frame; those below 13 have a page.
    private static let entries: [UInt64] = [0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15].map { ($0 as UInt64) << 60 | 0xf_0000_0000_0000 | $0 }

    private func list(_ entries: [UInt64]) -> [UInt8] {
        var writer = MessageWriter()
        writer.append(UInt32(entries.count))
        writer.append(UInt32(0))
        for entry in entries { writer.append(entry) }
        return writer.bytes
    }

    private func decode(_ bytes: [UInt8], pages: Int, isOutline: Bool = false) throws(WireError) -> LibxcPageList {
        try LibxcPageList(decoding: bytes, of: LibxcRecord(type: 1, bodyBytes: bytes.count + pages * pageBytes), isOutline: isOutline)
    }

    @Test func headersOfVersionThreeAreTaken() throws { try LibxcHeaders.check(Array(Self.headers)) }

    /// Marker, name, version, options, page shift.
    @Test(arguments: [0, 9, 15, 17, 28]) func otherHeadersAreRefused(byte: Int) {
        var bytes = Array(Self.headers)
        bytes[byte] ^= 1
        #expect(throws: WireError.self) { try LibxcHeaders.check(bytes) }
    }

    @Test func headersThatAreCutAreRefused() {
        for count in 0..<LibxcHeaders.bytes { #expect(throws: WireError.self) { try LibxcHeaders.check(Array(Self.headers.prefix(count))) } }
    }

    @Test(arguments: [0, 1, 7, 8, 4096, Limits.libxcRecordBytes]) func aRecordsHeadComesBack(bodyBytes: Int) throws {
        for type: UInt32 in [2, 7, 0x10, 0x8000_0000] {
            let record = LibxcRecord(type: type, bodyBytes: bodyBytes)
            #expect(try LibxcRecord(decoding: record.encoded()) == record)
            #expect(record.paddedBytes % 8 == 0 && record.paddedBytes - bodyBytes < 8 && record.paddedBytes >= bodyBytes)
            #expect(!record.isEnd && !record.isPages)
        }
    }

    @Test func aRecordThatIsTooLongOrCutIsRefused() {
        let tooLong = LibxcRecord(type: 2, bodyBytes: Limits.libxcRecordBytes + 1).encoded()
        #expect(throws: WireError.self) { try LibxcRecord(decoding: tooLong) }
        #expect(throws: WireError.self) { try LibxcRecord(decoding: Array(tooLong.prefix(7))) }
        #expect(throws: WireError.self) { try LibxcRecord(decoding: LibxcRecord(type: 0, bodyBytes: 8).encoded()) }
    }

    @Test func aListWithEveryTypeComesBack() throws {
        let bytes = list(Self.entries)
        #expect(try LibxcPageList.entriesBytes(after: Array(bytes.prefix(LibxcPageList.headBytes))) == bytes.count - LibxcPageList.headBytes)
        let found = try decode(bytes, pages: 9)
        #expect(found.pageCount == 9)
        #expect(Self.entries.indices.map(found.hasPage) == [Bool](repeating: true, count: 9) + [false, false, false])
        #expect(found.encoded(isOutline: false) == bytes && found.encoded(isOutline: true) == bytes)
    }

    @Test func zeroPagesAreMarkedInTheOutlineOnly() throws {
        let bytes = list(Self.entries)
        var found = try decode(bytes, pages: 9)
        found.markZero(3)
        #expect(found.encoded(isOutline: false) == bytes)
        let outline = found.encoded(isOutline: true)
        let there = try decode(outline, pages: 9, isOutline: true)
        #expect(Self.entries.indices.filter(there.isZero) == [3])
        #expect(there.encoded(isOutline: false) == bytes)
        // Xen's own stream has no such mark, and what has no page is not zero.
        #expect(throws: WireError.self) { try decode(outline, pages: 9) }
        #expect(throws: WireError.self) { try decode(list([15 << 60 | 1 << 52]), pages: 0, isOutline: true) }
    }

    @Test(arguments: [5, 6, 7, 8] as [UInt64]) func unknownTypesAreRefused(type: UInt64) {
        #expect(throws: WireError.self) { try decode(list([type << 60]), pages: 1) }
    }

    @Test(arguments: 53...59) func reservedBitsAreRefused(bit: Int) {
        #expect(throws: WireError.self) { try decode(list([1 << UInt64(bit)]), pages: 1, isOutline: true) }
    }

    @Test func countsOutsideTheLimitAreRefused() {
        for count: UInt32 in [0, UInt32(Limits.libxcPages) + 1, .max] {
            var writer = MessageWriter()
            writer.append(count)
            writer.append(UInt32(0))
            #expect(throws: WireError.self) { try LibxcPageList.entriesBytes(after: writer.bytes) }
        }
        var head = list([0]).prefix(8)
        head[4] = 1
        #expect(throws: WireError.self) { try LibxcPageList.entriesBytes(after: Array(head)) }
    }

    @Test func aListThatIsNotAsLongAsItSaysIsRefused() {
        let bytes = list(Self.entries)
        for count in 0..<bytes.count { #expect(throws: WireError.self) { try decode(Array(bytes.prefix(count)), pages: 9) } }
        #expect(throws: WireError.self) { try decode(bytes + [0], pages: 9) }
        // And a record that has another number of pages than its list.
        for pages in [0, 8, 10] { #expect(throws: WireError.self) { try decode(bytes, pages: pages) } }
    }

    /// Whatever comes gives a list that is written as it was read, or an error.
    @Test(arguments: 1...20) func noBytesAreTooStrange(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            var bytes = list((0..<Int.random(in: 1...8, using: &generator)).map { _ in generator.next() & 0xf01f_ffff_ffff_ffff })
            if Bool.random(using: &generator) { bytes[Int.random(in: bytes.indices, using: &generator)] = UInt8.random(in: 0...255, using: &generator) }
            let pages = Int.random(in: 0...8, using: &generator)
            if let found = try? decode(bytes, pages: pages, isOutline: true) {
                #expect(found.encoded(isOutline: true) == bytes, "seed \(seed)")
                #expect(found.pageCount == pages, "seed \(seed)")
            }
        }
    }
}

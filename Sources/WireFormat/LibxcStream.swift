// What Xen's own save helper writes and its restore helper reads: libxc's migration stream, version 3 (Xen's
// docs/specs/libxc-migration-stream.pandoc). Integers are little-endian, but for the image header's.
//
//   stream = image header (24 bytes) | domain header (16 bytes) | records, END last
//   record = type u32 | body bytes u32 | body | zeroes up to a multiple of 8
//   PAGES  = count u32 | 0 u32 | entries, each u64 | a page of 4 KiB for each entry whose type has one
//   entry  = type (bits 63 to 60) | 0 (bits 59 to 52) | frame (bits 51 to 0)
//
// Our outline of a stream is the stream without its pages. Bit 52 of an entry says there that its page is all zero; the other pages travel
// beside it, in the stream's order. Stream and outline tell the same: records have the lengths that they have in the stream.

internal import TurntableCore

/// The two headers that a stream begins with.
package enum LibxcHeaders {
    package static let bytes = StreamGreeting.headerBytes

    /// An error unless they are those of a stream that is read here: of version 3, with pages of 4 KiB.
    package static func check(_ bytes: [UInt8]) throws(WireError) {
        var reader = MessageReader(bytes)
        let marker: UInt64 = try reader.read()
        let name = UInt32(bigEndian: try reader.read())
        guard marker == .max, name == 0x5845_4e46 else { throw WireError(.badMagic, value: UInt64(name), limit: 0x5845_4e46, offset: 8) }
        let version = UInt32(bigEndian: try reader.read())
        guard version == 3 else { throw WireError(.unsupportedVersion, value: UInt64(version), limit: 3, offset: 12) }
        let options: UInt16 = try reader.read()
        guard options == 0 else { throw WireError(.reservedNotZero, value: UInt64(options), limit: 0, offset: 16) }
        _ = try reader.read(raw: 6 + 4)
        let pageShift: UInt16 = try reader.read()
        guard pageShift == 12 else { throw WireError(.unknownKind, value: UInt64(pageShift), limit: 12, offset: 28) }
        _ = try reader.read(raw: 2 + 8)
        try reader.end()
    }
}

/// How a record begins.
package struct LibxcRecord: Equatable {
    package static let headBytes = 8
    static let end: UInt32 = 0
    static let pages: UInt32 = 1

    package var type: UInt32
    package var bodyBytes: Int

    package init(type: UInt32, bodyBytes: Int) { (self.type, self.bodyBytes) = (type, bodyBytes) }

    package init(decoding head: [UInt8]) throws(WireError) {
        var reader = MessageReader(head)
        type = try reader.read()
        bodyBytes = try reader.readCount(atMost: Limits.libxcRecordBytes)
        try reader.end()
        guard !isEnd || bodyBytes == 0 else { throw WireError(.tooLong, value: UInt64(bodyBytes), limit: 0, offset: 4) }
    }

    package func encoded() -> [UInt8] {
        var writer = MessageWriter()
        writer.append(type)
        writer.append(UInt32(bodyBytes))
        return writer.bytes
    }

    /// Nothing follows it.
    package var isEnd: Bool { type == Self.end }
    package var isPages: Bool { type == Self.pages }
    /// The body with the zeroes after it.
    package var paddedBytes: Int { (bodyBytes + 7) / 8 * 8 }
}

/// What a PAGES record says before its pages.
package struct LibxcPageList: Equatable {
    /// Count and reserved field.
    package static let headBytes = 8
    private static let entryBytes = 8
    private static let zeroMark: UInt64 = 1 << 52
    private static let reserved: UInt64 = 0xff << 52

    package private(set) var entries: [UInt64]
    /// Entries that have a page, whether or not it is zero.
    package let pageCount: Int

    /// The bytes of the entries that follow a list's first ``headBytes``.
    package static func entriesBytes(after head: [UInt8]) throws(WireError) -> Int {
        var reader = MessageReader(head)
        let count: UInt32 = try reader.read()
        guard (1...Limits.libxcPages).contains(Int(count)) else {
            throw WireError(.tooMany, value: UInt64(count), limit: UInt64(Limits.libxcPages), offset: 0)
        }
        let zero: UInt32 = try reader.read()
        guard zero == 0 else { throw WireError(.reservedNotZero, value: UInt64(zero), limit: 0, offset: 4) }
        try reader.end()
        return Int(count) * entryBytes
    }

    /// - Parameters:
    ///   - bytes: the list's head and its entries.
    ///   - isOutline: pages may be marked as zero.
    package init(decoding bytes: [UInt8], of record: LibxcRecord, isOutline: Bool) throws(WireError) {
        guard try Self.entriesBytes(after: Array(bytes.prefix(Self.headBytes))) == bytes.count - Self.headBytes else {
            throw WireError(.truncated, value: UInt64(bytes.count), limit: UInt64(bytes.count), offset: 0)
        }
        var reader = MessageReader(bytes)
        _ = try reader.read(raw: Self.headBytes)
        entries = []
        entries.reserveCapacity(bytes.count / Self.entryBytes)
        var pages = 0
        while reader.offset < bytes.count {
            let offset = reader.offset
            let entry: UInt64 = try reader.read()
            let hasPage = try Self.hasPage(entry, at: offset)
            let allowed = isOutline && hasPage ? Self.zeroMark : 0
            guard entry & Self.reserved & ~allowed == 0 else { throw WireError(.reservedNotZero, value: entry, limit: 0, offset: offset) }
            entries.append(entry)
            pages += hasPage ? 1 : 0
        }
        pageCount = pages
        let wanted = bytes.count + pages * pageBytes
        guard record.bodyBytes == wanted else { throw WireError(.badPayload, value: UInt64(record.bodyBytes), limit: UInt64(wanted), offset: 4) }
    }

    private static func hasPage(_ entry: UInt64, at offset: Int) throws(WireError) -> Bool {
        switch entry >> 60 {
        // Ordinary; page tables of level 1 to 4; the same, pinned.
        case 0, 1...4, 9...12: return true
        // Broken; to be allocated only; not there any more.
        case 13, 14, 15: return false
        default: throw WireError(.unknownKind, value: entry >> 60, limit: 15, offset: offset)
        }
    }

    package func frame(_ index: Int) -> UInt64 { entries[index] & (1 << 52 - 1) }
    /// Those that have a page.
    package var frames: some Sequence<UInt64> { entries.indices.lazy.filter(hasPage).map(frame) }
    package func hasPage(_ index: Int) -> Bool { entries[index] >> 60 < 13 }
    package func isZero(_ index: Int) -> Bool { entries[index] & Self.zeroMark != 0 }
    package mutating func markZero(_ index: Int) { entries[index] |= Self.zeroMark }

    /// Head and entries.
    /// - Parameter isOutline: with the marks of zero pages.
    package func encoded(isOutline: Bool) -> [UInt8] {
        var writer = MessageWriter()
        writer.append(UInt32(entries.count))
        writer.append(UInt32(0))
        for entry in entries { writer.append(isOutline ? entry : entry & ~Self.zeroMark) }
        return writer.bytes
    }
}

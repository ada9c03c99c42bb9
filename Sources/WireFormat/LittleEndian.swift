// Little-endian integers in raw bytes. The spans check bounds; integers have no invalid bit patterns.

extension RawSpan {
    func load<Value: FixedWidthInteger & BitwiseCopyable>(at offset: Int) -> Value {
        Value(littleEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: Value.self))
    }
}

extension MutableRawSpan {
    mutating func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: Value.self)
    }
}

/// Appends the fields of a control message.
struct MessageWriter {
    private(set) var bytes: [UInt8] = []

    mutating func append<Value: FixedWidthInteger>(_ value: Value) {
        for shift in stride(from: 0, to: Value.bitWidth, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> Value(shift))) }
    }
    mutating func append(raw: [UInt8]) { bytes += raw }
    mutating func append(bytes value: [UInt8]) {
        append(UInt32(value.count))
        bytes += value
    }
    mutating func append(text: String) { append(bytes: Array(text.utf8)) }
    mutating func append(flag: Bool) { append(UInt8(flag ? 1 : 0)) }
    mutating func append(counts: [UInt64]) {
        append(UInt32(counts.count))
        for count in counts { append(count) }
    }
    mutating func append<Named>(_ identifier: RandomID<Named>) {
        append(identifier.high)
        append(identifier.low)
    }
}

/// Reads the fields of a control message; every length is checked against what is there and against its limit.
struct MessageReader {
    private let bytes: [UInt8]
    private(set) var offset = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func read<Value: FixedWidthInteger>(_: Value.Type = Value.self) throws(WireError) -> Value {
        let size = Value.bitWidth / 8
        try need(size)
        var value: Value = 0
        for index in 0..<size { value |= Value(truncatingIfNeeded: bytes[offset + index]) << Value(index * 8) }
        offset += size
        return value
    }

    mutating func read(raw count: Int) throws(WireError) -> [UInt8] {
        try need(count)
        defer { offset += count }
        return Array(bytes[offset..<offset + count])
    }

    mutating func readBytes(atMost limit: Int) throws(WireError) -> [UInt8] {
        let count = try readCount(atMost: limit)
        return try read(raw: count)
    }

    mutating func readText(atMost limit: Int) throws(WireError) -> String {
        let start = offset
        guard let text = String(validating: try readBytes(atMost: limit), as: UTF8.self) else {
            throw WireError(.badText, value: 0, limit: 0, offset: start)
        }
        return text
    }

    mutating func readCount(atMost limit: Int) throws(WireError) -> Int {
        let start = offset
        let count: UInt32 = try read()
        guard count <= limit else { throw WireError(.tooLong, value: UInt64(count), limit: UInt64(limit), offset: start) }
        return Int(count)
    }

    mutating func readFlag() throws(WireError) -> Bool {
        let start = offset
        let value: UInt8 = try read()
        guard value <= 1 else { throw WireError(.unknownKind, value: UInt64(value), limit: 1, offset: start) }
        return value == 1
    }

    /// One of an enumeration's values, which are `0...most`.
    mutating func readEnum<Value: RawRepresentable>(atMost most: UInt8) throws(WireError) -> Value where Value.RawValue == UInt8 {
        let start = offset
        let raw: UInt8 = try read()
        guard let value = Value(rawValue: raw) else { throw WireError(.unknownKind, value: UInt64(raw), limit: UInt64(most), offset: start) }
        return value
    }

    mutating func readCounts(atMost limit: Int) throws(WireError) -> [UInt64] {
        var counts: [UInt64] = []
        for _ in 0..<(try readCount(atMost: limit)) { counts.append(try read()) }
        return counts
    }

    mutating func readID<Named>() throws(WireError) -> RandomID<Named> { RandomID(high: try read(), low: try read()) }

    func end() throws(WireError) {
        guard offset == bytes.count else { throw WireError(.trailingBytes, value: UInt64(bytes.count - offset), limit: 0, offset: offset) }
    }

    private func need(_ count: Int) throws(WireError) {
        guard count <= bytes.count - offset else {
            throw WireError(.truncated, value: UInt64(bytes.count - offset), limit: UInt64(count), offset: offset)
        }
    }
}

extension String {
    /// Shortened to at most `limit` bytes of UTF-8, at a character's end.
    func limited(to limit: Int) -> String {
        var text = self
        while text.utf8.count > limit { text.removeLast() }
        return text
    }
}

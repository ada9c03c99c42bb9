// The part of CBOR (RFC 8949) that tokens are made of: integers, byte and text strings, arrays, maps and tags, each in the one encoding
// that its section 4.2.1 allows: shortest heads, definite lengths, sorted keys. Everything else is refused, so that what was read is
// written as it was, and two tokens that say the same are the same bytes.

internal import TurntableCore

enum CBOR: Equatable, Sendable {
    case unsigned(UInt64)
    /// -1 - the value.
    case negative(UInt64)
    case bytes([UInt8])
    case text(String)
    case array([CBOR])
    case map([Pair])
    indirect case tagged(UInt64, CBOR)

    struct Pair: Equatable, Sendable {
        var key: CBOR
        var value: CBOR
    }

    // MARK: - Writing

    var encoded: [UInt8] {
        switch self {
        case .unsigned(let value): Self.head(0, value)
        case .negative(let value): Self.head(1, value)
        case .bytes(let bytes): Self.head(2, UInt64(bytes.count)) + bytes
        case .text(let text): Self.head(3, UInt64(text.utf8.count)) + text.utf8
        case .array(let items): Self.head(4, UInt64(items.count)) + items.flatMap(\.encoded)
        case .map(let pairs):
            Self.head(5, UInt64(pairs.count))
                + pairs.map { (key: $0.key.encoded, value: $0.value.encoded) }
                .sorted { $0.key.lexicographicallyPrecedes($1.key) }
                .flatMap { $0.key + $0.value }
        case .tagged(let tag, let value): Self.head(6, tag) + value.encoded
        }
    }

    private static func head(_ major: UInt8, _ value: UInt64) -> [UInt8] {
        func bytes(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) } }
        let first = major << 5
        return switch value {
        case 0..<24: [first | UInt8(value)]
        case 24..<0x100: [first | 24] + bytes(1)
        case 0x100..<0x1_0000: [first | 25] + bytes(2)
        case 0x1_0000..<0x1_0000_0000: [first | 26] + bytes(4)
        default: [first | 27] + bytes(8)
        }
    }

    // MARK: - Reading

    /// One item and nothing after it.
    static func decode(_ bytes: [UInt8]) throws(CBORError) -> CBOR {
        var reader = Reader(bytes: bytes)
        let item = try reader.item(depth: 0)
        guard reader.offset == bytes.count else { throw CBORError(.trailingBytes, at: reader.offset) }
        return item
    }

    private struct Reader {
        let bytes: [UInt8]
        var offset = 0

        static let mostDepth = 8

        mutating func item(depth: Int) throws(CBORError) -> CBOR {
            let start = offset
            guard depth < Self.mostDepth else { throw CBORError(.tooDeep, at: start) }
            let (major, value) = try head()
            switch major {
            case 0: return .unsigned(value)
            case 1: return .negative(value)
            case 2: return .bytes(Array(try take(value)))
            case 3:
                guard let text = String(validating: try take(value), as: UTF8.self) else { throw CBORError(.badText, at: start) }
                return .text(text)
            case 4:
                var items: [CBOR] = []
                for _ in 0..<(try count(value)) { items.append(try item(depth: depth + 1)) }
                return .array(items)
            case 5: return .map(try pairs(value, depth: depth + 1))
            default: return .tagged(value, try item(depth: depth + 1))
            }
        }

        private mutating func pairs(_ number: UInt64, depth: Int) throws(CBORError) -> [Pair] {
            var pairs: [Pair] = []
            var last: ArraySlice<UInt8>?
            for _ in 0..<(try count(number)) {
                let start = offset
                let key = try item(depth: depth)
                if let last, !last.lexicographicallyPrecedes(bytes[start..<offset]) { throw CBORError(.unsortedKeys, at: start) }
                last = bytes[start..<offset]
                pairs.append(Pair(key: key, value: try item(depth: depth)))
            }
            return pairs
        }

        private mutating func head() throws(CBORError) -> (major: UInt8, value: UInt64) {
            let start = offset
            let first = try take(1).first ?? 0
            let (major, short) = (first >> 5, first & 0x1f)
            guard major < 7, short < 28 else { throw CBORError(.notAllowed, at: start) }
            guard short >= 24 else { return (major, UInt64(short)) }
            let width = 1 << (short - 24)
            let value = try take(UInt64(width)).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            let least: UInt64 = short == 24 ? 24 : 1 << UInt64(4 * width)
            guard value >= least else { throw CBORError(.notShortest, at: start) }
            return (major, value)
        }

        /// Items that can follow: each has at least a byte.
        private func count(_ value: UInt64) throws(CBORError) -> Int {
            guard value <= UInt64(bytes.count - offset) else { throw CBORError(.truncated, at: offset) }
            return Int(value)
        }

        private mutating func take(_ number: UInt64) throws(CBORError) -> ArraySlice<UInt8> {
            let end = offset + (try count(number))
            defer { offset = end }
            return bytes[offset..<end]
        }
    }
}

/// What is not the CBOR that tokens are made of, and where.
struct CBORError: Error, Equatable, Sendable, CustomStringConvertible {
    enum Reason: String, Sendable {
        case truncated = "it is cut short"
        case trailingBytes = "there are bytes after its end"
        case notAllowed = "a float, a simple value or an indefinite length has no place in it"
        case notShortest = "a number is not in its shortest form"
        case unsortedKeys = "a map's keys are not sorted, or one is there twice"
        case tooDeep = "it is nested too deep"
        case badText = "a text is not UTF-8"
    }
    var reason: Reason
    var offset: Int
    init(_ reason: Reason, at offset: Int) {
        self.reason = reason
        self.offset = offset
    }
    var description: String { "\(reason.rawValue) (at byte \(offset))" }
}

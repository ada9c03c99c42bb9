internal import Foundation
internal import NIOCore
internal import TurntableCore

/// JSON as it is stored and sent: sorted members, times as RFC 3339.
enum JSON {
    static func encode(_ value: any Encodable) throws(TurntableError) -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.dateEncodingStrategy = .iso8601
        do { return try encoder.encode(value) } catch { throw TurntableError(.unsupported, "writing JSON", "\(error)") }
    }

    static func decode<Value: Decodable>(_ type: Value.Type, _ data: Data, _ what: String) throws(TurntableError) -> Value {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .custom { decoder in
            let container = try decoder.singleValueContainer()
            let text = try container.decode(String.self)
            guard let date = Date(exactly: text) else {
                throw DecodingError.dataCorruptedError(in: container, debugDescription: "it is no time such as 2026-01-31T22:00:00Z")
            }
            return date
        }
        do { return try decoder.decode(type, from: data) } catch let error as DecodingError {
            throw TurntableError(.protocol, what, explain(error))
        } catch {
            throw TurntableError(.protocol, what, "\(error)")
        }
    }

    private static func explain(_ error: DecodingError) -> String {
        func place(_ context: DecodingError.Context) -> String { context.codingPath.map(\.stringValue).joined(separator: ".") }
        return switch error {
        case .keyNotFound(let key, let context): "\(place(context))\(context.codingPath.isEmpty ? "" : ".")\(key.stringValue) is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context): "\(place(context)) has another type than it should"
        case .dataCorrupted(let context): "\(context.codingPath.isEmpty ? "it is no such JSON" : place(context)): \(context.debugDescription)"
        @unknown default: "it is no such JSON"
        }
    }
}

extension Date {
    /// A time in the one form in which it is written: the 31st of June is no day.
    init?(exactly text: String) {
        guard let date = try? Date(text, strategy: .iso8601), date.formatted(.iso8601) == text else { return nil }
        self = date
    }
}

/// Cuts what arrives in pieces into lines.
struct LineSplitter {
    /// Bytes of a line, at most.
    let most: Int
    private var rest: [UInt8] = []

    init(most: Int) { self.most = most }

    mutating func take(_ piece: ByteBuffer) throws(TurntableError) -> [Data] {
        var lines: [Data] = []
        for byte in piece.readableBytesView {
            if byte == UInt8(ascii: "\n") {
                lines.append(Data(rest))
                rest.removeAll(keepingCapacity: true)
            } else {
                rest.append(byte)
            }
        }
        guard rest.count <= most else { throw TurntableError(.protocol, "reading lines", "one has over \(ByteCount(most))") }
        return lines
    }
}

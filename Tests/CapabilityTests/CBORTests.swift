internal import Foundation
internal import TestSupport
internal import Testing
internal import TurntableCore
@testable internal import Capability

struct CBORTests {
    /// Of RFC 8949, appendix A, those that have a place here.
    @Test(arguments: [
        ("00", .unsigned(0)), ("17", .unsigned(23)), ("1818", .unsigned(24)), ("1903e8", .unsigned(1000)), ("1a000f4240", .unsigned(1_000_000)),
        ("1bffffffffffffffff", .unsigned(.max)), ("3903e7", .negative(999)), ("3bffffffffffffffff", .negative(.max)), ("4401020304", .bytes([1, 2, 3, 4])),
        ("6449455446", .text("IETF")), ("63e6b0b4", .text("\u{6c34}")), ("8301820203820405", .array([.unsigned(1), .array([.unsigned(2), .unsigned(3)]), .array([.unsigned(4), .unsigned(5)])])),
        ("a201020304", .map([.init(key: .unsigned(1), value: .unsigned(2)), .init(key: .unsigned(3), value: .unsigned(4))])), ("d74401020304", .tagged(23, .bytes([1, 2, 3, 4]))),
    ] as [(String, CBOR)]) func theStandardsExamples(_ hexadecimal: String, _ item: CBOR) throws {
        let bytes = stride(from: 0, to: hexadecimal.count, by: 2).map { UInt8(hexadecimal.dropFirst($0).prefix(2), radix: 16)! }
        #expect(item.encoded == bytes)
        #expect(try CBOR.decode(bytes) == item)
    }

    /// The fuzzer's corpus, without the fuzzer: each input gives claims or a typed error, and claims are written as they were read.
    @Test func corpus() throws {
        let expected = [
            "array": "no map", "bad-text": "UTF-8", "cut": "cut short", "deep": "nested", "delegated": "claims", "empty": "cut short", "float": "no place",
            "full": "claims", "huge-length": "cut short", "huge-map": "cut short", "indefinite": "no place", "least": "claims", "missing-claim": "machine",
            "not-shortest": "shortest", "not-shortest-key": "shortest", "number-too-large": "2^53", "short-id": "16 bytes", "space-in-name": "visible",
            "tag": "no map", "trailing": "after its end", "twice": "twice", "unknown-claim": "not known", "unsorted": "not sorted",
        ]
        let directory = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../perf/fuzz/corpus/Claims").standardizedFileURL
        var seen: Set<String> = []
        for name in try FileManager.default.contentsOfDirectory(atPath: directory.path) {
            let bytes = Array(try Data(contentsOf: directory.appending(path: name)))
            let outcome = outcome(of: bytes)
            seen.insert(name)
            if let wanted = expected[name] { #expect(outcome.contains(wanted), "\(name): \(outcome)") }
        }
        #expect(seen.isSuperset(of: expected.keys))
    }

    private func outcome(of bytes: [UInt8]) -> String {
        let item: CBOR
        do throws(CBORError) { item = try CBOR.decode(bytes) } catch { return error.description }
        #expect(item.encoded == bytes)
        do throws(CapabilityError) {
            let claims = try Claims(decoding: item)
            #expect(claims.encoded.encoded == bytes)
            return "claims"
        } catch {
            return error.why
        }
    }

    /// Changed everywhere, a token gives a token that is written as it was read, or a typed error.
    @Test func whatIsReadIsWrittenAsItWas() throws {
        let token = try Domains().token()
        var generator = SeededGenerator(seed: UInt64.random(in: 0 ... .max))
        let seed = generator
        var read = 0
        for _ in 0..<20_000 {
            var bytes = token.encoded
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let place = Int.random(in: bytes.indices, using: &generator)
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: bytes[place] = .random(in: .min ... .max, using: &generator)
                case 1: bytes.remove(at: place)
                default: bytes.insert(.random(in: .min ... .max, using: &generator), at: place)
                }
            }
            guard let changed = try? Capability(encoded: bytes) else { continue }
            read += 1
            #expect(changed.encoded == bytes, "\(seed)")
        }
        #expect(read > 100)
    }
}

internal import Foundation
internal import Testing
internal import TurntableCore

@testable import BlockDelta

/// The fuzzer's corpus, without the fuzzer: each input gives a set or a typed error.
struct CorpusTests {
    private func corpus(_ target: String) throws -> [(name: String, bytes: [UInt8])] {
        let directory = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../perf/fuzz/corpus/\(target)")
            .standardizedFileURL.path
        return try FileManager.default.contentsOfDirectory(atPath: directory).sorted().map {
            ($0, Array(try Data(contentsOf: URL(filePath: "\(directory)/\($0)"))))
        }
    }

    /// The areas follow the header without the data between them, as in the fuzz target.
    private func outcome(ofStore bytes: [UInt8]) -> String {
        do throws(ExceptionStoreError) {
            let header = try ExceptionStoreHeader(decoding: bytes)
            guard header.isValid else { return "invalid" }
            var reads = 0
            let changed = try changedChunks(
                inStoreOf: header.areaOffset(64), originBytes: ByteCount(4096 * header.chunkBytes), header: header,
                read: { (_, count) throws(ExceptionStoreError) in
                    let area = bytes.dropFirst(ExceptionStoreHeader.bytes + reads * count).prefix(count)
                    reads += 1
                    return Array(area) + [UInt8](repeating: 0, count: count - area.count)
                }, refuse: { $0 })
            return "\(changed.count)"
        } catch {
            return error.kind.rawValue
        }
    }

    @Test func exceptionStores() throws {
        let expected = [
            "beyond-origin": "oldChunk", "chunk-size": "chunkSize", "empty": "0", "in-area": "newChunk", "invalid": "invalid",
            "large-chunks": "2", "magic": "magic", "short": "short", "three": "3", "two-areas": "300", "version": "version",
        ]
        var seen: Set<String> = []
        for (name, bytes) in try corpus("ExceptionStore") {
            let outcome = outcome(ofStore: bytes)
            seen.insert(name)
            if let wanted = expected[name] { #expect(outcome == wanted, "\(name)") }
        }
        #expect(seen.isSuperset(of: expected.keys))
    }

    @Test func thinMappings() throws {
        let expected = [
            "beyond": "outOfRange", "cut": "cutOff", "delta": "4", "dump": "4", "element": "unexpectedElement", "empty": "cutOff",
            "large": "badBlockSize", "negative": "badNumber", "no-superblock": "noSuperblock",
        ]
        var seen: Set<String> = []
        for (name, bytes) in try corpus("ThinMappings") {
            var outcome: String
            do throws(ThinMappingError) {
                var reader = ThinMappingReader(size: .mebi(64))
                try reader.take(bytes)
                outcome = "\(try reader.finish().count)"
            } catch {
                outcome = error.kind.rawValue
            }
            seen.insert(name)
            if let wanted = expected[name] { #expect(outcome == wanted, "\(name)") }
        }
        #expect(seen.isSuperset(of: expected.keys))
    }
}

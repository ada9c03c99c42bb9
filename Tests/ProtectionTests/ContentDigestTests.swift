import Crypto
import Foundation
import TestSupport
import Testing
import TurntableCore
import WireFormat

@testable import Protection

@Suite struct ContentDigestTests {
    private func digest(_ page: [UInt8], _ session: SessionID) -> [UInt8] {
        let memory = AlignedBuffer(bytes: pageBytes)
        memory.bytes.copyBytes(from: page)
        var digest = [UInt8](repeating: 0xaa, count: OlderPages.digestBytes)
        digest.withUnsafeMutableBufferPointer { ContentDigest(of: session).of(memory.bytes.baseAddress!, into: $0.baseAddress!) }
        return digest
    }

    /// By swift-crypto's public interface, as docs/protocol.md says it.
    @Test(arguments: UInt64(1)...5)
    func aDigestIsWhatTheProtocolSays(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let page = generator.bytes(pageBytes)
        let session = SessionID(high: generator.next(), low: generator.next())
        var salted = withUnsafeBytes(of: session.high.littleEndian) { Array($0) } + withUnsafeBytes(of: session.low.littleEndian) { Array($0) }
        salted += SHA256.hash(data: page)
        #expect(digest(page, session) == Array(SHA256.hash(data: salted).prefix(16)))
    }

    @Test func aDigestIsOfItsSessionOnly() {
        var generator = SeededGenerator(seed: 7)
        let page = generator.bytes(pageBytes)
        let digests = (0..<50).map { digest(page, SessionID(high: 1, low: $0)) }
        #expect(Set(digests).count == 50)
        var other = page
        other[4095] ^= 1
        #expect(digest(other, SessionID(high: 1, low: 1)) != digests[1])
    }

    @Test func aPageOfZeroesIsToldByZeroes() {
        #expect(digest([UInt8](repeating: 0, count: pageBytes), SessionID(high: 3, low: 4)) == [UInt8](repeating: 0, count: 16))
    }
}

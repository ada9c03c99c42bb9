internal import Crypto
internal import Foundation
internal import Protection
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux

/// What the cipher of a stream promises, against swift-crypto's own AES-GCM.
struct FrameCipherTests {
    static let headerBytes = 32
    let key = SymmetricKey(data: (0..<32).map { UInt8($0) })

    /// A sealed frame: head (header, extents, tag) and payload (bytes, tag).
    struct Frame: Equatable {
        var head: [UInt8]
        var payload: [UInt8]
    }

    private func seal(_ cipher: FrameCipher, _ sequence: UInt64, _ head: [UInt8], _ payload: [UInt8], pieces: Int = 4096) -> Frame {
        var sealed = Frame(head: head + [UInt8](repeating: 0, count: 16), payload: payload + [UInt8](repeating: 0, count: 16))
        sealed.head.withUnsafeMutableBytes { bytes in
            let isSealed = cipher.head(
                of: sequence, UnsafeMutableRawBufferPointer(rebasing: bytes[..<head.count]), headerBytes: Self.headerBytes,
                tag: bytes.baseAddress! + head.count)
            #expect(isSealed)
        }
        cipher.beginPayload(of: sequence)
        sealed.payload.withUnsafeMutableBytes { bytes in
            for start in stride(from: 0, to: payload.count, by: pieces) {
                let address = bytes.baseAddress! + start
                cipher.payload(address, into: address, bytes: min(pieces, payload.count - start))
            }
            #expect(cipher.endPayload(tag: bytes.baseAddress! + payload.count))
        }
        return sealed
    }

    /// Nil if the head, or then the payload, is not genuine.
    private func open(_ cipher: FrameCipher, _ sequence: UInt64, _ frame: Frame) -> (head: [UInt8], payload: [UInt8]?)? {
        var frame = frame
        let headBytes = frame.head.count - 16, payloadBytes = frame.payload.count - 16
        let isGenuine = frame.head.withUnsafeMutableBytes { bytes in
            cipher.head(
                of: sequence, UnsafeMutableRawBufferPointer(rebasing: bytes[..<headBytes]), headerBytes: Self.headerBytes,
                tag: bytes.baseAddress! + headBytes)
        }
        guard isGenuine else { return nil }
        cipher.beginPayload(of: sequence)
        let isWhole = frame.payload.withUnsafeMutableBytes { bytes in
            cipher.payload(bytes.baseAddress!, into: bytes.baseAddress!, bytes: payloadBytes)
            return cipher.endPayload(tag: bytes.baseAddress! + payloadBytes)
        }
        return (Array(frame.head.prefix(headBytes)), isWhole ? Array(frame.payload.prefix(payloadBytes)) : nil)
    }

    @Test(arguments: [(0, 1), (1, 4096), (3, 12_288), (256, 1 << 20)])
    func isWhatSwiftCryptoMakes(extents: Int, payloadBytes: Int) throws {
        var generator = SeededGenerator(seed: UInt64(extents))
        let head = generator.bytes(Self.headerBytes + extents * 16), payload = generator.bytes(payloadBytes)
        let cipher = FrameCipher(key, for: .sealing)
        for sequence: UInt64 in [0, 1, 77] {
            let sealed = seal(cipher, sequence, head, payload)
            func nonce(_ number: UInt64) throws -> AES.GCM.Nonce {
                try AES.GCM.Nonce(data: (0..<12).map { $0 < 8 ? UInt8(truncatingIfNeeded: number >> (8 * UInt64($0))) : 0 })
            }
            let expectedHead = try AES.GCM.seal(
                head.dropFirst(Self.headerBytes), using: key, nonce: nonce(sequence * 2), authenticating: head.prefix(Self.headerBytes))
            #expect(sealed.head == Array(head.prefix(Self.headerBytes)) + Array(expectedHead.ciphertext) + Array(expectedHead.tag))
            let expectedPayload = try AES.GCM.seal(payload, using: key, nonce: nonce(sequence * 2 + 1))
            #expect(sealed.payload == Array(expectedPayload.ciphertext) + Array(expectedPayload.tag))
        }
    }

    @Test(arguments: [1, 4095, 4096, 65_536])
    func opensWhateverThePiecesWere(pieces: Int) throws {
        var generator = SeededGenerator(seed: 5)
        let head = generator.bytes(Self.headerBytes + 32), payload = generator.bytes(8192)
        let sealing = FrameCipher(key, for: .sealing), opening = FrameCipher(key, for: .opening)
        for sequence: UInt64 in 0..<3 {
            let opened = try #require(open(opening, sequence, seal(sealing, sequence, head, payload, pieces: pieces)))
            #expect(opened.head == head)
            #expect(opened.payload == payload)
        }
    }

    @Test func everyChangedBitIsFound() {
        let head = [UInt8](repeating: 7, count: Self.headerBytes + 16), payload = [UInt8](repeating: 9, count: 64)
        let sealed = seal(FrameCipher(key, for: .sealing), 4, head, payload)
        for byte in sealed.head.indices {
            var changed = sealed
            changed.head[byte] ^= 1 << UInt8(byte % 8)
            #expect(open(FrameCipher(key, for: .opening), 4, changed) == nil, "byte \(byte) of the head")
        }
        for byte in sealed.payload.indices {
            var changed = sealed
            changed.payload[byte] ^= 1 << UInt8(byte % 8)
            let opened = open(FrameCipher(key, for: .opening), 4, changed)
            #expect(opened != nil && opened?.payload == nil, "byte \(byte) of the payload")
        }
    }

    @Test func framesOpenOnlyInTheirPlace() {
        let head = [UInt8](repeating: 7, count: Self.headerBytes), payload = [UInt8](repeating: 9, count: 64)
        let sealing = FrameCipher(key, for: .sealing)
        let frames = (0..<3).map { seal(sealing, UInt64($0), head, payload) }
        for sequence in 0..<3 {
            for (index, frame) in frames.enumerated() {
                #expect((open(FrameCipher(key, for: .opening), UInt64(sequence), frame) != nil) == (index == sequence))
            }
            // The payload of another frame behind this one's head.
            let mixed = Frame(head: frames[sequence].head, payload: frames[(sequence + 1) % 3].payload)
            #expect(open(FrameCipher(key, for: .opening), UInt64(sequence), mixed)?.payload == nil)
        }
        let other = FrameCipher(SymmetricKey(size: .bits256), for: .opening)
        #expect(open(other, 0, frames[0]) == nil)
    }

    @Test func keysChangeAtBothEndsAlikeAndNothingIsSealedAlikeTwice() throws {
        let head = [UInt8](repeating: 0, count: Self.headerBytes + 16), payload = [UInt8](repeating: 0, count: 64)
        let sealing = FrameCipher(key, for: .sealing, framesPerKey: 3), opening = FrameCipher(key, for: .opening, framesPerKey: 3)
        let unchanged = FrameCipher(key, for: .opening)
        var seen: Set<[UInt8]> = []
        for sequence: UInt64 in 0..<20 {
            let sealed = seal(sealing, sequence, head, payload)
            #expect(seen.insert(sealed.payload).inserted)
            #expect(open(opening, sequence, sealed)?.payload == payload)
            #expect((open(unchanged, sequence, sealed) != nil) == (sequence < 3), "frame \(sequence) under the first key")
        }
    }

    /// The dirty rule lets pages change while they are read.
    @Test func pagesThatChangeWhileTheyAreSealedOpenAsSomethingThatWasThere() throws {
        let bytes = 1 << 20
        let guest = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 4096)
        let sealed = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 4096)
        defer {
            guest.deallocate()
            sealed.deallocate()
        }
        guest.initializeMemory(as: UInt8.self, repeating: 0)
        let isOver = Monitor(false)
        let address = UInt(bitPattern: guest.baseAddress!)
        let writer = WorkerThread("writer") {
            var value: UInt8 = 0
            while !isOver.read({ $0 }) {
                value &+= 1
                memset(UnsafeMutableRawPointer(bitPattern: address)!, Int32(value), bytes)
            }
        }
        let sealing = FrameCipher(key, for: .sealing), opening = FrameCipher(key, for: .opening)
        var tag = [UInt8](repeating: 0, count: 16)
        for sequence: UInt64 in 0..<100 {
            for cipher in [sealing, opening] { cipher.beginPayload(of: sequence) }
            sealing.payload(guest.baseAddress!, into: sealed.baseAddress!, bytes: bytes)
            tag.withUnsafeMutableBytes { #expect(sealing.endPayload(tag: $0.baseAddress!)) }
            opening.payload(sealed.baseAddress!, into: sealed.baseAddress!, bytes: bytes)
            tag.withUnsafeMutableBytes { #expect(opening.endPayload(tag: $0.baseAddress!)) }
        }
        isOver.update { $0 = true }
        writer.join()
    }
}

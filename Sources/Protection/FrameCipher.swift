// AES-256-GCM for the frames of one stream in one direction (NIST SP 800-38D).
//
//   sealed frame = header, clear | extents, sealed | tag | payload, sealed | tag
//
// The first tag authenticates header and extents, so that a receiver knows where the payload belongs, and how long it is,
// before it writes a byte of it. A frame without payload has no second tag.
//
// Nonces cannot repeat: head and payload of frame n have the numbers 2n and 2n + 1, a stream numbers its frames from 0
// without a gap, and its key is of one attachment alone. For the same reason a frame that is replayed, left out or moved
// does not open. After Limits.framesPerKey frames both ends derive the next key from the last.

internal import CTurntableCipher
public import Crypto
internal import Foundation
public import TurntableCore

/// One thread's. Nothing is allocated but at a change of keys.
@safe public final class FrameCipher: @unchecked Sendable {
    public enum Use: Sendable {
        case sealing
        case opening
    }
    public static let tagBytes = Int(TT_CIPHER_TAG_BYTES)

    private let use: Int32
    private let framesPerKey: UInt64
    private var key: SymmetricKey
    private var generation: UInt64 = 0
    private let context: UnsafeMutableRawPointer

    public init(_ key: SymmetricKey, for use: Use, framesPerKey: UInt64 = Limits.framesPerKey) {
        precondition(key.bitCount == Int(TT_CIPHER_KEY_BYTES) * 8)
        self.key = key
        self.use = use == .sealing ? 1 : 0
        self.framesPerKey = framesPerKey
        guard let context = unsafe tt_cipher_new() else { preconditionFailure("no memory for a cipher") }
        unsafe self.context = context
        setKey()
    }

    deinit { unsafe tt_cipher_free(context) }

    /// Seals or opens the extents that follow the header in `head`, in place. Sealing writes `tag`; opening says whether
    /// header and extents are what was sealed as this frame.
    public func head(
        of sequence: UInt64, _ head: UnsafeMutableRawBufferPointer, headerBytes: Int, tag: UnsafeMutableRawPointer
    ) -> Bool {
        changeKey(for: sequence)
        begin(sequence * 2)
        let extents = unsafe head.baseAddress! + headerBytes
        must(unsafe tt_cipher_authenticate(context, head.baseAddress!, headerBytes, use))
        must(unsafe tt_cipher_update(context, extents, extents, head.count - headerBytes, use))
        return unsafe finish(tag)
    }

    /// Before the first ``payload(_:into:bytes:)`` of the frame whose head was the last.
    public func beginPayload(of sequence: UInt64) { begin(sequence * 2 + 1) }

    /// Seals or opens the next bytes, in place or into memory that does not overlap.
    ///
    /// Sealing reads each byte once and authenticates what it wrote, so pages may change meanwhile: what is sent is torn,
    /// which is legal (DirtyLog), and opens all the same.
    public func payload(_ input: UnsafeRawPointer, into output: UnsafeMutableRawPointer, bytes: Int) {
        must(unsafe tt_cipher_update(context, input, output, bytes, use))
    }

    /// As for ``head(of:_:headerBytes:tag:)``. What was opened is not to be believed before this is true.
    public func endPayload(tag: UnsafeMutableRawPointer) -> Bool { unsafe finish(tag) }

    private func finish(_ tag: UnsafeMutableRawPointer) -> Bool {
        let tag = unsafe tag.assumingMemoryBound(to: UInt8.self)
        guard use == 1 else { return unsafe tt_cipher_finish_opening(context, tag) == 1 }
        must(unsafe tt_cipher_finish_sealing(context, tag))
        return true
    }

    private func begin(_ number: UInt64) {
        var nonce: (UInt64, UInt32) = (number.littleEndian, 0)
        let result = unsafe withUnsafeBytes(of: &nonce) {
            unsafe tt_cipher_begin(context, $0.baseAddress!.assumingMemoryBound(to: UInt8.self), use)
        }
        must(result)
    }

    private func changeKey(for sequence: UInt64) {
        while sequence / framesPerKey > generation {
            key = HKDF<SHA256>.expand(pseudoRandomKey: key, info: Data("turntable next key".utf8), outputByteCount: key.bitCount / 8)
            generation += 1
            setKey()
        }
    }

    private func setKey() {
        let result = unsafe key.withUnsafeBytes {
            unsafe tt_cipher_set_key(context, $0.baseAddress!.assumingMemoryBound(to: UInt8.self), use)
        }
        must(result)
    }

    /// The library refuses only what it is not made for.
    private func must(_ result: Int32) { precondition(result == 1, "the cipher refused a call") }
}

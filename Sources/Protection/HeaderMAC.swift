// The short MAC by which link elements know the frames of a stream, without a look at what they carry: the first 8 bytes of GMAC (NIST
// SP 800-38D: AES-256-GCM with nothing encrypted) over the header, the nonce being the frame's number. A connection has a key of its own
// and numbers its frames from 0, so no nonce repeats; an element ends a connection at the first mark that is wrong, so nobody tries twice.

internal import CTurntableCipher
public import Crypto

/// One thread's. Nothing is allocated after its beginning.
@safe public final class HeaderMAC: @unchecked Sendable {
    private let context: UnsafeMutableRawPointer

    public init(_ key: SymmetricKey) {
        precondition(key.bitCount == Int(TT_CIPHER_KEY_BYTES) * 8)
        guard let context = unsafe tt_cipher_new() else { preconditionFailure("no memory for a cipher") }
        unsafe self.context = context
        let result = unsafe key.withUnsafeBytes {
            unsafe tt_cipher_set_key(context, $0.baseAddress!.assumingMemoryBound(to: UInt8.self), 1)
        }
        must(result)
    }

    deinit { unsafe tt_cipher_free(context) }

    /// Of the first `bytes` of frame `sequence`.
    public func mark(of sequence: UInt64, _ header: UnsafeRawPointer, bytes: Int) -> UInt64 {
        var nonce: (UInt64, UInt32) = (sequence.littleEndian, 0)
        must(unsafe withUnsafeBytes(of: &nonce) { unsafe tt_cipher_begin(context, $0.baseAddress!.assumingMemoryBound(to: UInt8.self), 1) })
        must(unsafe tt_cipher_authenticate(context, header, bytes, 1))
        var tag: (UInt64, UInt64) = (0, 0)
        must(unsafe withUnsafeMutableBytes(of: &tag) { unsafe tt_cipher_finish_sealing(context, $0.baseAddress!.assumingMemoryBound(to: UInt8.self)) })
        return UInt64(littleEndian: tag.0)
    }

    private func must(_ result: Int32) { precondition(result == 1, "the cipher refused a call") }
}

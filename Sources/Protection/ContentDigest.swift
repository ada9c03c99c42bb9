internal import CTurntableCipher
internal import TurntableCore
internal import TurntableLinux
public import WireFormat

/// Names the content of a page so that two hosts can tell whether they hold the same, and nobody can make two that are named alike: the first
/// 16 bytes of SHA-256 over a salt and SHA-256 (FIPS 180-4) over the page. The salt is the session, which nobody knows before.
public struct ContentDigest: Sendable {
    private let salt: [UInt8]

    public init(of session: SessionID) {
        salt = unsafe withUnsafeBytes(of: (session.high.littleEndian, session.low.littleEndian)) { unsafe Array($0) }
    }

    /// Writes a digest of ``OlderPages/digestBytes`` to `digest`: zeroes for a page that is all zero.
    public func of(_ page: UnsafeRawPointer, into digest: UnsafeMutablePointer<UInt8>) {
        if unsafe isZero(page, bytes: pageBytes) {
            unsafe digest.update(repeating: 0, count: OlderPages.digestBytes)
        } else {
            unsafe tt_salted_digest(salt, page, pageBytes, digest)
        }
    }
}

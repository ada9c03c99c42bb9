// What an attachment's data streams are protected with: a secret that both ends of its control stream agree on inside TLS.
//
//   source ─ control preface, TLS 1.3 with both certificates ─▶ target
//   target ─ Welcome: a fresh X25519 key, the attachment's 128 random bits ─▶ source
//   source ─ Keys: a key encapsulated for it, a nonce ─▶ target
//   secret = the HPKE context's export (RFC 9180, 5.3), its info being a digest of the preface, the Welcome,
//            both certificates and the nonce
//
// So the secret is bound to that control stream: nobody who did not take part in its TLS session, with these certificates,
// knows it. Each stream proves with it that it belongs to the attachment, and is sealed under a key of its own
// (HKDF-SHA-256, RFC 5869).

public import Crypto
internal import Foundation
public import TurntableCore
public import WireFormat

public struct SessionSecret: Sendable {
    private let secret: SymmetricKey

    public static let proofBytes = 32

    /// What both ends must have seen alike.
    public struct Transcript: Sendable {
        public var preface: Preface
        public var welcome: Welcome
        /// DER of the leaf certificates.
        public var sourceCertificate: [UInt8]
        public var targetCertificate: [UInt8]
        public init(preface: Preface, welcome: Welcome, sourceCertificate: [UInt8], targetCertificate: [UInt8]) {
            self.preface = preface
            self.welcome = welcome
            self.sourceCertificate = sourceCertificate
            self.targetCertificate = targetCertificate
        }

        fileprivate func digest(_ sourceNonce: [UInt8]) -> Data {
            var hash = SHA256()
            hash.update(data: Array("turntable session 1\n".utf8))
            // Each digest has one length, so no two transcripts have the same bytes.
            for part in [preface.encoded(), ControlMessage.welcome(welcome).encoded(), sourceCertificate, targetCertificate, sourceNonce] {
                hash.update(data: Data(SHA256.hash(data: part)))
            }
            return Data(hash.finalize())
        }
    }

    /// The source's part: the secret, and what lets the target compute it.
    public static func forTarget(_ transcript: Transcript) throws(TurntableError) -> (SessionSecret, Keys) {
        do {
            let nonce = (0..<32).map { _ in UInt8.random(in: .min ... .max) }
            let target = try Curve25519.KeyAgreement.PublicKey(rawRepresentation: transcript.welcome.keyShare)
            let sender = try HPKE.Sender(recipientKey: target, ciphersuite: suite, info: transcript.digest(nonce))
            let secret = SessionSecret(secret: try sender.exportSecret(context: exported, outputByteCount: 32))
            return (secret, Keys(encapsulated: Array(sender.encapsulatedKey), nonce: nonce))
        } catch {
            throw TurntableError(.protocol, "agreeing on keys with the target", "its key is none (\(error))")
        }
    }

    public func key(forStream stream: Int) -> SymmetricKey { derive("turntable pages \(stream) source to target") }

    /// What the preface of a data stream is followed by.
    public func proof(of preface: Preface) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: preface.encoded(), using: proofKey))
    }

    public func verifies(_ proof: [UInt8], of preface: Preface) -> Bool {
        HMAC<SHA256>.isValidAuthenticationCode(proof, authenticating: preface.encoded(), using: proofKey)
    }

    private var proofKey: SymmetricKey { derive("turntable stream proof") }

    private func derive(_ purpose: String) -> SymmetricKey {
        HKDF<SHA256>.expand(pseudoRandomKey: secret, info: Data(purpose.utf8), outputByteCount: 32)
    }

    fileprivate init(secret: SymmetricKey) { self.secret = secret }

    /// A secret that two ends of a test share.
    public static func random() -> SessionSecret { SessionSecret(secret: SymmetricKey(size: .bits256)) }

    fileprivate static let suite = HPKE.Ciphersuite.Curve25519_SHA256_ChachaPoly
    fileprivate static let exported = Data("turntable data streams 1".utf8)
}

/// The target's part: a key that serves one attachment.
public struct KeyAgreement: Sendable {
    private let key = Curve25519.KeyAgreement.PrivateKey()

    public init() {}

    public var share: [UInt8] { Array(key.publicKey.rawRepresentation) }

    public func secret(_ keys: Keys, _ transcript: SessionSecret.Transcript) throws(TurntableError) -> SessionSecret {
        do {
            let recipient = try HPKE.Recipient(
                privateKey: key, ciphersuite: SessionSecret.suite, info: transcript.digest(keys.nonce),
                encapsulatedKey: Data(keys.encapsulated))
            return SessionSecret(secret: try recipient.exportSecret(context: SessionSecret.exported, outputByteCount: 32))
        } catch {
            throw TurntableError(.protocol, "agreeing on keys with the source", "its key is none (\(error))")
        }
    }
}

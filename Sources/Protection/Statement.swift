// A statement that somebody has to believe later, from a journal: bytes, signed by a host, with its certificate beside it.
//
//   signature = signatureBytes u16 | ECDSA P-256 over SHA-256, DER | the signer's certificate, DER

internal import Crypto
internal import Foundation
internal import SwiftASN1
public import TurntableCore
public import X509

public enum Statement {
    /// Signs `bytes` as this host. At most JournalRecord.signatureBytes, which a certificate with ordinary names leaves room for.
    public static func sign(_ bytes: [UInt8], as identity: HostIdentity) throws(TurntableError) -> [UInt8] {
        do {
            let signature = Array(try identity.key.signature(for: bytes).derRepresentation)
            var serializer = DER.Serializer()
            try serializer.serialize(identity.chain[0])
            return [UInt8(signature.count & 0xff), UInt8(signature.count >> 8)] + signature + serializer.serializedBytes
        } catch {
            throw TurntableError(.unsupported, "signing a statement", "\(error)")
        }
    }

    /// Who signed `bytes`; nil if nobody did whom an authority here vouches for directly.
    public static func signer(of bytes: [UInt8], _ signed: [UInt8], authorities: [Certificate]) -> CertificateNames? {
        guard let certificate = certificate(of: bytes, signed), authorities.contains(where: { isIssued(certificate, by: $0) }) else { return nil }
        return CertificateNames(certificate)
    }

    /// The certificate of whoever signed `bytes`, whose it says it is; nil if it is not its key that signed them.
    private static func certificate(of bytes: [UInt8], _ signed: [UInt8]) -> Certificate? {
        guard signed.count > 2 else { return nil }
        let count = Int(signed[0]) | Int(signed[1]) << 8
        guard 2 + count < signed.count,
            let signature = try? P256.Signing.ECDSASignature(derRepresentation: signed[2..<2 + count]),
            let certificate = try? Certificate(derEncoded: Array(signed[(2 + count)...])),
            let key = P256.Signing.PublicKey(certificate.publicKey),
            key.isValidSignature(signature, for: bytes)
        else { return nil }
        return certificate
    }

    /// Names the key that signed `bytes`, whoever vouches for it; nil if none did.
    package static func keyDigest(of bytes: [UInt8], _ signed: [UInt8]) -> [UInt8]? { certificate(of: bytes, signed).map(KeyDigest.of) }

    private static func isIssued(_ certificate: Certificate, by authority: Certificate) -> Bool {
        authority.subject == certificate.issuer && authority.publicKey.isValidSignature(certificate.signature, for: certificate)
    }
}

// The key with which a domain signs tokens (Ed25519), and what others trust it by. In a directory,
//
//   domain.key   the private key, PKCS#8 in PEM (RFC 8410), for its owner's eyes only
//   domain.pem   the public key, which every host gets that trusts the domain

public import Crypto
internal import SwiftASN1
public import TurntableCore
internal import X509

public enum DomainKey {
    public static let keyFile = "domain.key"
    public static let publicKeyFile = "domain.pem"

    /// PKCS#8 of an Ed25519 key is this and the 32 bytes of the key (RFC 8410, 7).
    private static let header: [UInt8] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20]

    private static let remedy = "make them with `turntable keys domain`, and copy the domain's \(publicKeyFile) to those who trust it"

    public static func read(_ path: String) throws(TurntableError) -> Curve25519.Signing.PrivateKey {
        guard let raw = try PrivateKeyFile.readRaw(path, after: header, remedy: remedy),
            let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: raw)
        else {
            throw TurntableError(.usage, "reading \(path)", "it is no Ed25519 private key (PKCS#8) in PEM", remedy: remedy)
        }
        return key
    }

    /// One or more.
    public static func publicKeys(_ path: String) throws(TurntableError) -> [Curve25519.Signing.PublicKey] {
        let text = try readText(path, remedy: remedy)
        let documents = (try? PEMDocument.parseMultiple(pemString: text)) ?? []
        let keys = documents.compactMap { (try? Certificate.PublicKey(pemDocument: $0)).flatMap { Curve25519.Signing.PublicKey($0) } }
        guard !keys.isEmpty, keys.count == documents.count else {
            throw TurntableError(.usage, "reading \(path)", "it holds something that is no Ed25519 public key in PEM", remedy: remedy)
        }
        return keys
    }

    /// Makes domain.key and domain.pem in `directory`.
    public static func make(in directory: String) throws(TurntableError) {
        let key = Curve25519.Signing.PrivateKey()
        let publicText: String
        do { publicText = try Certificate.PublicKey(key.publicKey).serializeAsPEM().pemString } catch {
            throw TurntableError(.unsupported, "writing \(directory)/\(publicKeyFile)", "\(error)")
        }
        try PrivateKeyFile.writeRaw(key.rawRepresentation, after: header, keyFile, publicText: publicText, publicKeyFile, in: directory)
    }
}

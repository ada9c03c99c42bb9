// Who a host is to its peers: a certificate of an authority that both trust. In a directory,
//
//   authority.pem   the authorities' certificates, one or more
//   host.pem        the host's certificate, then those between it and an authority
//   host.key        its private key (P-256), for its owner's eyes only
//
// all PEM. `turntable keys` makes them for a start; those of an authority that is there already do as well.

public import Crypto
public import Foundation
internal import SwiftASN1
public import TurntableCore
internal import TurntableLinux
public import X509

public struct HostIdentity: Sendable {
    public let authorities: [Certificate]
    /// The host's own certificate first.
    public let chain: [Certificate]
    public let key: P256.Signing.PrivateKey

    public static let authorityFile = "authority.pem"
    public static let chainFile = "host.pem"
    public static let keyFile = "host.key"

    /// Reads the identity from a directory.
    /// - Throws: if a file is missing or is not what it should be, or if others may read the key.
    public init(directory: String) throws(TurntableError) {
        let key = try PrivateKeyFile.read("\(directory)/\(Self.keyFile)")
        let chain = try Self.certificates("\(directory)/\(Self.chainFile)")
        let authorities = try Self.certificates("\(directory)/\(Self.authorityFile)")
        guard chain[0].publicKey == Certificate.PublicKey(key.publicKey) else {
            throw TurntableError(
                .usage, "reading \(directory)/\(Self.chainFile)", "its certificate is not that of \(Self.keyFile)",
                remedy: "copy both from where they were made")
        }
        let now = Date()
        guard chain[0].notValidBefore <= now, now <= chain[0].notValidAfter else {
            throw TurntableError(
                .usage, "reading \(directory)/\(Self.chainFile)", "it is valid from \(chain[0].notValidBefore) to \(chain[0].notValidAfter)",
                remedy: "make a new one with `turntable keys host`, or set this host's clock")
        }
        self.init(authorities: authorities, chain: chain, key: key)
    }

    public init(authorities: [Certificate], chain: [Certificate], key: P256.Signing.PrivateKey) {
        self.authorities = authorities
        self.chain = chain
        self.key = key
    }

    /// Names its key: what a token for this host is bound to.
    public var keyDigest: [UInt8] { KeyDigest.of(chain[0]) }

    /// The names in its certificate.
    public var names: CertificateNames { CertificateNames(chain[0]) }

    public var validUntil: Date { chain[0].notValidAfter }
    /// Whom it is vouched for by, as the certificate says.
    public var issuer: String { chain[0].issuer.description }

    static func certificates(_ path: String) throws(TurntableError) -> [Certificate] {
        let text = try readText(path)
        do {
            let found = try PEMDocument.parseMultiple(pemString: text).map { try Certificate(pemDocument: $0) }
            if !found.isEmpty { return found }
        } catch {
            throw TurntableError(.usage, "reading \(path)", "it holds something that is no certificate (\(error))")
        }
        throw TurntableError(.usage, "reading \(path)", "it holds no certificate")
    }
}

/// Names a certificate's key.
public enum KeyDigest {
    public static func ofCertificate(in file: String) throws(TurntableError) -> [UInt8] { of(try HostIdentity.certificates(file)[0]) }

    /// SHA-256 of its SubjectPublicKeyInfo in DER, algorithm and all.
    public static func of(_ certificate: Certificate) -> [UInt8] {
        var serializer = DER.Serializer()
        do { try serializer.serialize(certificate.publicKey) } catch { preconditionFailure("a key that was read cannot be written: \(error)") }
        return Array(SHA256.hash(data: serializer.serializedBytes))
    }
}

private let hostKeysRemedy =
    "make keys with `turntable keys`, say where they are with --keys, or ask both ends for --protection none on a line of your own"

/// Small text files.
func readText(_ path: String, remedy: String = hostKeysRemedy) throws(TurntableError) -> String {
    guard FileManager.default.fileExists(atPath: path) else {
        throw TurntableError(.usage, "reading \(path)", "it is not there", remedy: remedy)
    }
    let bytes = try readFile(path, atMost: Limits.keyFileBytes)
    guard let text = String(validating: bytes, as: UTF8.self) else { throw TurntableError(.usage, "reading \(path)", "it is no text") }
    return text
}

/// A private key on disk.
enum PrivateKeyFile {
    static func read(_ path: String) throws(TurntableError) -> P256.Signing.PrivateKey {
        let text = try readSecret(path)
        do { return try P256.Signing.PrivateKey(pemRepresentation: text) } catch {
            throw TurntableError(.usage, "reading \(path)", "it is no P-256 private key in PEM")
        }
    }

    /// What nobody but its owner may read.
    static func readSecret(_ path: String, remedy: String = hostKeysRemedy) throws(TurntableError) -> String {
        let mode = (try? FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? NSNumber)?.uint16Value
        if let mode, mode & 0o077 != 0 {
            throw TurntableError(
                .usage, "reading \(path)", "others may read it: its mode is \(String(mode, radix: 8)), the most is 600",
                remedy: "chmod 600 \(path), and make a new key if somebody may have read it")
        }
        return try readText(path, remedy: remedy)
    }

    /// The 32 bytes of a key whose PKCS#8 is `header` and they (RFC 8410, 7); nil if the file holds something else.
    static func readRaw(_ path: String, after header: [UInt8], remedy: String) throws(TurntableError) -> [UInt8]? {
        let text = try readSecret(path, remedy: remedy)
        guard let document = try? PEMDocument(pemString: text), document.discriminator == "PRIVATE KEY", document.derBytes.starts(with: header) else {
            return nil
        }
        return Array(document.derBytes.dropFirst(header.count))
    }

    /// Writes such a key beside its public one, in a directory that may not have either.
    static func writeRaw(
        _ key: Data, after header: [UInt8], _ name: String, publicText: String, _ publicName: String, in directory: String
    ) throws(TurntableError) {
        try KeyMaker.makeDirectory(directory)
        try writeNew(PEMDocument(type: "PRIVATE KEY", derBytes: header + key).pemString + "\n", to: "\(directory)/\(name)", mode: 0o600)
        try writeNew(publicText + "\n", to: "\(directory)/\(publicName)", mode: 0o644)
    }

    /// Writes a key that is not there yet.
    static func write(_ key: P256.Signing.PrivateKey, to path: String) throws(TurntableError) {
        try writeNew(key.pemRepresentation + "\n", to: path, mode: 0o600)
    }
}

/// Writes a file that must not be there yet.
func writeNew(_ text: String, to path: String, mode: UInt16) throws(TurntableError) {
    guard !FileManager.default.fileExists(atPath: path) else {
        throw TurntableError(.usage, "writing \(path)", "it is there already", remedy: "keep it, or move it away first")
    }
    guard FileManager.default.createFile(atPath: path, contents: Data(text.utf8), attributes: [.posixPermissions: NSNumber(value: mode)])
    else {
        throw TurntableError(.usage, "writing \(path)", "it cannot be made there", remedy: "check that the directory is there and writable")
    }
}

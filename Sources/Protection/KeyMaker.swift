// A certificate authority and host certificates for a start: P-256, X.509 version 3. An organisation that has an authority
// uses that one instead.

internal import Crypto
internal import Foundation
internal import SwiftASN1
public import TurntableCore
internal import TurntableLinux
internal import X509

public enum KeyMaker {
    public static let authorityKeyFile = "authority.key"

    /// Makes an authority in `directory`: authority.key, which only signs hosts, and authority.pem, which every host gets.
    public static func makeAuthority(named name: String, in directory: String, days: Int) throws(TurntableError) {
        try makeDirectory(directory)
        let key = P256.Signing.PrivateKey()
        let certificate = try sign(
            subject: name, issuer: DistinguishedName.named(name), days: days, key: key.publicKey, by: key,
            extensions: { try authorityExtensions(key) })
        try PrivateKeyFile.write(key, to: "\(directory)/\(authorityKeyFile)")
        try write([certificate], to: "\(directory)/\(HostIdentity.authorityFile)")
    }

    /// Makes host.key and host.pem in `output`, and puts authority.pem beside them.
    /// - Parameter addresses: IPv4 or IPv6 addresses that the certificate is for besides the name.
    public static func makeHost(
        named name: String, addresses: [String], authority directory: String, in output: String, days: Int
    ) throws(TurntableError) {
        try checkName(name)
        let authorityKey = try PrivateKeyFile.read("\(directory)/\(authorityKeyFile)")
        let authorities = try HostIdentity.certificates("\(directory)/\(HostIdentity.authorityFile)")
        guard let issuer = authorities.first(where: { $0.publicKey == Certificate.PublicKey(authorityKey.publicKey) }) else {
            throw TurntableError(
                .usage, "signing a certificate for \(name)", "\(authorityKeyFile) is not the key of any certificate in "
                    + "\(directory)/\(HostIdentity.authorityFile)")
        }
        var names = [GeneralName.dnsName(name.lowercased())]
        for address in addresses {
            guard let bytes = addressBytes(address) else {
                throw TurntableError(.usage, "signing a certificate for \(name)", "\(address) is no IPv4 or IPv6 address")
            }
            names.append(.ipAddress(ASN1OctetString(contentBytes: bytes[...])))
        }
        let key = P256.Signing.PrivateKey()
        let certificate = try sign(
            subject: name, issuer: issuer.subject, days: days, key: key.publicKey, by: authorityKey,
            extensions: { try hostExtensions(key, authorityKey, names) })
        try makeDirectory(output)
        try PrivateKeyFile.write(key, to: "\(output)/\(HostIdentity.keyFile)")
        try write([certificate], to: "\(output)/\(HostIdentity.chainFile)")
        if output != directory { try write(authorities, to: "\(output)/\(HostIdentity.authorityFile)") }
    }

    /// A host's name is part of messages and journals, and is compared letter by letter.
    private static func checkName(_ name: String) throws(TurntableError) {
        let isFine =
            !name.isEmpty && name.utf8.count <= Limits.hostNameBytes && !name.hasPrefix("-") && !name.hasPrefix(".")
            && name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == ".") } && addressBytes(name) == nil
        guard isFine else {
            throw TurntableError(
                .usage, "naming a host \"\(name)\"",
                "a name has 1 to \(Limits.hostNameBytes) letters, digits, dots or dashes and is no address", remedy: "put addresses into --address")
        }
    }

    private static func sign(
        subject: String, issuer: @autoclosure () throws -> DistinguishedName, days: Int, key: P256.Signing.PublicKey,
        by signer: P256.Signing.PrivateKey, extensions: () throws -> Certificate.Extensions
    ) throws(TurntableError) -> Certificate {
        guard days > 0, days <= 36_500 else { throw TurntableError(.usage, "--days \(days)", "it must be 1 to 36500") }
        do {
            // Hosts' clocks differ a little.
            let begin = Date(timeIntervalSinceNow: -3600)
            return try Certificate(
                version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: .init(key), notValidBefore: begin,
                notValidAfter: begin.addingTimeInterval(Double(days) * 86_400 + 3600), issuer: issuer(), subject: .named(subject),
                signatureAlgorithm: .ecdsaWithSHA256, extensions: extensions(), issuerPrivateKey: .init(signer))
        } catch {
            throw TurntableError(.unsupported, "signing a certificate for \(subject)", "\(error)")
        }
    }

    private static func authorityExtensions(_ key: P256.Signing.PrivateKey) throws -> Certificate.Extensions {
        try Certificate.Extensions {
            Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
            Critical(KeyUsage(keyCertSign: true, cRLSign: true))
            SubjectKeyIdentifier(hash: Certificate.PublicKey(key.publicKey))
        }
    }

    private static func hostExtensions(
        _ key: P256.Signing.PrivateKey, _ authority: P256.Signing.PrivateKey, _ names: [GeneralName]
    ) throws -> Certificate.Extensions {
        try Certificate.Extensions {
            Critical(BasicConstraints.notCertificateAuthority)
            Critical(KeyUsage(digitalSignature: true))
            // A host sends and receives.
            try ExtendedKeyUsage([.serverAuth, .clientAuth])
            SubjectAlternativeNames(names)
            SubjectKeyIdentifier(hash: Certificate.PublicKey(key.publicKey))
            AuthorityKeyIdentifier(
                keyIdentifier: SubjectKeyIdentifier(hash: Certificate.PublicKey(authority.publicKey)).keyIdentifier)
        }
    }

    private static func write(_ certificates: [Certificate], to path: String) throws(TurntableError) {
        let text: String
        do { text = try certificates.map { try $0.serializeAsPEM().pemString + "\n" }.joined() } catch {
            throw TurntableError(.unsupported, "writing \(path)", "\(error)")
        }
        try writeNew(text, to: path, mode: 0o644)
    }

    static func makeDirectory(_ path: String) throws(TurntableError) {
        do {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: NSNumber(value: 0o700)])
        } catch {
            throw TurntableError(.usage, "making \(path)", "\(error)", remedy: "run as root, or choose a directory of your own")
        }
    }
}

extension DistinguishedName {
    fileprivate static func named(_ name: String) throws -> DistinguishedName { try DistinguishedName { CommonName(name) } }
}

internal import Crypto
internal import Foundation
internal import Protection
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import WireFormat

/// Keys and certificates on disk, and what is signed with them.
struct IdentityTests {
    /// A directory with an authority and a host of it.
    private func withKeys(_ body: (_ authority: String, _ host: String) throws -> Void) throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "turntable-identity-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try KeyMaker.makeAuthority(named: "an authority", in: "\(directory)/authority", days: 2)
        try KeyMaker.makeHost(
            named: "Alpha.example", addresses: ["10.5.0.1", "fe80::1"], authority: "\(directory)/authority", in: "\(directory)/alpha", days: 1)
        try body("\(directory)/authority", "\(directory)/alpha")
    }

    private func mode(_ path: String) throws -> Int {
        try #require(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? NSNumber).intValue
    }

    @Test func aHostIsCalledByItsNamesAndAddresses() throws {
        try withKeys { authority, host in
            #expect(try mode("\(host)/host.key") == 0o600)
            #expect(try mode("\(authority)/authority.key") == 0o600)
            let names = try HostIdentity(directory: host).names
            #expect("\(names)" == "alpha.example")
            for name in ["alpha.example", "ALPHA.example", "10.5.0.1", "fe80:0:0::1"] { #expect(names.include(name), "\(name)") }
            for name in ["beta.example", "example", "10.5.0.2", "", "*.example"] { #expect(!names.include(name), "\(name)") }
        }
    }

    /// As anybody else computes it: over the key with its algorithm.
    @Test func aKeyIsNamedByItsDigest() throws {
        let identity = try Identities.shared.alpha
        #expect(identity.keyDigest == Array(SHA256.hash(data: identity.key.publicKey.derRepresentation)))
        #expect(try identity.keyDigest != Identities.shared.beta.keyDigest)
    }

    @Test(arguments: [0o640, 0o604, 0o644]) func aKeyThatOthersMayReadIsRefused(mode: Int) throws {
        try withKeys { _, host in
            try FileManager.default.setAttributes([.posixPermissions: NSNumber(value: mode)], ofItemAtPath: "\(host)/host.key")
            let error = #expect(throws: TurntableError.self) { try HostIdentity(directory: host) }
            #expect(error?.why.contains("others may read it") == true)
        }
    }

    @Test func filesThatDoNotBelongTogetherAreRefused() throws {
        try withKeys { authority, host in
            try KeyMaker.makeHost(named: "beta", addresses: [], authority: authority, in: "\(host)/beta", days: 1)
            #expect(throws: TurntableError.self) {
                try KeyMaker.makeHost(named: "beta", addresses: [], authority: authority, in: "\(host)/beta", days: 1)
            }
            try FileManager.default.removeItem(atPath: "\(host)/host.key")
            #expect(throws: TurntableError.self) { try HostIdentity(directory: host) }
            try FileManager.default.copyItem(atPath: "\(host)/beta/host.key", toPath: "\(host)/host.key")
            let error = #expect(throws: TurntableError.self) { try HostIdentity(directory: host) }
            #expect(error?.why.contains("not that of host.key") == true)
            try Data("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".utf8).write(to: URL(filePath: "\(host)/beta/host.pem"))
            #expect(throws: TurntableError.self) { try HostIdentity(directory: "\(host)/beta") }
        }
    }

    @Test func namesThatAreNoneAreRefused() throws {
        try withKeys { authority, host in
            for name in ["", "a b", "10.0.0.1", "-a", "a/b", String(repeating: "a", count: 65)] {
                #expect(throws: TurntableError.self, "\(name)") {
                    try KeyMaker.makeHost(named: name, addresses: [], authority: authority, in: "\(host)/other", days: 1)
                }
            }
        }
    }

    @Test func aStatementIsBelievedOnlyFromAHostOfAnAuthority() throws {
        let identities = try Identities.shared
        let record = JournalRecord(role: .target, kind: .refused, epoch: Epoch(4), session: .random())
        let bytes = record.signedBytes(machine: "web")
        let signed = try Statement.sign(bytes, as: identities.beta)
        #expect(signed.count <= JournalRecord.signatureBytes)
        let authorities = identities.alpha.authorities
        #expect(Statement.signer(of: bytes, signed, authorities: authorities)?.include("beta.test") == true)
        #expect(Statement.signer(of: record.signedBytes(machine: "other"), signed, authorities: authorities) == nil)
        #expect(Statement.signer(of: bytes, signed, authorities: identities.stranger.authorities) == nil)
        let signature = 2..<2 + Int(signed[0])
        for byte in signed.indices {
            var changed = signed
            changed[byte] ^= 1
            // What a certificate says after its signed part proves nothing, and changes nothing.
            let signer = Statement.signer(of: bytes, changed, authorities: authorities)
            #expect(signer == nil || !signature.contains(byte) && signer?.include("beta.test") == true, "byte \(byte)")
        }
        for count in 0..<signed.count {
            #expect(Statement.signer(of: bytes, Array(signed.prefix(count)), authorities: authorities) == nil)
        }
    }
}

internal import Crypto
internal import Foundation
internal import Protection
internal import Testing
internal import TurntableCore
@testable internal import Capability

/// What a host remembers of tokens, and the files that it trusts domains by.
struct LedgerTests {
    let domains = Domains()

    @Test func aTokenIsUsedOnce() throws {
        try withDirectory { directory in
            let gate = TokenGate(domains: domains.trusted, ledger: try TokenLedger(directory: directory)) { 1500 }
            let token = try domains.token()
            try gate.admit(token, domains.use, as: "migration", "one")
            // The same use again, also by another process; and its use in band.
            let other = TokenGate(domains: domains.trusted, ledger: try TokenLedger(directory: directory)) { 1501 }
            try other.admit(token, domains.use, as: "migration", "one")
            _ = try other.admit(token.encoded, domains.use, session: "abcd", isHandedOff: false)
            #expect(
                whyRefused { () throws(CapabilityError) in try other.admit(token, domains.use, as: "migration", "two") }
                    == .replayed(token.claims.id, usedFor: "migration one"))
            #expect(
                whyRefused { () throws(CapabilityError) in _ = try gate.admit(token.encoded, domains.use, session: "ffff", isHandedOff: false) }
                    == .replayed(token.claims.id, usedFor: "session abcd"))
        }
    }

    @Test func whatIsRevokedIsUsedNoMore() throws {
        try withDirectory { directory in
            let gate = TokenGate(domains: domains.trusted, ledger: try TokenLedger(directory: directory)) { 1500 }
            let (used, unused) = (try domains.token(), try domains.token())
            try gate.admit(used, domains.use, as: "migration", "one")
            for token in [used, unused] {
                try gate.revoke(token.text)
                #expect(whyRefused { () throws(CapabilityError) in try gate.admit(token, domains.use, as: "migration", "one") } == .revoked(token.claims.id))
            }
            try gate.revoke(nil)
        }
    }

    /// A right that was handed off under a token is heard to its end; nothing else is after the window.
    @Test func whatWasHandedOffIsHeardAfterTheEnd() throws {
        try withDirectory { directory in
            let ledger = try TokenLedger(directory: directory)
            let token = try domains.token()
            func admit(at now: Int, _ session: String, isHandedOff: Bool) -> CapabilityError? {
                let gate = TokenGate(domains: domains.trusted, ledger: ledger) { now }
                return whyRefused { () throws(CapabilityError) in _ = try gate.admit(token.encoded, domains.use, session: session, isHandedOff: isHandedOff) }
            }
            #expect(admit(at: 1500, "a", isHandedOff: false) == nil)
            #expect(admit(at: 2500, "a", isHandedOff: false) == .expired(validUntil: 2000, now: 2500))
            #expect(admit(at: 2500, "a", isHandedOff: true) == nil)
            #expect(admit(at: 2500, "b", isHandedOff: true) == .expired(validUntil: 2000, now: 2500))
        }
    }

    @Test func nothingIsForgottenBeforeItsWindowEnds() throws {
        try withDirectory { directory in
            let ledger = try TokenLedger(directory: directory)
            let token = try domains.token()
            try ledger.revoke(token.claims)
            let end = token.claims.notAfter + Int(Limits.longestResumeWindow.seconds)
            ledger.prune(at: end)
            #expect(whyRefused { () throws(CapabilityError) in try ledger.use(token.claims, as: "migration", "x") } == .revoked(token.claims.id))
            ledger.prune(at: end + 1)
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory).isEmpty)
        }
    }

    @Test func aDomainIsTrustedByItsFile() throws {
        try withDirectory { directory in
            try DomainKey.make(in: directory)
            let (secret, open) = ("\(directory)/\(DomainKey.keyFile)", "\(directory)/\(DomainKey.publicKeyFile)")
            let key = try DomainKey.read(secret)
            let token = try Capability.issue(domains.claims(), signedBy: key)
            try token.verify(domains.use, TrustedDomains(options: ["home=\(open)"]), at: 1500)
            #expect(throws: TurntableError.self) { try TrustedDomains(options: [open]) }
            #expect(throws: TurntableError.self) { try TrustedDomains(options: ["home=\(secret)"]) }
            #expect(throws: TurntableError.self) { try DomainKey.make(in: directory) }
            #expect(throws: TurntableError.self) { try DomainKey.read(open) }
            try FileManager.default.setAttributes([.posixPermissions: NSNumber(value: 0o640)], ofItemAtPath: secret)
            let error = #expect(throws: TurntableError.self) { try DomainKey.read(secret) }
            #expect(error?.remedy.contains("chmod 600") == true)
        }
    }
}

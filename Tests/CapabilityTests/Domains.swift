internal import Crypto
internal import Foundation
internal import TurntableCore
@testable internal import Capability

/// Two domains, of which the first is trusted, and a token of the first.
struct Domains {
    let home = Curve25519.Signing.PrivateKey(), away = Curve25519.Signing.PrivateKey()
    let holder = [UInt8](repeating: 7, count: 32)

    var trusted: TrustedDomains { TrustedDomains(["home": [home.publicKey]]) }

    func claims(delegate: Curve25519.Signing.PrivateKey? = nil) -> Claims {
        Claims(
            issuer: "home", machine: "web", epoch: Epoch(5), source: "alpha.test", target: "beta.test", notBefore: 1000, notAfter: 2000,
            holder: delegate == nil ? holder : nil, delegate: delegate.map { Array($0.publicKey.rawRepresentation) })
    }

    var use: Claims.Use { Claims.Use(machine: "web", epoch: Epoch(5), source: "alpha.test", target: "beta.test", holder: holder) }

    func token(_ change: (inout Claims) -> Void = { _ in }) throws -> Capability {
        var claims = claims()
        change(&claims)
        return try .issue(claims, signedBy: home)
    }

    /// Why a use is refused; nil if it is not.
    func refusal(_ token: Capability, at now: Int = 1500, _ change: (inout Claims.Use) -> Void = { _ in }) -> CapabilityError? {
        var use = use
        change(&use)
        return whyRefused { () throws(CapabilityError) in try token.verify(use, trusted, at: now) }
    }
}

func whyRefused(_ body: () throws(CapabilityError) -> Void) -> CapabilityError? {
    do throws(CapabilityError) { try body() } catch { return error }
    return nil
}

/// A directory that goes with the test.
func withDirectory(_ body: (String) throws -> Void) throws {
    let directory = FileManager.default.temporaryDirectory.appending(path: "turntable-tokens-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try body(directory)
}

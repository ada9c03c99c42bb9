// What a Web client shows in the place of a certificate: a JSON Web Token (RFC 7519) in a JWS (RFC 7515) of the domain's key.
//
//   header   alg EdDSA (RFC 8037), typ JWT; no critical extensions
//   claims   iss the domain, aud turntable-orchestrator, sub whom policies and operators' names mean, iat, exp, jti, scope read or move

public import Crypto
internal import Foundation
internal import JWTKit
public import TurntableCore

/// What may be asked with a token; who may move may read.
public enum WebScope: String, Codable, Sendable, CaseIterable { case read, move }

struct WebToken: JWTPayload, Sendable, Equatable {
    static let audience = "turntable-orchestrator"

    var iss: String
    var sub: String
    var aud: String
    /// Unix seconds.
    var iat: Int
    var exp: Int
    var jti: String
    var scope: WebScope

    /// What it says is checked by ``WebGate``, which knows the time and the domain.
    func verify(using algorithm: some JWTAlgorithm) {}
}

public enum WebTokens {
    /// A token for a client of a domain, from now on.
    public static func issue(
        domain: String, client: String, scope: WebScope, valid: Nanoseconds, signedBy key: Curve25519.Signing.PrivateKey
    ) async throws(TurntableError) -> String {
        let what = "issuing a token for \(client)"
        try MachineName.check(domain)
        try MachineName.check(client)
        guard valid.value > 0, valid.value <= Limits.webTokenTime.value else {
            throw TurntableError(.usage, what, "it would be valid for \(valid), the most is \(Limits.webTokenTime)", remedy: "issue another when it ends")
        }
        let now = Int(Date.now.timeIntervalSince1970)
        let token = WebToken(
            iss: domain, sub: client.lowercased(), aud: WebToken.audience, iat: now, exp: now + max(1, Int(valid.seconds)), jti: UUID().uuidString.lowercased(),
            scope: scope)
        do {
            return try await JWTKeyCollection().add(eddsa: EdDSA.PrivateKey(backing: key)).sign(token)
        } catch { throw TurntableError(.unsupported, what, "\(error)") }
    }
}

internal import Crypto
internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import JWTKit
internal import TurntableCore

/// Lets Web clients in: those who show a token that the domain signed, for what its scope says.
struct WebGate: Sendable {
    let domain: String
    private let key: Curve25519.Signing.PublicKey
    private let now: @Sendable () -> Int

    init(domain: String, key: Curve25519.Signing.PublicKey, now: @escaping @Sendable () -> Int = { Int(Date.now.timeIntervalSince1970) }) {
        (self.domain, self.key, self.now) = (domain, key, now)
    }

    /// What Web clients may ask besides looking; what only orchestrators and operators' tools ask is not among it.
    private static let orders: Set<String> = [
        "/v1/policy/check", "/v1/migrations", "/v1/migrations/:migration/cancel", "/v1/evacuations", "/v1/evacuations/:evacuation/cancel",
    ]

    static func takes(_ path: String, _ method: HTTPRequest.Method) -> Bool { method == .get || method == .post && orders.contains(path) }

    /// Who asks.
    func admit(_ request: Request) async throws(Problem) -> String {
        guard let text = request.headers[.authorization], text.lowercased().hasPrefix("bearer ") else {
            throw refusal("none is shown")
        }
        let isLooking = request.method == .get || request.uri.path == "/v1/policy/check"
        return try await admit(text.dropFirst("bearer ".count).trimmingCharacters(in: .whitespaces), for: isLooking ? .read : .move)
    }

    /// Whom a token names, if it is good for that.
    func admit(_ text: String, for scope: WebScope) async throws(Problem) -> String {
        guard text.utf8.count <= Limits.webTokenBytes, let (header, token, _) = try? DefaultJWTParser().parse(Data(text.utf8), as: WebToken.self) else {
            throw refusal("it is no token of at most \(ByteCount(Limits.webTokenBytes)) with the claims that are needed")
        }
        // The library takes whatever algorithm the key is of: that the header says another is a sign of somebody who tries something.
        guard header.alg == "EdDSA", header[dynamicMember: "crit"] == nil else { throw refusal("its algorithm is \(header.alg ?? "none"), not EdDSA") }
        let verified = try? await JWTKeyCollection().add(eddsa: EdDSA.PublicKey(backing: key)).verify(text, as: WebToken.self)
        guard verified == token else { throw refusal("its signature is not that of \(domain)") }
        guard token.iss == domain else { throw refusal("\(token.iss.prefix(80)) issued it, not \(domain)") }
        guard token.aud == WebToken.audience else { throw refusal("it is for \(token.aud.prefix(80)), not for \(WebToken.audience)") }
        guard (try? MachineName.check(token.sub)) != nil else { throw refusal("it is for no name") }
        let now = now()
        guard token.iat <= now + Int(Limits.tokenClockDifference.seconds) else {
            throw refusal("it is valid from \(token.iat), and it is \(now) (Unix seconds)")
        }
        guard now < token.exp else { throw refusal("it was valid until \(token.exp), and it is \(now) (Unix seconds)") }
        guard token.exp.subtractingReportingOverflow(token.iat).partialValue <= Int(Limits.webTokenTime.seconds), token.iat > 0 else {
            throw refusal("it is valid for longer than \(Limits.webTokenTime)")
        }
        guard scope == .read || token.scope == .move else {
            throw Problem(.forbidden, "scope", "what a token allows", "it is for reading only", remedy: "ask for one with --scope move")
        }
        return token.sub
    }

    private func refusal(_ why: String) -> Problem {
        Problem(.unauthorized, "unauthorized", "a bearer token", why, remedy: "show one of `turntable token web` in Authorization: Bearer")
    }
}

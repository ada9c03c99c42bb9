internal import Crypto
internal import Foundation
internal import Testing
internal import TurntableCore
@testable internal import Orchestration

/// Web clients' tokens: those that other tools make too, and each way in which one is no good.
struct WebTokenTests {
    private let key = Curve25519.Signing.PrivateKey()
    private let now = 1_800_000_000

    private func base64URL(_ data: Data) -> String {
        data.base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }

    /// Made with nothing of ours: a header and claims as text, signed as RFC 7515 says.
    private func token(
        _ changes: [String: Any?] = [:], header: String = #"{"alg":"EdDSA","typ":"JWT"}"#, signedBy other: Curve25519.Signing.PrivateKey? = nil
    ) throws -> String {
        var claims: [String: Any] = [
            "iss": "home", "sub": "dashboard.example", "aud": "turntable-orchestrator", "iat": now - 10, "exp": now + 3600, "jti": "1", "scope": "move",
        ]
        for (name, value) in changes { claims[name] = value }
        let signed = base64URL(Data(header.utf8)) + "." + base64URL(try JSONSerialization.data(withJSONObject: claims))
        return signed + "." + base64URL(try (other ?? key).signature(for: Data(signed.utf8)))
    }

    private func admit(_ text: String, for scope: WebScope = .move) async throws -> String {
        let now = now
        return try await WebGate(domain: "home", key: key.publicKey) { now }.admit(text, for: scope)
    }

    private func expectRefusal(_ text: String, _ words: String, _ word: String = "unauthorized") async throws {
        do {
            _ = try await admit(text)
            Issue.record("\(words): it was admitted")
        } catch let problem as Problem {
            #expect(problem.detail.contains(words) && problem.type == Problem.prefix + word, "\(words): \(problem)")
        }
    }

    @Test func onesOfOtherToolsAreGood() async throws {
        #expect(try await admit(token()) == "dashboard.example")
        #expect(try await admit(token(["scope": "read"]), for: .read) == "dashboard.example")
        // Clocks differ by a little.
        #expect(try await admit(token(["iat": now + 30]), for: .read) == "dashboard.example")
    }

    @Test func refusals() async throws {
        try await expectRefusal("", "no token")
        try await expectRefusal("a.b", "no token")
        try await expectRefusal(String(repeating: "a", count: 5000), "no token")
        try await expectRefusal(token(["jti": nil as Any?]), "no token")
        try await expectRefusal(token(["aud": [String]()]), "no token")
        try await expectRefusal(token(["exp": now]), "it was valid until")
        try await expectRefusal(token(["iat": now + 100]), "it is valid from")
        try await expectRefusal(token(["exp": now + 200_000]), "for longer than")
        try await expectRefusal(token(["iat": Int.min, "exp": Int.max]), "for longer than")
        try await expectRefusal(token(["iss": "other"]), "other issued it")
        try await expectRefusal(token(["aud": "other"]), "it is for other")
        try await expectRefusal(token(["sub": "../x"]), "it is for no name")
        try await expectRefusal(token(["scope": "read"]), "for reading only", "scope")
        try await expectRefusal(token(signedBy: Curve25519.Signing.PrivateKey()), "its signature")
        for algorithm in ["none", "HS256", "ES256", "eddsa"] {
            try await expectRefusal(token(header: #"{"alg":"\#(algorithm)","typ":"JWT"}"#), "its algorithm is \(algorithm)")
        }
        try await expectRefusal(token(header: #"{"typ":"JWT"}"#), "it")
        try await expectRefusal(token(header: #"{"alg":"EdDSA","crit":["b64"],"b64":false}"#), "it")
        // A good one of which one letter of a claim is another.
        let good = try token()
        let parts = good.split(separator: ".")
        let claims = parts[1].dropLast(1) + (parts[1].last == "A" ? "B" : "A")
        try await expectRefusal("\(parts[0]).\(claims).\(parts[2])", "it")
        try await expectRefusal("\(parts[0]).\(parts[1]).", "its signature")
    }

    @Test func whatIsIssuedIsGood() async throws {
        let text = try await WebTokens.issue(domain: "home", client: "Dashboard.example", scope: .move, valid: .seconds(3600), signedBy: key)
        let gate = WebGate(domain: "home", key: key.publicKey)
        #expect(try await gate.admit(text, for: .move) == "dashboard.example")
        await #expect(throws: TurntableError.self) {
            _ = try await WebTokens.issue(domain: "home", client: "x", scope: .read, valid: .seconds(25 * 3600), signedBy: key)
        }
    }
}

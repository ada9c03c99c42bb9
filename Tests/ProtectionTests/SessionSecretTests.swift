internal import Crypto
internal import Protection
internal import Testing
internal import TurntableCore
internal import WireFormat

/// Both ends of a control stream come to the same secret, and nobody else does.
struct SessionSecretTests {
    let agreement = KeyAgreement()

    private func transcript(
        _ welcome: Welcome, preface: Preface = Preface(role: .control, protection: .sealed), source: [UInt8] = [1], target: [UInt8] = [2]
    ) -> SessionSecret.Transcript {
        SessionSecret.Transcript(preface: preface, welcome: welcome, sourceCertificate: source, targetCertificate: target)
    }

    @Test func bothEndsAgree() throws {
        let seen = transcript(Welcome(attachment: .random(), keyShare: agreement.share))
        let (secret, keys) = try SessionSecret.forTarget(seen)
        let same = try agreement.secret(keys, seen)
        #expect(secret.key(forStream: 3) == same.key(forStream: 3))
        #expect(secret.key(forStream: 3) != same.key(forStream: 4))
        let preface = Preface(role: .data, protection: .sealed, stream: 3, attachment: seen.welcome.attachment)
        #expect(same.verifies(secret.proof(of: preface), of: preface))
        let other = Preface(role: .data, protection: .sealed, stream: 4, attachment: seen.welcome.attachment)
        #expect(!same.verifies(secret.proof(of: preface), of: other))
    }

    /// Whatever somebody between the ends changed, the ends have different keys.
    @Test func aChangedTranscriptGivesAnotherSecret() throws {
        let welcome = Welcome(attachment: .random(), keyShare: agreement.share)
        let seen = transcript(welcome)
        let (secret, keys) = try SessionSecret.forTarget(seen)
        var nonce = keys.nonce
        nonce[0] ^= 1
        let differing = [
            transcript(Welcome(attachment: .random(), keyShare: agreement.share)),
            transcript(welcome, preface: Preface(role: .control, protection: .none)),
            transcript(welcome, preface: Preface(role: .control, protection: .sealed, highestVersion: 9)),
            transcript(welcome, source: [3]), transcript(welcome, target: [3]), transcript(welcome, source: [2], target: [1]),
        ]
        for other in differing { #expect(try agreement.secret(keys, other).key(forStream: 0) != secret.key(forStream: 0)) }
        let renonced = try agreement.secret(Keys(encapsulated: keys.encapsulated, nonce: nonce), seen)
        #expect(renonced.key(forStream: 0) != secret.key(forStream: 0))
        #expect(try KeyAgreement().secret(keys, seen).key(forStream: 0) != secret.key(forStream: 0))
    }

    @Test func whatIsNoKeyIsAProtocolError() {
        let broken = transcript(Welcome(attachment: .random(), keyShare: [1, 2, 3]))
        #expect(throws: TurntableError.self) { try SessionSecret.forTarget(broken) }
        let seen = transcript(Welcome(attachment: .random(), keyShare: agreement.share))
        for encapsulated: [UInt8] in [[], [1], [UInt8](repeating: 1, count: 33)] {
            #expect(throws: TurntableError.self) { try agreement.secret(Keys(encapsulated: encapsulated, nonce: []), seen) }
        }
    }
}

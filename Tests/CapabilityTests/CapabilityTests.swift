internal import Crypto
internal import Foundation
internal import Testing
internal import TurntableCore
@testable internal import Capability

/// What a token grants, and each way in which it does not.
struct CapabilityTests {
    let domains = Domains()

    @Test func itGrantsWhatItSays() throws {
        let token = try domains.token()
        #expect(domains.refusal(token) == nil)
        #expect(domains.refusal(token, at: 1000) == nil && domains.refusal(token, at: 2000) == nil)
        #expect(try Capability(text: token.text) == token)
        // Where the epoch and whoever holds it are not known.
        #expect(domains.refusal(token) { ($0.epoch, $0.holder) = (nil, nil) } == nil)
    }

    @Test func notOutsideItsWindow() throws {
        #expect(domains.refusal(try domains.token(), at: 2001) == .expired(validUntil: 2000, now: 2001))
        #expect(domains.refusal(try domains.token(), at: 999) == .notYet(validFrom: 1000, now: 999))
    }

    @Test func notForAnythingElse() throws {
        let token = try domains.token()
        #expect(domains.refusal(token) { $0.machine = "db" } == .wrongMachine("web", wanted: "db"))
        #expect(domains.refusal(token) { $0.epoch = Epoch(6) } == .wrongEpoch(Epoch(5), wanted: Epoch(6)))
        #expect(domains.refusal(token) { $0.source = "gamma.test" } == .wrongSource("alpha.test", wanted: "gamma.test"))
        #expect(domains.refusal(token) { $0.target = "gamma.test" } == .wrongTarget("beta.test", wanted: "gamma.test"))
    }

    /// Stolen: whoever shows it has a key of their own, and not the one that it names.
    @Test func notForAnotherHolder() throws {
        #expect(domains.refusal(try domains.token()) { $0.holder = [UInt8](repeating: 8, count: 32) } == .wrongHolder)
    }

    @Test func notOfADomainThatIsNotTrusted() throws {
        #expect(domains.refusal(try domains.token { $0.issuer = "elsewhere" }) == .foreignDomain("elsewhere"))
        let forged = try Capability.issue(domains.claims(), signedBy: domains.away)
        #expect(domains.refusal(forged) == .badSignature(link: 1))
    }

    @Test func notWithAChangedBit() throws {
        let token = try domains.token()
        let bytes = token.encoded
        for bit in 0..<bytes.count * 8 {
            var changed = bytes
            changed[bit / 8] ^= 1 << (bit % 8)
            guard let read = try? Capability(encoded: changed) else { continue }
            #expect(domains.refusal(read) != nil, "bit \(bit)")
        }
    }

    @Test func aDelegateNarrowsIt() throws {
        var wide = domains.claims(delegate: domains.away)
        wide.byteBudget = 100
        let root = try Capability.issue(wide, signedBy: domains.home)
        var narrow = wide
        (narrow.holder, narrow.delegate, narrow.byteBudget, narrow.notAfter, narrow.path) = (domains.holder, nil, 50, 1600, "west")
        let token = try root.narrowed(to: narrow, signedBy: domains.away)
        #expect(domains.refusal(token) == nil && token.claims == narrow)
        #expect(domains.refusal(token, at: 1700) == .expired(validUntil: 1600, now: 1700))
        // Nothing is gained by leaving its last link out.
        #expect(domains.refusal(root) == .unfinished)
        #expect(whyRefused { () throws(CapabilityError) in _ = try root.narrowed(to: narrow, signedBy: domains.home) } == .badSignature(link: 2))
    }

    /// Each claim widened, by a delegate who signs what its own tools would not.
    private static let widenings: [(String, @Sendable (inout Claims) -> Void)] = [
        ("issuer", { $0.issuer = "other" }), ("id", { $0.id = .random() }), ("machine", { $0.machine = "db" }), ("epoch", { $0.epoch = Epoch(6) }),
        ("source", { $0.source = "x.test" }), ("target", { $0.target = "x.test" }), ("path", { $0.path = "east" }), ("path", { $0.path = nil }),
        ("window", { $0.notAfter += 1 }), ("window", { $0.notBefore -= 1 }), ("byte budget", { $0.byteBudget = 101 }),
        ("byte budget", { $0.byteBudget = nil }), ("holder", { $0.holder = [UInt8](repeating: 8, count: 32) }), ("holder", { $0.holder = nil }),
    ]

    @Test(arguments: widenings) func nobodyWidensIt(_ claim: String, _ widen: @Sendable (inout Claims) -> Void) throws {
        var wide = domains.claims(delegate: domains.away)
        (wide.byteBudget, wide.path, wide.holder) = (100, "west", domains.holder)
        let root = try Capability.issue(wide, signedBy: domains.home)
        var claims = wide
        claims.delegate = nil
        let fine = try root.extended(by: claims, signedBy: domains.away)
        #expect(domains.refusal(fine) == nil)
        widen(&claims)
        #expect(domains.refusal(try root.extended(by: claims, signedBy: domains.away)) == .widened(claim: claim, link: 2))
        #expect(whyRefused { () throws(CapabilityError) in _ = try root.narrowed(to: claims, signedBy: domains.away) } == .widened(claim: claim, link: 2))
    }

    @Test func onlyTheNamedDelegateAddsALink() throws {
        var claims = domains.claims(delegate: domains.away)
        let root = try Capability.issue(claims, signedBy: domains.home)
        (claims.delegate, claims.holder) = (nil, domains.holder)
        #expect(domains.refusal(try root.extended(by: claims, signedBy: domains.home)) == .badSignature(link: 2))
        let closed = try domains.token()
        #expect(domains.refusal(try closed.extended(by: closed.claims, signedBy: domains.home)) == .notDelegated(link: 2))
        // A link belongs after the one that it was signed after.
        var other = root.claims
        other.notAfter -= 1
        let sibling = try Capability.issue(other, signedBy: domains.home)
        let mine = try root.extended(by: { var narrow = claims; narrow.notAfter -= 1; return narrow }(), signedBy: domains.away)
        let spliced = try Capability(encoded: CBOR.array([sibling.links[0].item, mine.links[1].item]).encoded)
        #expect(domains.refusal(mine) == nil && domains.refusal(spliced) == .badSignature(link: 2))
    }

    @Test func aChainHasItsLength() throws {
        let delegated = domains.claims(delegate: domains.home)
        var token = try Capability.issue(delegated, signedBy: domains.home)
        for _ in 2..<Limits.tokenLinks { token = try token.narrowed(to: delegated, signedBy: domains.home) }
        var last = delegated
        (last.delegate, last.holder) = (nil, domains.holder)
        let whole = try token.narrowed(to: last, signedBy: domains.home)
        #expect(whole.chain.count == Limits.tokenLinks && domains.refusal(whole) == nil)
        let longer = try token.narrowed(to: delegated, signedBy: domains.home)
        #expect(
            whyRefused { () throws(CapabilityError) in _ = try longer.narrowed(to: last, signedBy: domains.home) }
                == .chainTooLong(links: Limits.tokenLinks + 1))
    }

    /// A chain that another program wrote, with keys of the bytes 0 to 31 and 32 to 63: Tests/SystemTests/tokens.py.
    @Test func itIsWhatOthersWrite() throws {
        let text =
            "gtKEQ6EBJ6BYe6oBY2xhYgJjd2ViA2liZXRhLnRlc3QEGQfQBRkD6AdQAAECAwQFBgcICQoLDA0ODzoAAQAABzoAAQABamFscGhhLnRlc3Q6AAEAAxsAAAAQAAAAADoAAQAEWCAprLrhQbzK8LIuGpTTTQvH"
            + "Nh5SbQv+EsiXlLyTIpZt11hAsiMjkGYMYjeZrV9DLtQYxHruiDD+YKHSYF+bW4DtKKKLS62vcd7NBT8L3ruxKy8lvUi1V5FU9AKzDELIvZpQANKEQ6EBJ6BYg6sBY2xhYgJjd2ViA2liZXRhLnRlc3QE"
            + "GQXcBRkD6AdQAAECAwQFBgcICQoLDA0ODwihA1ggCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk6AAEAAAc6AAEAAWphbHBoYS50ZXN0OgABAAJkd2VzdDoAAQADGwAAABAAAAAAWECggBhk4WXN"
            + "YgTTtNkr1QIFTs2wnwd/l5AltzIgEgP25DoAYbOnu0w2U0NWEBsX94ezjdNztXAqfu0dQd8k1a4L"
        let keys = try [0..<32, 32..<64].map { try Curve25519.Signing.PrivateKey(rawRepresentation: $0.map { UInt8($0) }) }
        let token = try Capability(text: text)
        let use = Claims.Use(machine: "web", epoch: Epoch(7), source: "alpha.test", target: "beta.test", holder: [UInt8](repeating: 9, count: 32))
        try token.verify(use, TrustedDomains(["lab": [keys[0].publicKey]]), at: 1200)
        let root = try Capability.issue(token.chain[0], signedBy: keys[0])
        #expect(try root.narrowed(to: token.claims, signedBy: keys[1]).text == text)
        #expect(token.claims.path == "west" && token.claims.byteBudget == 64 << 30)
    }

    @Test func whatIsNoTokenIsSaidToBeNone() throws {
        #expect(whyRefused { () throws(CapabilityError) in _ = try Capability(encoded: []) } == .missing)
        for bytes in [[0x80], [0xa0], [0x81, 0xd2, 0x80], [UInt8](repeating: 0x81, count: 40), [UInt8](repeating: 0, count: Limits.tokenBytes + 1)] as [[UInt8]] {
            let error = whyRefused { () throws(CapabilityError) in _ = try Capability(encoded: bytes) }
            guard case .malformed? = error else { return #expect(Bool(false), "\(String(describing: error))") }
        }
        #expect(throws: CapabilityError.self) { try Capability(text: "!") }
        // Another algorithm, or a header that nobody signed.
        let link = try domains.token().links[0]
        for (protected, unprotected) in [(CBOR.map([.init(key: .unsigned(1), value: .negative(6))]), CBOR.map([])),
            (.map([.init(key: .unsigned(1), value: .negative(7))]), .map([.init(key: .unsigned(4), value: .bytes([1]))]))]
        {
            let item = CBOR.tagged(18, .array([.bytes(protected.encoded), unprotected, .bytes(link.payload), .bytes(link.signature)]))
            #expect(throws: CapabilityError.malformed("a link is no COSE_Sign1 with an Ed25519 signature")) { try Capability(encoded: CBOR.array([item]).encoded) }
        }
    }
}

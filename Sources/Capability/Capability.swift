// A token: permission to move one machine once, from one host to another. It is verified offline against the keys of domains that are
// trusted, is of use only to the host whose key it names, and each domain that it passes may narrow it:
//
//   token          = array of 1 to Limits.tokenLinks links, in deterministic CBOR, at most Limits.tokenBytes
//   link           = COSE_Sign1 (RFC 9052), tagged 18: [protected {1: -8}, unprotected {}, claims, signature]
//   signature      = Ed25519 over the Sig_structure, whose external_aad is SHA-256 over the link before, or empty
//   signer of n+1  = the delegate that link n names; of the first, a key of its issuer
//
// The last link is what counts: it names a holder and no delegate, the others a delegate, so that nothing is gained by leaving links out.
// Every link says all that it grants (Claims.swift), so that it can be compared with the one before.

public import Crypto
internal import Foundation
internal import TurntableCore

public struct Capability: Sendable, Equatable {
    struct Link: Sendable, Equatable {
        var claims: Claims
        var payload: [UInt8]
        var signature: [UInt8]

        private static let protected = CBOR.map([.init(key: .unsigned(1), value: .negative(7))]).encoded

        init(_ claims: Claims, after previous: Link?, signedBy key: Curve25519.Signing.PrivateKey) throws(CapabilityError) {
            self.claims = claims
            payload = claims.encoded.encoded
            do { signature = Array(try key.signature(for: Self.signed(payload, after: previous))) } catch { throw .malformed("signing it failed: \(error)") }
        }

        init(decoding link: CBOR) throws(CapabilityError) {
            guard case .tagged(18, .array(let parts)) = link, parts.count == 4, parts[0] == .bytes(Self.protected), parts[1] == .map([]),
                case .bytes(let payload) = parts[2], case .bytes(let signature) = parts[3], signature.count == 64
            else { throw .malformed("a link is no COSE_Sign1 with an Ed25519 signature") }
            self.payload = payload
            self.signature = signature
            let item: CBOR
            do throws(CBORError) { item = try .decode(payload) } catch { throw .malformed(error.description) }
            claims = try Claims(decoding: item)
        }

        var item: CBOR { .tagged(18, .array([.bytes(Self.protected), .map([]), .bytes(payload), .bytes(signature)])) }

        private static func signed(_ payload: [UInt8], after previous: Link?) -> [UInt8] {
            let before = previous.map { Array(SHA256.hash(data: $0.item.encoded)) } ?? []
            return CBOR.array([.text("Signature1"), .bytes(protected), .bytes(before), .bytes(payload)]).encoded
        }

        func isSigned(by key: Curve25519.Signing.PublicKey, after previous: Link?) -> Bool {
            key.isValidSignature(signature, for: Self.signed(payload, after: previous))
        }
    }

    private(set) var links: [Link]

    /// What a domain grants.
    public static func issue(_ claims: Claims, signedBy key: Curve25519.Signing.PrivateKey) throws(CapabilityError) -> Capability {
        try Capability(encoded: Capability(links: [Link(claims, after: nil, signedBy: key)]).encoded)
    }

    /// What is left of it when its delegate has narrowed it.
    public func narrowed(to claims: Claims, signedBy key: Curve25519.Signing.PrivateKey) throws(CapabilityError) -> Capability {
        try claims.checkNarrower(than: self.claims, link: links.count + 1)
        guard self.claims.delegate == Array(key.publicKey.rawRepresentation) else { throw .badSignature(link: links.count + 1) }
        return try extended(by: claims, signedBy: key)
    }

    /// Without asking whether it narrows; then read as anybody reads it.
    func extended(by claims: Claims, signedBy key: Curve25519.Signing.PrivateKey) throws(CapabilityError) -> Capability {
        try Capability(encoded: Capability(links: links + [Link(claims, after: links.last, signedBy: key)]).encoded)
    }

    private init(links: [Link]) { self.links = links }

    // MARK: - As bytes and as text

    public init(encoded bytes: [UInt8]) throws(CapabilityError) {
        guard !bytes.isEmpty else { throw .missing }
        guard bytes.count <= Limits.tokenBytes else { throw .malformed("it has \(bytes.count) bytes, the most is \(Limits.tokenBytes)") }
        let item: CBOR
        do throws(CBORError) { item = try .decode(bytes) } catch { throw .malformed(error.description) }
        guard case .array(let items) = item, !items.isEmpty else { throw .malformed("it is no array of links") }
        guard items.count <= Limits.tokenLinks else { throw .chainTooLong(links: items.count) }
        links = []
        for item in items { links.append(try Link(decoding: item)) }
    }

    public var encoded: [UInt8] { CBOR.array(links.map(\.item)).encoded }

    /// Base64, as it is in files and in JSON.
    public init(text: String) throws(CapabilityError) {
        guard text.utf8.count <= 2 * Limits.tokenBytes, let bytes = Data(base64Encoded: text.filter { !$0.isWhitespace }) else {
            throw .malformed("it is no base64, or too long")
        }
        try self.init(encoded: Array(bytes))
    }

    public var text: String { Data(encoded).base64EncodedString() }

    // MARK: - Verifying

    /// What it grants, as it says itself: to be believed only after ``verify(_:_:at:)``.
    public var claims: Claims { links[links.count - 1].claims }

    /// Who passed it on, from the domain that granted it to the last link, for people.
    public var chain: [Claims] { links.map(\.claims) }

    /// Whether a trusted domain granted it, and each link only narrows the one before it.
    func checkChain(_ domains: TrustedDomains) throws(CapabilityError) {
        guard let keys = domains.keys[links[0].claims.issuer] else { throw .foreignDomain(links[0].claims.issuer) }
        guard keys.contains(where: { links[0].isSigned(by: $0, after: nil) }) else { throw .badSignature(link: 1) }
        for (index, (previous, next)) in zip(links, links.dropFirst()).enumerated() {
            let number = index + 2
            guard let raw = previous.claims.delegate else { throw .notDelegated(link: number) }
            guard let key = try? Curve25519.Signing.PublicKey(rawRepresentation: raw), next.isSigned(by: key, after: previous) else {
                throw .badSignature(link: number)
            }
            try next.claims.checkNarrower(than: previous.claims, link: number)
        }
        guard claims.delegate == nil, claims.holder != nil else { throw .unfinished }
    }

    /// Throws unless it grants this use, now. Whether it was used before or revoked is the ledger's to say (TokenLedger.swift).
    /// - Parameter now: Unix seconds.
    public func verify(_ use: Claims.Use, _ domains: TrustedDomains, at now: Int) throws(CapabilityError) {
        try checkChain(domains)
        try claims.check(use, at: now)
    }

    /// Throws unless whoever has the key may use this line now: what a link element asks, which knows neither machine nor hosts. It counts the
    /// byte budget itself.
    /// - Parameters:
    ///   - holder: SHA-256 of the SubjectPublicKeyInfo of the key.
    ///   - now: Unix seconds.
    public func verifyPassage(over line: String, holder: [UInt8], _ domains: TrustedDomains, at now: Int) throws(CapabilityError) {
        try checkChain(domains)
        try claims.checkWindow(at: now)
        guard claims.path == nil || claims.path == line else { throw .wrongPath(claims.path ?? "", wanted: line) }
        guard claims.holder == holder else { throw .wrongHolder }
    }
}

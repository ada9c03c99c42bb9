// Whom a link element lets through: who shows a pass of now for a token of a trusted domain that is bound to its key and fits the line.

internal import Capability
internal import Crypto
internal import Protection
internal import Synchronization
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What was used of a token here, by all connections together. It begins anew when the element is started again; what the ledger holds does not.
final class TokenUse: Sendable {
    let claims: Claims
    private let moved = Atomic(0)
    /// The last time that the ledger was asked whether it is revoked.
    private let asked = Atomic(0)
    private let isHandedOff = Atomic(false)

    init(_ claims: Claims) { self.claims = claims }

    var bytesMoved: Int { moved.load(ordering: .relaxed) }
    var isHandingOff: Bool { isHandedOff.load(ordering: .relaxed) }

    /// False if these are more than it grants.
    func spend(_ bytes: Int) -> Bool {
        let (_, now) = moved.add(bytes, ordering: .relaxed)
        return claims.byteBudget.map { now <= $0 } ?? true
    }

    /// True for the first.
    func handOff() -> Bool { !isHandedOff.exchange(true, ordering: .relaxed) }

    /// True once a second.
    func isDue(at now: Int) -> Bool { asked.exchange(now, ordering: .relaxed) != now }
}

/// Whoever was let through, on one connection.
struct Passage: Sendable {
    let use: TokenUse
    let key: SymmetricKey
    /// Where it goes on to.
    let next: Address
    let isNextElement: Bool
}

/// Where an element goes on to.
public struct NextHop: Sendable {
    private let host: String
    /// Nil: any.
    private let port: UInt16?

    /// Reads `host` or `host:port`.
    public init?(parsing text: String) {
        guard let address = Address(parsing: text, defaultPort: 0) else { return nil }
        host = address.host.lowercased()
        port = address.port == 0 ? nil : address.port
    }

    /// By name: no other name of the same host.
    func includes(_ address: Address) -> Bool { host == address.host.lowercased() && (port == nil || port == address.port) }
}

final class LinkGate: Sendable {
    private let line: String
    private let next: [NextHop]
    private let key: LinkKey
    private let domains: TrustedDomains
    private let ledger: TokenLedger
    private let now: @Sendable () -> Int
    private let known = Monitor(Known())

    private struct Known {
        var uses: [TokenID: TokenUse] = [:]
        /// Of passes that are young enough to be shown again.
        var nonces: [[UInt8]: Int] = [:]
    }

    /// - Parameter now: Unix seconds.
    init(line: String, next: [NextHop], key: LinkKey, domains: TrustedDomains, ledger: TokenLedger, now: @escaping @Sendable () -> Int) {
        (self.line, self.next, self.key, self.domains, self.ledger, self.now) = (line, next, key, domains, ledger, now)
    }

    /// - Throws: what is to be said to whoever shows it.
    func admit(_ pass: LinkPass) throws(TurntableError) -> Passage {
        let what = "a pass for \(line)"
        let now = now()
        let age = now - Int(clamping: pass.time)
        guard abs(age) <= Self.longestAge else {
            throw TurntableError(
                .refused, what, "it was made \(abs(age)) s \(age < 0 ? "from now" : "ago"), the most is \(Self.longestAge) s", remedy: "set both clocks")
        }
        guard let signer = Statement.keyDigest(of: pass.signedBytes, pass.signature) else {
            throw TurntableError(.refused, what, "its signature is not that of its certificate")
        }
        guard let (index, key) = key.open(pass) else {
            throw TurntableError(.refused, what, "no key is sealed to this element", remedy: "give --via this element's \(LinkKey.publicKeyFile)")
        }
        guard let way = Address(parsing: pass.elements[index].next, defaultPort: 0), next.contains(where: { $0.includes(way) }) else {
            throw TurntableError(
                .refused, what, "it goes on to \(pass.elements[index].next), and this element does not", remedy: "name the target as the element knows it")
        }
        let token: Capability
        do throws(CapabilityError) {
            token = try Capability(encoded: pass.token)
            try check(token, signer, at: now)
        } catch { throw error.error(what) }
        let use = known.update { known -> TokenUse? in
            known.nonces = known.nonces.filter { now - $0.value <= 2 * Self.longestAge }
            guard known.nonces.updateValue(now, forKey: pass.nonce) == nil else { return nil }
            known.uses = known.uses.filter { now <= $0.value.claims.notAfter + Self.overtime }
            let use = known.uses[token.claims.id] ?? TokenUse(token.claims)
            known.uses[token.claims.id] = use
            return use
        }
        guard let use else { throw TurntableError(.refused, what, "it was shown before") }
        return Passage(use: use, key: key, next: way, isNextElement: index < pass.elements.count - 1)
    }

    /// Whether the token grants this line to whoever has the key, now; after a hand-off under it, a while longer.
    private func check(_ token: Capability, _ holder: [UInt8], at now: Int) throws(CapabilityError) {
        let claims = token.claims
        let isRevoked = try ledger.isRevoked(claims.id)
        let isHandedOff = try ledger.isUsed(claims.id, as: Self.handOff, line) && now <= claims.notAfter + Self.overtime
        try token.verifyPassage(over: line, holder: holder, domains, at: isHandedOff ? min(now, claims.notAfter) : now)
        if isRevoked, !isHandedOff { throw .revoked(claims.id) }
    }

    /// Asked for each frame.
    /// - Throws: why it does not go on.
    func check(_ use: TokenUse, _ header: FrameHeader) throws(TurntableError) {
        let now = now()
        if header.kind == .deviceState, use.handOff() {
            do throws(CapabilityError) { try ledger.use(use.claims, as: Self.handOff, line) } catch { throw error.error("a hand-off") }
        }
        let claims = use.claims
        if now > claims.notAfter, !use.isHandingOff || now > claims.notAfter + Self.overtime {
            throw CapabilityError.expired(validUntil: claims.notAfter, now: now).error("a frame")
        }
        if use.isDue(at: now), !use.isHandingOff {
            let isRevoked: Bool
            do throws(CapabilityError) { isRevoked = try ledger.isRevoked(claims.id) } catch { throw error.error("a frame") }
            if isRevoked { throw CapabilityError.revoked(claims.id).error("a frame") }
        }
        guard use.spend(header.payloadBytes) else {
            throw TurntableError(
                .refused, "a frame", "the token grants \(ByteCount(claims.byteBudget ?? 0)), and that much has passed",
                remedy: "have one issued for more")
        }
    }

    /// Clocks and lines differ by less.
    private static let longestAge = Int(Limits.tokenClockDifference.seconds)
    /// What was handed off within the token's window may be heard so much longer.
    private static let overtime = Int(Limits.resumeWindow.seconds)
    private static let handOff = "handoff"
}

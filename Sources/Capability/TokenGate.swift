internal import TurntableCore

/// Lets machines in that a trusted domain has granted: what a receiver, and an agent, asks before it does anything.
public struct TokenGate: Sendable {
    public let domains: TrustedDomains
    public let ledger: TokenLedger
    private let now: @Sendable () -> Int

    /// - Parameter now: Unix seconds.
    public init(domains: TrustedDomains, ledger: TokenLedger, now: @escaping @Sendable () -> Int) {
        self.domains = domains
        self.ledger = ledger
        self.now = now
    }

    /// Uses a token, once for each `kind`; again for the same `what` it is the same use.
    @discardableResult
    public func admit(_ token: Capability, _ use: Claims.Use, as kind: String, _ what: String) throws(CapabilityError) -> Claims {
        let now = now()
        ledger.prune(at: now)
        try token.verify(use, domains, at: now)
        try ledger.use(token.claims, as: kind, what)
        return token.claims
    }

    /// A machine that is offered in band.
    /// - Parameter isHandedOff: the right to run was given away under this token already: that its window has ended since, or that it
    ///   was revoked, takes it from nobody.
    public func admit(_ token: [UInt8], _ use: Claims.Use, session: String, isHandedOff: Bool) throws(CapabilityError) -> Claims {
        let token = try Capability(encoded: token)
        if isHandedOff, try ledger.isUsed(token.claims.id, as: "session", session) { return token.claims }
        return try admit(token, use, as: "session", session)
    }

    /// Nobody uses it here any more. What is no token is nobody's.
    public func revoke(_ text: String?) throws(CapabilityError) {
        guard let text else { return }
        try ledger.revoke(Capability(text: text).claims)
    }
}

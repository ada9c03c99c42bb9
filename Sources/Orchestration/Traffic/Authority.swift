internal import Capability
internal import Crypto
internal import Foundation
internal import TurntableCore

/// Who may have which machine moved in a domain, and the tokens that tell the sites so.
struct Authority: Sendable {
    let domain: String
    let operators: Set<String>
    /// Without one, operators may have anything moved, and nobody else.
    var policy: Policy?
    /// What it signs tokens with; without one it issues none.
    var key: Curve25519.Signing.PrivateKey?

    func decide(_ question: Policy.Question) -> Policy.Decision {
        if let policy { return policy.decide(question) }
        guard operators.contains(question.who) else { return .denied("\(question.who) is no operator of \(domain), and it has no policy") }
        return .allowed(Policy.Grant(why: "\(question.who) is an operator of \(domain)"))
    }

    /// Throws unless whoever asked for it may have it, now.
    func authorise(_ record: MigrationRecord, _ machine: SiteMachine) throws(TurntableError) -> Policy.Grant {
        let question = Policy.Question(
            who: record.requestedBy, machine: machine.name, source: record.source ?? "", target: record.request.target, memoryBytes: machine.memoryBytes,
            time: .now)
        switch decide(question) {
        case .allowed(let grant): return grant
        case .denied(let why): throw TurntableError(.refused, "moving \(machine.name)", why, remedy: "see `turntable ctl policy check`")
        }
    }

    /// Permission for this one migration, of use to the source's host only.
    func token(
        for machine: SiteMachine, from source: SiteState, to target: SiteState, _ grant: Policy.Grant, signedBy key: Curve25519.Signing.PrivateKey
    ) throws(TurntableError) -> Capability {
        let now = Int(Date.now.timeIntervalSince1970)
        let claims = Claims(
            issuer: domain, machine: machine.name, epoch: Epoch(machine.nextEpoch), source: source.host, target: target.host, path: grant.path,
            notBefore: now - Int(Limits.tokenClockDifference.seconds), notAfter: now + Int(Limits.tokenTime.seconds), byteBudget: grant.byteBudget,
            holder: Array(source.key))
        do { return try .issue(claims, signedBy: key) } catch { throw error.error("issuing a token for \(machine.name)") }
    }
}

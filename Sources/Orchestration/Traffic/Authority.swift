internal import Capability
internal import Crypto
internal import Foundation
internal import TurntableCore

/// Who may have which machine moved in a domain, and the tokens that tell the sites so.
struct Authority: Sendable {
    let domain: String
    let operators: Set<String>
    /// Without one, operators may have anything moved, and nobody else.
    var policy: StandingPolicy?
    /// What it signs tokens with; without one it issues none.
    var key: Curve25519.Signing.PrivateKey?

    func decide(_ question: Policy.Question) -> Policy.Decision {
        if let policy { return policy.inForce.policy.decide(question) }
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

    /// Permission for one migration, of use to the source's host only. Nil without a key.
    /// - Parameter holder: SHA-256 of that host's key.
    func token(
        machine: String, epoch: UInt64, source: String, target: String, holder: [UInt8], _ grant: Policy.Grant
    ) throws(TurntableError) -> Capability? {
        guard let key else { return nil }
        let now = Int(Date.now.timeIntervalSince1970)
        let claims = Claims(
            issuer: domain, machine: machine, epoch: Epoch(epoch), source: source, target: target, path: grant.path,
            notBefore: now - Int(Limits.tokenClockDifference.seconds), notAfter: now + Int(Limits.tokenTime.seconds), byteBudget: grant.byteBudget,
            holder: holder)
        do { return try .issue(claims, signedBy: key) } catch { throw error.error("issuing a token for \(machine)") }
    }
}

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import TurntableCore

/// The policy: which is in force, and whether somebody may have a machine moved, asked without moving it.
struct PolicyAPI: Sendable {
    let api: OrchestratorAPI

    @Sendable func show(_ request: Request, _ context: Context) async throws -> Response {
        try .json(StandingPolicyResource(try standing().inForce))
    }

    /// Reads its file again, as SIGHUP does. This orchestrator's only: each has a file of its own.
    @Sendable func reload(_ request: Request, _ context: Context) async throws -> Response {
        try api.demandOperator(context, "reading the policy again")
        let policy = try standing()
        do throws(TurntableError) { try policy.readAgain() } catch {
            throw Problem(.conflict, "refused", error.what, error.why, remedy: "correct it; the policy stays as it was")
        }
        return try .json(StandingPolicyResource(policy.inForce))
    }

    private func standing() throws(Problem) -> StandingPolicy {
        guard let policy = api.authority.policy else {
            throw Problem(
                .notFound, "not-found", "the policy of \(api.domain)", "there is none: operators may have any machine moved", remedy: "serve --policy")
        }
        return policy
    }

    private struct Body: Decodable {
        var vm: String
        var target: String
        /// Whoever asks, unless it is said.
        var who: String?
        /// Now, unless it is said.
        var at: Date?
    }

    @Sendable func check(_ request: Request, _ context: Context) async throws -> Response {
        let body = try await request.json(Body.self)
        try Admission.check(MigrationRequest(vm: body.vm, target: body.target))
        let who = body.who?.lowercased() ?? context.peer
        if who != context.peer { try api.demandOperator(context, "asking what \(who.prefix(80)) may do") }
        guard let vm: Stored<VMRecord> = try await api.store.load(Key.vm(body.vm)) else { throw Problem.notFound("machine \(body.vm)") }
        let question = Policy.Question(who, body.vm, vm.record, to: body.target, at: body.at ?? .now)
        return try .json(PolicyResource(question, api.authority.decide(question)))
    }
}

extension Policy.Question {
    init(_ who: String, _ machine: String, _ vm: VMRecord, to target: String, at time: Date) {
        self.init(who: who, machine: machine, source: vm.site, target: target, memoryBytes: vm.memoryBytes, time: time)
    }
}

struct StandingPolicyResource: Encodable, Sendable {
    var digest: String
    var rules: Int
    var read: Date
    /// Why what its file says by now is not in force.
    var refused: String?

    init(_ policy: StandingPolicy.InForce) {
        digest = policy.digest
        rules = policy.policy.rules.count
        read = policy.read
        refused = policy.refused.map { "\($0.what): \($0.why)" }
    }
}

struct PolicyResource: Encodable, Sendable {
    var who: String
    var vm: String
    var source: String
    var target: String
    var at: Date
    var isAllowed: Bool
    /// Which rule, or what of which rules does not fit.
    var why: String
    /// The only line that may be used, and what may be moved, where the rule says so.
    var line: String?
    var byteBudget: Int?

    init(_ question: Policy.Question, _ decision: Policy.Decision) {
        who = question.who
        vm = question.machine
        source = question.source
        target = question.target
        at = question.time
        switch decision {
        case .allowed(let grant): (isAllowed, why, line, byteBudget) = (true, grant.why, grant.path, grant.byteBudget)
        case .denied(let reason): (isAllowed, why) = (false, reason)
        }
    }
}

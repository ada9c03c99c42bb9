internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import TurntableCore

/// Whether somebody may have a machine moved: asked without moving it.
struct PolicyAPI: Sendable {
    let api: OrchestratorAPI

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

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import TurntableCore

/// The agent's side of AgentMessages.swift.
struct AgentAPI: Sendable {
    let agent: SiteAgent
    /// Who may ask, by the names in their certificates.
    let orchestrators: Set<String>

    func routes() -> Routes {
        var routes = Routes()
        routes.add("/v1/site", (.get, { request, context in
            _ = try await admitted(request, context)
            return try .json(try await agent.site())
        }))
        routes.add("/v1/site/dirty-rates", (.get, { request, context in
            _ = try await admitted(request, context)
            return try .json(try await agent.programs.dirtyRates())
        }))
        routes.add("/v1/site/disks", (.get, { request, context in
            _ = try await admitted(request, context)
            return try .json(try await agent.disks(try TermHeader.of(request).domain))
        }))
        routes.add("/v1/slots/:migration", (.put, { request, context in
            let id = try await admitted(request, context)
            let slot = try await request.json(SlotRequest.self)
            return try .json(try await agent.hold(id, slot, for: try TermHeader.of(request).domain))
        }), (.delete, { request, context in
            let isDiscarding = request.uri.queryParameters["discard"] == "true"
            return try .json(try await agent.release(try await admitted(request, context), discarding: isDiscarding))
        }))
        routes.add("/v1/slots/:migration/receiver", (.put, { request, context in
            try .json(try await agent.receive(try await admitted(request, context)))
        }))
        routes.add("/v1/moves/:migration", (.put, { request, context in
            let id = try await admitted(request, context)
            let move = try await request.json(MoveRequest.self)
            do throws(TurntableError) { try MachineName.check(move.machine) } catch { throw Problem(.badRequest, "body", "machine", error.why) }
            return try .json(try await agent.move(id, move))
        }), (.get, { request, context in
            let move: Move = try await agent.move(try await admitted(request, context))
            return try .json(move)
        }), (.delete, { request, context in
            try .json(try await agent.withdraw(try await admitted(request, context)))
        }))
        return routes
    }

    /// The migration that an orchestrator asks about, if it may and is the master; empty if none is named.
    private func admitted(_ request: Request, _ context: Context) async throws -> String {
        guard orchestrators.contains(context.peer) else {
            throw Problem(
                .forbidden, "forbidden", "asking this site", "\(context.peer) is no orchestrator of it",
                remedy: "start the agent with --orchestrator \(context.peer)")
        }
        let term = try TermHeader.of(request)
        try await agent.heed(term.domain, term.number)
        guard let id = context.parameters.get("migration") else { return "" }
        // It is part of paths.
        guard Admission.isIdentifier(id) else { throw Problem.notFound("migration \(id.prefix(80))") }
        return id
    }
}

extension TermHeader {
    /// Whose orchestrator asks, and under which term.
    static func of(_ request: Request) throws(Problem) -> (domain: String, number: Revision) {
        guard let text = request.headers[.init(name)!], let term = parse(text) else {
            throw Problem(.badRequest, "term", "asking this site", "no domain and term are named", remedy: "send \(name): <domain> <term>")
        }
        return term
    }
}

internal import Capability
internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import NIOHTTP1
internal import TurntableCore

/// What another domain asks of this one: its part of a move from or to a site of this domain (RFC 2904's agent sequence, between domains).
struct GrantRequest: Codable, Sendable, Equatable {
    var vm: String
    /// Under which the target would run it.
    var epoch: UInt64
    var memoryBytes: Int
    var source: String
    var target: String
    /// The hosts as their certificates name them, and SHA-256 of the source's key.
    var sourceHost: String
    var targetHost: String
    var holder: Data

    /// Asks the orchestrator at `url`.
    func ask(_ url: String, _ client: Client) async throws(TurntableError) -> GrantResource {
        try await client.ask(.POST, "\(url)/v1/grants", self).decoded(GrantResource.self, "a grant of \(url)")
    }
}

struct GrantResource: Codable, Sendable, Equatable {
    var domain: String
    /// Why it may.
    var why: String
    /// For agents of this domain; nil if it has no key, and they need none.
    var token: String?
    /// The only line that may be used.
    var line: String?
}

/// Grants for other domains. Whoever asks is another domain's orchestrator, and this domain's policy says what it may have moved: nothing but
/// a token is given, and the sites verify that by themselves.
struct GrantsAPI: Sendable {
    let api: OrchestratorAPI

    @Sendable func create(_ request: Request, _ context: Context) async throws -> Response {
        let wanted = try await request.json(GrantRequest.self)
        for (member, name) in [("vm", wanted.vm), ("source", wanted.source), ("target", wanted.target)] {
            do throws(TurntableError) { try MachineName.check(name) } catch { throw Problem(.badRequest, "body", member, error.why) }
        }
        for (member, name) in [("sourceHost", wanted.sourceHost), ("targetHost", wanted.targetHost)] where name.isEmpty || name.utf8.count > Limits.nameBytes {
            throw Problem(.badRequest, "body", member, "it must have 1 to \(Limits.nameBytes) bytes")
        }
        guard wanted.holder.count == 32 else { throw Problem(.badRequest, "body", "holder", "it is no SHA-256") }
        guard wanted.memoryBytes > 0 else { throw Problem(.badRequest, "body", "memoryBytes", "it must be more than 0") }
        let what = "granting \(wanted.vm) to \(context.peer)"
        // Its own sites are known here: what is said of them must be so.
        let source = try await own(wanted.source)
        let target = try await own(wanted.target)
        guard source != nil || target != nil else { throw Problem.notFound("site \(wanted.source) or \(wanted.target)") }
        guard source.map({ $0.host == wanted.sourceHost && $0.key == wanted.holder }) ?? true, target.map({ $0.host == wanted.targetHost }) ?? true else {
            throw Problem(.conflict, "refused", what, "another host is there", remedy: "ask again when the site has been looked at")
        }
        let question = Policy.Question(
            who: context.peer, machine: wanted.vm, source: wanted.source, target: wanted.target, memoryBytes: wanted.memoryBytes, time: .now)
        let grant: Policy.Grant
        switch api.authority.decide(question) {
        case .allowed(let given): grant = given
        case .denied(let why): throw Problem(.forbidden, "forbidden", what, why, remedy: "ask \(api.domain) for a rule")
        }
        let token = try api.authority.token(
            machine: wanted.vm, epoch: wanted.epoch, source: wanted.sourceHost, target: wanted.targetHost, holder: Array(wanted.holder), grant)
        return try .json(GrantResource(domain: api.domain, why: grant.why, token: token?.text, line: grant.path))
    }

    /// A site that this domain's agents keep; nil if it is another domain's, or none.
    private func own(_ site: String) async throws -> SiteState? {
        guard let record: Stored<SiteRecord> = try await api.store.load(Key.site(site)), record.record.authority == nil else { return nil }
        guard let state: Stored<SiteState> = try await api.store.load(Key.siteState(site)) else {
            throw Problem(.conflict, "refused", "asking for \(site)", "its agent does not answer", remedy: "start it")
        }
        return state.record
    }
}

// The orchestrator's API, described by docs/openapi.yaml. Any orchestrator of a domain answers: all it reads and writes is in the
// store. Reading is for whoever has a certificate; changing is for operators, having machines moved for whom the policy allows it.

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import TurntableCore

struct OrchestratorAPI: Sendable {
    let store: any Store
    let name: String
    let authority: Authority
    var domain: String { authority.domain }
    var operators: Set<String> { authority.operators }
    var nsi: NSIRequester?

    func routes() -> Routes {
        var routes = Routes()
        if let nsi { NSIRepliesAPI(requester: nsi).add(to: &routes) }
        routes.add("/v1/status", (.get, status))
        routes.add("/v1/sites", (.get, listSites))
        routes.add("/v1/sites/:site", (.get, showSite), (.put, putSite), (.delete, deleteSite))
        routes.add("/v1/lines", (.get, listLines))
        routes.add("/v1/lines/:line", (.get, showLine), (.put, putLine), (.delete, deleteLine))
        routes.add("/v1/vms", (.get, listVMs))
        routes.add("/v1/vms/:vm", (.get, showVM))
        let policy = PolicyAPI(api: self)
        routes.add("/v1/policy", (.get, policy.show))
        routes.add("/v1/policy/reload", (.post, policy.reload))
        routes.add("/v1/policy/check", (.post, policy.check))
        routes.add("/v1/grants", (.post, GrantsAPI(api: self).create))
        let migrations = MigrationsAPI(api: self)
        routes.add("/v1/migrations", (.get, migrations.list), (.post, migrations.create))
        routes.add("/v1/migrations/:migration", (.get, migrations.show))
        routes.add("/v1/migrations/:migration/cancel", (.post, migrations.cancel))
        routes.add("/v1/migrations/:migration/rate", (.put, migrations.changeRate))
        routes.add("/v1/migrations/:migration/events", (.get, migrations.events))
        routes.add("/v1/accounting", (.get, AccountingAPI(api: self).list))
        let evacuations = EvacuationsAPI(api: self)
        routes.add("/v1/evacuations", (.get, evacuations.list), (.post, evacuations.create))
        routes.add("/v1/evacuations/:evacuation", (.get, evacuations.show))
        routes.add("/v1/evacuations/:evacuation/cancel", (.post, evacuations.cancel))
        return routes
    }

    // MARK: - Who asks, and for which part of a list

    func demandOperator(_ context: Context, _ what: String) throws {
        guard operators.contains(context.peer) else {
            throw Problem(
                .forbidden, "forbidden", what, "\(context.peer) is no operator of \(domain)",
                remedy: "start the orchestrators with --operator \(context.peer), or ask as one who is")
        }
    }

    /// - Parameters:
    ///   - first: What the first page begins after, if the list's begin is not meant.
    ///   - filters: Other parameters that the list has.
    func page(
        _ request: Request, _ prefix: String, after first: String? = nil, filters: Set<String> = []
    ) async throws -> (entries: [Entry], next: String?) {
        let parameters = request.uri.queryParameters
        for name in parameters.map(\.key) where !filters.union(["limit", "after"]).contains(String(name)) {
            throw Problem(.badRequest, "query", String(name.prefix(80)), "there is no such parameter")
        }
        let limitText = parameters["limit"].map(String.init) ?? "100"
        guard let limit = Int(limitText), (1...Limits.listEntries).contains(limit) else {
            throw Problem(.badRequest, "query", "limit", "it is \(limitText.prefix(80)), and must be 1 to \(Limits.listEntries)")
        }
        let after = parameters["after"].map(String.init)
        if let after, (try? MachineName.check(after)) == nil { throw Problem(.badRequest, "query", "after", "it is none that a list gave") }
        let entries = try await store.list(prefix, after: (after ?? first).map { prefix + $0 }, atMost: limit)
        return (entries, entries.count == limit ? entries.last?.name : nil)
    }

    // MARK: - What is under way

    /// The one that the path names.
    func load<Record: Undertaking>(_ context: Context) async throws -> Stored<Record> {
        let id = try context.parameters.require(Record.kind)
        guard Admission.isIdentifier(id), let found: Stored<Record> = try await store.load(Record.key(id)) else {
            throw Problem.notFound("\(Record.kind) \(id.prefix(80))")
        }
        return found
    }

    /// Refuses whoever neither asked for it nor is an operator.
    func demandOwn<Record: Undertaking>(_ type: Record.Type, _ context: Context, _ what: String) async throws {
        let isOwn = (try? await load(context) as Stored<Record>)?.record.requestedBy == context.peer
        if !isOwn { try demandOperator(context, "\(what) \(Record.kind) \(context.parameters.get(Record.kind)?.prefix(80) ?? "")") }
    }

    /// Whoever asked for it may have it cancelled, and operators may.
    func cancel<Record: Undertaking>(_ context: Context, _ show: (Record) async throws -> any Encodable) async throws -> Response {
        try await demandOwn(Record.self, context, "cancelling")
        while true {
            var one: Stored<Record> = try await load(context)
            guard !one.record.isOver else {
                if one.record.isCancelled { return try .json(try await show(one.record)) }
                throw Problem(.conflict, "over", "cancelling \(Record.kind) \(one.record.id)", "it is over already")
            }
            if !one.record.cancelRequested {
                one.record.requestCancel(by: context.peer)
                guard try await store.commit([one.condition], [one.write()]) != nil else { continue }
            }
            return try .json(try await show(one.record), status: .accepted)
        }
    }

    private func next(_ path: String, _ after: String?) -> String? { after.map { "\(path)?after=\($0)" } }

    @Sendable private func status(_ request: Request, _ context: Context) async throws -> Response {
        let master = try await store.read(Term.key).map { String(decoding: $0.value, as: UTF8.self) }
        return try .json(
            StatusResource(domain: domain, name: name, master: master, you: context.peer, mayChange: operators.contains(context.peer)))
    }

    /// Puts, and gives 201 if it is new.
    private func put<Record: Codable & Equatable & Sendable>(
        _ key: String, _ change: (Record?) throws -> Record, _ show: (Record) throws -> any Encodable
    ) async throws -> Response {
        while true {
            let known: Stored<Record>? = try await store.load(key)
            let stored = Stored(key: key, record: try change(known?.record), revision: known?.revision ?? 0)
            if stored != known, try await store.commit([stored.condition], [stored.write()]) == nil { continue }
            return try .json(show(stored.record), status: known == nil ? .created : .ok)
        }
    }

    private func activeMigrations() async throws -> [MigrationRecord] {
        var all: [MigrationRecord] = []
        for entry in try await store.list("active/") {
            if let migration: Stored<MigrationRecord> = try await store.load(Key.migration(entry.name)) { all.append(migration.record) }
        }
        return all
    }

    // MARK: - Sites

    private func resource(_ entry: Entry) async throws -> SiteResource {
        let state: Stored<SiteState>? = try await store.load(Key.siteState(entry.name))
        return SiteResource(entry.name, try entry.stored(SiteRecord.self).record, state?.record)
    }

    @Sendable private func listSites(_ request: Request, _ context: Context) async throws -> Response {
        let (entries, after) = try await page(request, "sites/")
        var items: [SiteResource] = []
        for entry in entries { items.append(try await resource(entry)) }
        return try .json(Page(items: items, next: next("/v1/sites", after)))
    }

    @Sendable private func showSite(_ request: Request, _ context: Context) async throws -> Response {
        let name = try context.name("site")
        guard let entry = try await store.read(Key.site(name)) else { throw Problem.notFound("site \(name)") }
        return try .json(try await resource(entry))
    }

    @Sendable private func putSite(_ request: Request, _ context: Context) async throws -> Response {
        let name = try context.name("site")
        try demandOperator(context, "describing site \(name)")
        let record = try await request.json(SiteRecord.self)
        guard isHost(record.agent) else { throw Problem(.badRequest, "body", "agent", "it is no https://host:port") }
        guard record.authority.map({ isHost($0) }) ?? true else { throw Problem(.badRequest, "body", "authority", "it is no https://host:port") }
        return try await put(Key.site(name), { (_: SiteRecord?) in record }, { SiteResource(name, $0, nil) })
    }

    @Sendable private func deleteSite(_ request: Request, _ context: Context) async throws -> Response {
        let name = try context.name("site")
        try demandOperator(context, "removing site \(name)")
        guard let entry = try await store.read(Key.site(name)) else { throw Problem.notFound("site \(name)") }
        if let migration = try await activeMigrations().first(where: { $0.source == name || $0.request.target == name }) {
            throw Problem(.conflict, "refused", "removing site \(name)", "migration \(migration.id) needs it", remedy: "cancel that one, or wait for its end")
        }
        _ = try await store.commit([.unchanged(entry.key, entry.revision)], [.delete(entry.key), .delete(Key.siteState(name))])
        return Response(status: .noContent)
    }

    // MARK: - Lines

    @Sendable private func listLines(_ request: Request, _ context: Context) async throws -> Response {
        let (entries, after) = try await page(request, "lines/")
        return try .json(Page(items: try entries.map { LineResource($0.name, try $0.stored(LineRecord.self).record) }, next: next("/v1/lines", after)))
    }

    @Sendable private func showLine(_ request: Request, _ context: Context) async throws -> Response {
        let name = try context.name("line")
        guard let line: Stored<LineRecord> = try await store.load(Key.line(name)) else { throw Problem.notFound("line \(name)") }
        return try .json(LineResource(name, line.record))
    }

    private struct LineBody: Decodable {
        var ends: [String]
        var bitsPerSecond: Double
        var roundTripMilliseconds: Double?
        var provider: LineProvider?
        var elements: [LinkElementRecord]?
    }

    @Sendable private func putLine(_ request: Request, _ context: Context) async throws -> Response {
        let name = try context.name("line")
        try demandOperator(context, "describing line \(name)")
        let body = try await request.json(LineBody.self)
        guard body.ends.count == 2, body.ends[0] != body.ends[1], body.ends.allSatisfy({ (try? MachineName.check($0)) != nil }) else {
            throw Problem(.badRequest, "body", "ends", "they are not the names of two sites")
        }
        guard (Admission.leastBitsPerSecond...Admission.mostBitsPerSecond).contains(body.bitsPerSecond) else {
            throw Problem(.badRequest, "body", "bitsPerSecond", "it must be \(Int(Admission.leastBitsPerSecond)) to \(Int(Admission.mostBitsPerSecond))")
        }
        if let time = body.roundTripMilliseconds, !(time >= 0 && time <= 60_000) {
            throw Problem(.badRequest, "body", "roundTripMilliseconds", "it must be 0 to 60000")
        }
        try body.provider?.check()
        try LinkElementRecord.check(body.elements ?? [], ends: body.ends)
        return try await put(
            Key.line(name),
            { (known: LineRecord?) in
                let reserved = known?.reserved ?? [:]
                // Who gave it must be asked to take it back.
                if let known, !reserved.isEmpty, known.ends != body.ends || known.provider != body.provider {
                    throw Problem(.conflict, "refused", "moving line \(name)", "\(reserved.count) migrations have some of it")
                }
                return LineRecord(
                    ends: body.ends, bitsPerSecond: body.bitsPerSecond, roundTripMilliseconds: body.roundTripMilliseconds, provider: body.provider,
                    elements: body.elements, reserved: reserved)
            }, { LineResource(name, $0) })
    }

    @Sendable private func deleteLine(_ request: Request, _ context: Context) async throws -> Response {
        let name = try context.name("line")
        try demandOperator(context, "removing line \(name)")
        guard let line: Stored<LineRecord> = try await store.load(Key.line(name)) else { throw Problem.notFound("line \(name)") }
        guard line.record.reserved.isEmpty, try await store.commit([line.condition], [.delete(line.key)]) != nil else {
            throw Problem(.conflict, "refused", "removing line \(name)", "a migration has some of it", remedy: "wait for its end")
        }
        return Response(status: .noContent)
    }

    // MARK: - Machines

    private func resource(_ id: String, _ record: VMRecord) async throws -> VMResource {
        var line: String?
        if let migration = record.migration { line = try await store.load(Key.migration(migration), MigrationRecord.self)?.record.line }
        return VMResource(id, record, line: line)
    }

    @Sendable private func listVMs(_ request: Request, _ context: Context) async throws -> Response {
        let (entries, after) = try await page(request, "vms/")
        var items: [VMResource] = []
        for entry in entries { items.append(try await resource(entry.name, try entry.stored(VMRecord.self).record)) }
        return try .json(Page(items: items, next: next("/v1/vms", after)))
    }

    @Sendable private func showVM(_ request: Request, _ context: Context) async throws -> Response {
        let name = try context.name("vm")
        guard let vm: Stored<VMRecord> = try await store.load(Key.vm(name)) else { throw Problem.notFound("machine \(name)") }
        let etag = VMResource.etag(vm.record)
        if request.headers[.ifNoneMatch]?.split(separator: ",").contains(where: { $0.drop { $0 == " " } == etag[...] }) == true {
            return Response(status: .notModified, headers: [.eTag: etag])
        }
        return try .json(try await resource(name, vm.record), headers: [.eTag: etag])
    }
}

/// Whether a text is https://host:port, or https://host.
func isHost(_ text: String, mayHavePath: Bool = false) -> Bool {
    guard let url = URLComponents(string: text), url.scheme == "https", let host = url.host, !host.isEmpty else { return false }
    return (mayHavePath || url.path.isEmpty) && url.query == nil && url.fragment == nil && url.user == nil && text.utf8.count <= 300
}

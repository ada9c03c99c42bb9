internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import TurntableCore

/// Evacuations: asked for, shown, cancelled. The master carries them on.
struct EvacuationsAPI: Sendable {
    let api: OrchestratorAPI
    private var store: any Store { api.store }

    @Sendable func show(_ request: Request, _ context: Context) async throws -> Response {
        let record = try await api.load(context).record as EvacuationRecord
        let moves: [Stored<EvacuationMove>] = try await store.loadAll(Key.moves(of: record.id))
        return try .json(EvacuationResource(record, moves.map(\.record).sorted { $0.order < $1.order }))
    }

    @Sendable func list(_ request: Request, _ context: Context) async throws -> Response {
        let (entries, after) = try await api.page(request, "evacuations/")
        return try .json(
            Page(items: try entries.map { EvacuationResource(try $0.stored(EvacuationRecord.self).record) }, next: after.map { "/v1/evacuations?after=\($0)" }))
    }

    @Sendable func create(_ request: Request, _ context: Context) async throws -> Response {
        var wanted = try await request.json(EvacuationRequest.self)
        try Self.check(wanted)
        guard wanted.source != wanted.target else { throw Problem(.conflict, "refused", "evacuating \(wanted.source)", "its machines are there already") }
        // A policy decides of each machine by itself.
        if api.authority.policy == nil { try api.demandOperator(context, "evacuating \(wanted.source)") }
        let id = wanted.id ?? UUID().uuidString.lowercased()
        wanted.id = id
        while true {
            if let known: Stored<EvacuationRecord> = try await store.load(Key.evacuation(id)) {
                guard known.record.request == wanted else {
                    throw Problem(.conflict, "refused", "evacuation \(id)", "there is another of that name", remedy: "choose a new id")
                }
                return try .json(EvacuationResource(known.record))
            }
            var conditions: [Condition] = [.absent(Key.evacuation(id))]
            for name in [wanted.source, wanted.target] {
                guard let site = try await store.read(Key.site(name)) else { throw Problem.notFound("site \(name)") }
                conditions.append(.unchanged(site.key, site.revision))
            }
            guard try await store.list("active-evacuations/", after: nil, atMost: Limits.activeEvacuations).count < Limits.activeEvacuations else {
                throw Problem(
                    .serviceUnavailable, "busy", "evacuating \(wanted.source)", "\(Limits.activeEvacuations) evacuations are under way",
                    remedy: "ask again later")
            }
            let record = EvacuationRecord(id: id, request: wanted, requestedBy: context.peer, created: .now, state: .scheduled)
            let writes: [Write] = [.put(Key.evacuation(id), try JSON.encode(record)), .put(Key.activeEvacuation(id), Data())]
            guard try await store.commit(conditions, writes) != nil else { continue }
            return try .json(EvacuationResource(record), status: .created, headers: [.location: "/v1/evacuations/\(id)"])
        }
    }

    /// What can be said of a request without looking anywhere.
    static func check(_ request: EvacuationRequest) throws(Problem) {
        func bad(_ member: String, _ why: String) -> Problem { Problem(.badRequest, "body", member, why) }
        let names = [("source", request.source), ("target", request.target)]
        let machines = (request.vms ?? []).map { ("vms", $0) } + (request.priorities ?? [:]).keys.map { ("priorities", $0) }
        for (member, name) in names + machines { do throws(TurntableError) { try MachineName.check(name) } catch { throw bad(member, error.why) } }
        if let vms = request.vms, vms.isEmpty || Set(vms).count != vms.count { throw bad("vms", "they must be one or more, each named once") }
        if let id = request.id, !Admission.isIdentifier(id) { throw bad("id", "it is no UUID in lower case") }
        if let time = request.downtimeMilliseconds, !(time >= 1 && time <= Admission.mostDowntimeMilliseconds) {
            throw bad("downtimeMilliseconds", "it must be 1 to \(Int(Admission.mostDowntimeMilliseconds))")
        }
        if let priority = request.priorities?.values.first(where: { !(-1000...1000).contains($0) }) {
            throw bad("priorities", "\(priority) is not within -1000 to 1000")
        }
    }

    @Sendable func cancel(_ request: Request, _ context: Context) async throws -> Response {
        try await api.cancel(context) { (record: EvacuationRecord) in EvacuationResource(record) }
    }
}

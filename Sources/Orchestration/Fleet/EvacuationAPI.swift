internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import TurntableCore

struct EvacuationResource: Encodable, Sendable {
    struct Machine: Encodable, Sendable {
        var vm: String
        var state: EvacuationPart.State
        var bitsPerSecond: Double
        /// By the plan.
        var begins: Date
        var ends: Date
        var problem: Problem?
        var links: Links
    }
    var id: String
    var site: String
    var target: String
    var state: EvacuationState
    var requestedBy: String
    var created: Date
    var ended: Date?
    var deadline: Date?
    /// When the plan is done.
    var planned: Date
    var moved: Int
    /// In the order of the plan.
    var machines: [Machine]
    var links: Links

    init(_ record: EvacuationRecord, _ parts: [EvacuationPart]) {
        id = record.id
        site = record.request.site
        target = record.request.target
        state = record.state
        requestedBy = record.requestedBy
        created = record.created
        ended = record.ended
        deadline = record.request.deadline
        planned = record.created + record.seconds
        moved = parts.count { $0.state == .moved }
        machines = parts.map { part in
            Machine(
                vm: part.vm, state: part.state, bitsPerSecond: part.bitsPerSecond, begins: record.created + part.begin, ends: record.created + part.end,
                problem: part.problem,
                links: Links(self: "/v1/vms/\(part.vm)", migration: part.state == .moving || part.state == .moved ? "/v1/migrations/\(part.migration)" : nil))
        }
        let path = "/v1/evacuations/\(record.id)"
        links = Links(
            self: path, source: "/v1/sites/\(record.request.site)", target: "/v1/sites/\(record.request.target)", line: "/v1/lines/\(record.line)",
            cancel: record.state == .running ? "\(path)/cancel" : nil)
    }
}

/// Evacuations: planned here when they are asked for, carried out by the master.
struct EvacuationAPI: Sendable {
    let api: OrchestratorAPI
    private var store: any Store { api.store }

    func add(to routes: inout Routes) {
        routes.add("/v1/evacuations", (.get, list), (.post, create))
        routes.add("/v1/evacuations/:evacuation", (.get, show))
        routes.add("/v1/evacuations/:evacuation/cancel", (.post, cancel))
    }

    private func load(_ context: Context) async throws -> Stored<EvacuationRecord> {
        let id = try context.parameters.require("evacuation")
        guard Admission.isIdentifier(id), let record: Stored<EvacuationRecord> = try await store.load(Key.evacuation(id)) else {
            throw Problem.notFound("evacuation \(id.prefix(80))")
        }
        return record
    }

    private func resource(_ record: EvacuationRecord) async throws -> EvacuationResource {
        EvacuationResource(record, try await store.parts(of: record.id).map(\.record))
    }

    @Sendable private func show(_ request: Request, _ context: Context) async throws -> Response {
        try .json(try await resource(try await load(context).record))
    }

    @Sendable private func list(_ request: Request, _ context: Context) async throws -> Response {
        let (entries, after) = try await api.page(request, "evacuations/")
        var items: [EvacuationResource] = []
        for entry in entries { items.append(try await resource(try entry.stored(EvacuationRecord.self).record)) }
        return try .json(Page(items: items, next: after.map { "/v1/evacuations?after=\($0)" }))
    }

    /// Nothing begins any more; what is under way goes on.
    @Sendable private func cancel(_ request: Request, _ context: Context) async throws -> Response {
        try api.demandOperator(context, "cancelling an evacuation")
        while true {
            var evacuation = try await load(context)
            guard evacuation.record.state == .running || evacuation.record.state == .cancelled else {
                throw Problem(.conflict, "over", "cancelling evacuation \(evacuation.record.id)", "it is \(evacuation.record.state.rawValue)")
            }
            if evacuation.record.state == .running {
                evacuation.record.state = .cancelled
                evacuation.record.ended = .now
                guard try await store.commit([evacuation.condition], [evacuation.write()]) != nil else { continue }
            }
            return try .json(try await resource(evacuation.record))
        }
    }

    @Sendable private func create(_ request: Request, _ context: Context) async throws -> Response {
        var wanted = try await request.json(EvacuationRequest.self)
        try check(wanted)
        try api.demandOperator(context, "evacuating \(wanted.site)")
        wanted.id = wanted.id ?? UUID().uuidString.lowercased()
        let id = wanted.id ?? ""
        if let known: Stored<EvacuationRecord> = try await store.load(Key.evacuation(id)) {
            guard known.record.request == wanted else {
                throw Problem(.conflict, "refused", "evacuation \(id)", "there is another of that name", remedy: "choose a new id")
            }
            return try .json(try await resource(known.record))
        }
        for name in [wanted.site, wanted.target] where try await store.read(Key.site(name)) == nil { throw Problem.notFound("site \(name)") }
        let (record, parts) = try await plan(wanted, context.peer)
        // In pieces that every store takes at once, and what makes them count last.
        for start in stride(from: 0, to: parts.count, by: 100) {
            let writes = try parts[start..<min(start + 100, parts.count)].map { Write.put(Key.evacuationParts(id) + $0.vm, try JSON.encode($0)) }
            _ = try await store.commit([.absent(Key.evacuation(id))], writes)
        }
        guard try await store.commit([.absent(Key.evacuation(id))], [.put(Key.evacuation(id), try JSON.encode(record))]) != nil else {
            throw Problem(.conflict, "busy", "evacuation \(id)", "it was asked for twice at the same time", remedy: "ask for it again")
        }
        return try .json(EvacuationResource(record, parts), status: .created, headers: [.location: "/v1/evacuations/\(id)"])
    }

    private func check(_ request: EvacuationRequest) throws(Problem) {
        func bad(_ member: String, _ why: String) -> Problem { Problem(.badRequest, "body", member, why) }
        for (member, name) in [("site", request.site), ("target", request.target)] {
            do throws(TurntableError) { try MachineName.check(name) } catch { throw bad(member, error.why) }
        }
        if request.site == request.target { throw Problem(.conflict, "refused", "evacuating \(request.site)", "it is the target too") }
        if let id = request.id, !Admission.isIdentifier(id) { throw bad("id", "it is no UUID in lower case") }
        if let count = request.concurrency, !(1...EvacuationRequest.mostConcurrency).contains(count) {
            throw bad("concurrency", "it must be 1 to \(EvacuationRequest.mostConcurrency)")
        }
        if let time = request.downtimeMilliseconds, !(time >= 1 && time <= Admission.mostDowntimeMilliseconds) {
            throw bad("downtimeMilliseconds", "it must be 1 to \(Int(Admission.mostDowntimeMilliseconds))")
        }
        if let rate = request.dirtyBytesPerSecond, !(rate >= 0 && rate <= 1e12) { throw bad("dirtyBytesPerSecond", "it must be 0 to 1e12") }
    }

    private func plan(_ request: EvacuationRequest, _ peer: String) async throws -> (EvacuationRecord, [EvacuationPart]) {
        let what = "evacuating \(request.site)"
        let lines = try await store.loadAll("lines/", LineRecord.self).filter { $0.record.joins(request.site, request.target) }
        guard let line = lines.max(by: { $0.record.freeBitsPerSecond < $1.record.freeBitsPerSecond }),
            line.record.freeBitsPerSecond >= Admission.leastBitsPerSecond
        else {
            throw Problem(
                .conflict, "refused", what, "no line to \(request.target) is known that has anything free", remedy: "describe one with `turntable ctl line`")
        }
        let machines = try await store.loadAll("vms/", VMRecord.self)
            .filter { $0.record.site == request.site && $0.record.state == "here" && $0.record.migration == nil }
            .map {
                EvacuationPlan.Machine(
                    name: String($0.key.dropFirst("vms/".count)), memoryBytes: Double($0.record.memoryBytes),
                    dirtyBytesPerSecond: $0.record.dirtyBytesPerSecond ?? request.dirtyBytesPerSecond ?? EvacuationRequest.usualDirtyBytesPerSecond)
            }
        let rate = line.record.freeBitsPerSecond / 8
        let plan = EvacuationPlan.make(
            machines,
            EvacuationPlan.Limits(
                lineBytesPerSecond: rate, mostBytesPerSecond: rate, leastBytesPerSecond: min(rate, Admission.leastBitsPerSecond / 8),
                concurrency: request.concurrency ?? EvacuationRequest.usualConcurrency,
                downtimeSeconds: (request.downtimeMilliseconds ?? Admission.downtimeMilliseconds) / 1000, fixedSeconds: EvacuationRequest.fixedSeconds))
        if let deadline = request.deadline, .now + plan.seconds > deadline {
            throw Problem(
                .conflict, "refused", what,
                "\(plan.parts.count) machines take \(Nanoseconds.seconds(plan.seconds)) at \(BitRate(bitsPerSecond: rate * 8)), and the deadline is sooner",
                remedy: "choose a later one, or a line that is wider")
        }
        var parts = plan.parts.enumerated().map { order, part in
            EvacuationPart(
                vm: part.name, order: order, migration: UUID().uuidString.lowercased(), bitsPerSecond: (part.bytesPerSecond * 8).rounded(.down),
                begin: part.begin, end: part.end)
        }
        for name in plan.hopeless {
            let problem = Problem(
                .conflict, "refused", "moving \(name)", "it writes faster than \(BitRate(bitsPerSecond: rate * 8))", remedy: "stop it, or take a wider line")
            parts.append(
                EvacuationPart(
                    vm: name, order: parts.count, migration: UUID().uuidString.lowercased(), bitsPerSecond: 0, begin: 0, end: 0, state: .stayed,
                    problem: problem))
        }
        let record = EvacuationRecord(
            id: request.id ?? "", request: request, requestedBy: peer, created: .now, line: String(line.key.dropFirst("lines/".count)),
            seconds: plan.seconds)
        return (record, parts)
    }
}

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import NIOCore
internal import TurntableCore

/// Migrations: asked for, shown, followed, cancelled. What is decided about one is decided by its saga.
struct MigrationsAPI: Sendable {
    let api: OrchestratorAPI
    private var store: any Store { api.store }

    private func resource(_ record: MigrationRecord) async throws -> MigrationResource {
        let progress: Stored<MoveProgress>? = record.state.isOver ? nil : try await store.load(Key.progress(record.id))
        return MigrationResource(record, progress?.record)
    }

    @Sendable func show(_ request: Request, _ context: Context) async throws -> Response {
        try .json(try await resource(try await api.load(context).record))
    }

    /// All, or those of one machine, or those that are not over: a page of the first two may then have fewer than it could.
    @Sendable func list(_ request: Request, _ context: Context) async throws -> Response {
        let parameters = request.uri.queryParameters
        var prefix = "migrations/"
        var query = ""
        if let vm = parameters["vm"].map(String.init) {
            guard (try? MachineName.check(vm)) != nil else { throw Problem(.badRequest, "query", "vm", "it is no name of a machine") }
            prefix = "by-vm/\(vm)/"
            query = "&vm=\(vm)"
        }
        let active = parameters["active"].map(String.init)
        if let active {
            guard active == "true" else { throw Problem(.badRequest, "query", "active", "it can only be true") }
            if query.isEmpty { prefix = "active/" }
            query += "&active=true"
        }
        let (entries, after) = try await api.page(request, prefix, filters: ["vm", "active"])
        var items: [MigrationResource] = []
        for entry in entries {
            guard let migration: Stored<MigrationRecord> = try await store.load(Key.migration(entry.name)),
                active == nil || !migration.record.state.isOver
            else { continue }
            items.append(try await resource(migration.record))
        }
        return try .json(Page(items: items, next: after.map { "/v1/migrations?after=\($0)\(query)" }))
    }

    // MARK: - Asking for one

    @Sendable func create(_ request: Request, _ context: Context) async throws -> Response {
        var wanted = try await request.json(MigrationRequest.self)
        try Admission.check(wanted)
        // A policy knows more about it, once it is known where the machine is.
        if api.authority.policy == nil { try api.demandOperator(context, "moving \(wanted.vm)") }
        wanted.id = wanted.id ?? UUID().uuidString.lowercased()
        while true {
            guard let (record, isNew) = try await Admission.admit(wanted, by: context.peer, under: api.authority, to: store) else { continue }
            guard isNew else { return try .json(try await resource(record)) }
            return try .json(MigrationResource(record, nil), status: .created, headers: [.location: "/v1/migrations/\(record.id)"])
        }
    }

    @Sendable func cancel(_ request: Request, _ context: Context) async throws -> Response {
        try await api.cancel(context) { (record: MigrationRecord) in try await resource(record) }
    }

    /// Another rate for one that moves. Whether its line has it, its saga finds out.
    @Sendable func changeRate(_ request: Request, _ context: Context) async throws -> Response {
        struct Wanted: Decodable { var bitsPerSecond: Double }
        let wanted = try await request.json(Wanted.self).bitsPerSecond
        guard wanted >= Admission.leastBitsPerSecond, wanted <= Admission.mostBitsPerSecond else {
            throw Problem(.badRequest, "body", "bitsPerSecond", Admission.rateBounds)
        }
        try await api.demandOwn(MigrationRecord.self, context, "changing the rate of")
        while true {
            var one: Stored<MigrationRecord> = try await api.load(context)
            guard one.record.step == .move, one.record.state == .running, one.record.line != nil else {
                throw Problem(
                    .conflict, "refused", "changing the rate of migration \(one.record.id)",
                    one.record.line == nil ? "it has no line" : "it is not being moved", remedy: "see how it stands")
            }
            one.record.wantedBitsPerSecond = wanted
            one.record.note("\(context.peer) wants \(BitRate(bitsPerSecond: wanted)) for it")
            if try await store.commit([one.condition], [one.write()]) != nil { return try .json(try await resource(one.record), status: .accepted) }
        }
    }

    // MARK: - Following one

    /// Server-sent events: the migration as it is, and again each time that it changes, until it is over.
    @Sendable func events(_ request: Request, _ context: Context) async throws -> Response {
        let migration: Stored<MigrationRecord> = try await api.load(context)
        let id = migration.record.id
        let watches = [try await store.watch(Key.migration(id)), try await store.watch(Key.progress(id))]
        let body = ResponseBody { writer in
            let (signals, signal) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
            let tasks =
                watches.map { watch in
                    Task {
                        for await _ in Watched(watch) { signal.yield() }
                        signal.finish()
                    }
                } + [
                    Task {
                        while !Task.isCancelled {
                            try? await Task.sleep(for: .nanoseconds(Limits.eventPulseTime.value))
                            signal.yield()
                        }
                    }
                ]
            defer { for task in tasks { task.cancel() } }
            var last = Data()
            var iterator = signals.makeAsyncIterator()
            repeat {
                guard let now: Stored<MigrationRecord> = try await store.load(Key.migration(id)) else { break }
                let data = try JSON.encode(try await resource(now.record))
                let text = data == last ? ":\n\n" : "id: \(now.revision)\nevent: migration\ndata: \(String(decoding: data, as: UTF8.self))\n\n"
                last = data
                try await writer.write(ByteBuffer(string: text))
                if now.record.state.isOver { break }
            } while await iterator.next() != nil
            try await writer.finish(nil)
        }
        return Response(status: .ok, headers: [.contentType: "text/event-stream", .cacheControl: "no-store"], body: body)
    }
}

internal import Foundation
internal import TurntableCore

/// Whether a migration can begin, as far as the records say.
enum Admission {
    /// The downtime budget unless somebody says otherwise, as `turntable send`'s.
    static let downtimeMilliseconds = 300.0
    static let leastBitsPerSecond = 1e6
    static let mostBitsPerSecond = 1e13
    static let mostDowntimeMilliseconds = 3_600_000.0

    static func check(_ request: MigrationRequest, _ vm: VMRecord) throws(Problem) {
        if let epoch = request.epoch, epoch != vm.epoch {
            throw Problem(
                .preconditionFailed, "epoch", "moving \(request.vm)", "its epoch is \(vm.epoch), and the request is for \(epoch)",
                remedy: "look where it is now, and decide again")
        }
        if vm.site == request.target {
            throw Problem(.conflict, "refused", "moving \(request.vm)", "it is at \(request.target) already")
        }
        guard vm.state == "here" || vm.state == "migrating" || vm.state == "interrupted" else {
            throw Problem(.conflict, "refused", "moving \(request.vm)", "it is \(vm.state) at \(vm.site)", remedy: "start it there first")
        }
    }

    /// What can be said of a request without looking anywhere.
    static func check(_ request: MigrationRequest) throws(Problem) {
        func bad(_ member: String, _ why: String) -> Problem { Problem(.badRequest, "body", member, why) }
        for (member, name) in [("vm", request.vm), ("target", request.target)] {
            do throws(TurntableError) { try MachineName.check(name) } catch { throw bad(member, error.why) }
        }
        if let id = request.id, !isIdentifier(id) { throw bad("id", "it is no UUID in lower case") }
        if let time = request.downtimeMilliseconds, !(time >= 1 && time <= mostDowntimeMilliseconds) {
            throw bad("downtimeMilliseconds", "it must be 1 to \(Int(mostDowntimeMilliseconds))")
        }
        if let rate = request.bitsPerSecond, !(rate >= leastBitsPerSecond && rate <= mostBitsPerSecond) {
            throw bad("bitsPerSecond", "it must be \(BitRate(bitsPerSecond: leastBitsPerSecond)) to \(BitRate(bitsPerSecond: mostBitsPerSecond))")
        }
        if let streams = request.streams, !(1...Limits.streams).contains(streams) { throw bad("streams", "it must be 1 to \(Limits.streams)") }
    }

    /// Makes the migration that is asked for, or gives the one of that name that there is.
    static func admit(_ request: MigrationRequest, by peer: String, in store: any Store) async throws -> (record: MigrationRecord, isNew: Bool) {
        while true {
            if let admitted = try await attempt(request, peer, store) { return admitted }
        }
    }

    /// One attempt; nil if something changed meanwhile.
    private static func attempt(_ request: MigrationRequest, _ peer: String, _ store: any Store) async throws -> (record: MigrationRecord, isNew: Bool)? {
        let id = request.id ?? ""
        if let known: Stored<MigrationRecord> = try await store.load(Key.migration(id)) {
            guard known.record.request == request else {
                throw Problem(.conflict, "refused", "migration \(id)", "there is another of that name", remedy: "choose a new id")
            }
            return (known.record, false)
        }
        guard var vm: Stored<VMRecord> = try await store.load(Key.vm(request.vm)) else { throw Problem.notFound("machine \(request.vm)") }
        guard let site = try await store.read(Key.site(request.target)) else { throw Problem.notFound("site \(request.target)") }
        guard try await store.list("active/", after: nil, atMost: Limits.activeMigrations).count < Limits.activeMigrations else {
            throw Problem(.serviceUnavailable, "busy", "moving \(request.vm)", "\(Limits.activeMigrations) migrations are under way", remedy: "ask again later")
        }
        var record = MigrationRecord(id: id, request: request, requestedBy: peer, created: .now, state: .scheduled, step: .hold)
        record.note("\(peer) asked to move \(request.vm) to \(request.target)")
        // The site stays as long as a migration to it is under way.
        var conditions: [Condition] = [.absent(Key.migration(id)), .unchanged(site.key, site.revision)]
        var writes: [Write] = [.put(Key.ofVM(request.vm, id), Data()), .put(Key.active(id), Data())]
        if request.startAt ?? .distantPast <= .now {
            try check(request, vm.record)
            if let other = vm.record.migration {
                throw Problem(.conflict, "busy", "moving \(request.vm)", "migration \(other) moves it", remedy: "wait for its end, or cancel it")
            }
            record.begin(vm.record)
            vm.record.migration = id
            conditions.append(vm.condition)
            writes.append(try vm.write())
        }
        writes.append(.put(Key.migration(id), try JSON.encode(record)))
        guard try await store.commit(conditions, writes) != nil else { return nil }
        return (record, true)
    }

    /// A migration's name: a UUID, in one spelling.
    static func isIdentifier(_ text: String) -> Bool { UUID(uuidString: text)?.uuidString.lowercased() == text }
}

internal import Foundation
internal import TurntableCore

/// Whether a migration can begin, as far as the records say.
enum Admission {
    /// The downtime budget unless somebody says otherwise, as `turntable send`'s.
    static let downtimeMilliseconds = 300.0
    static let leastBitsPerSecond = 1e6
    static let mostBitsPerSecond = 1e13
    static let mostDowntimeMilliseconds = 3_600_000.0
    /// Every reader of JSON can count so far.
    static let mostEpoch: UInt64 = (1 << 53) - 1

    static let rateBounds = "it must be \(BitRate(bitsPerSecond: leastBitsPerSecond)) to \(BitRate(bitsPerSecond: mostBitsPerSecond))"

    static func check(_ request: MigrationRequest, _ vm: VMRecord) throws(Problem) {
        if let epoch = request.epoch, epoch != vm.epoch {
            throw Problem(
                .preconditionFailed, "epoch", "moving \(request.vm)", "its epoch is \(vm.epoch), and the request is for \(epoch)",
                remedy: "look where it is now, and decide again")
        }
        if vm.site == request.target {
            throw Problem(.conflict, "refused", "moving \(request.vm)", "it is at \(request.target) already")
        }
        guard vm.isPresent else {
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
            throw bad("bitsPerSecond", rateBounds)
        }
        if let epoch = request.epoch, epoch > mostEpoch { throw bad("epoch", "it must be at most \(mostEpoch)") }
        if let streams = request.streams, !(1...Limits.streams).contains(streams) { throw bad("streams", "it must be 1 to \(Limits.streams)") }
    }

    /// Makes a migration, unless there is one of that name, together with what else is to be written. Nil if something changed meanwhile: look
    /// again.
    static func admit(
        _ request: MigrationRequest, by peer: String, under authority: Authority, to store: any Store, with others: [Condition] = [], _ more: [Write] = []
    ) async throws -> (record: MigrationRecord, isNew: Bool)? {
        if let known = try await known(request, in: store) { return (known, false) }
        do {
            return try await begin(request, by: peer, under: authority, in: store, with: others, more).map { ($0, true) }
        } catch let problem as Problem {
            // The same was asked for at the same time, and began: it is this that stands in its own way.
            guard let known = try await known(request, in: store) else { throw problem }
            return (known, false)
        }
    }

    private static func known(_ request: MigrationRequest, in store: any Store) async throws -> MigrationRecord? {
        let id = request.id ?? ""
        guard let known: Stored<MigrationRecord> = try await store.load(Key.migration(id)) else { return nil }
        guard known.record.request == request else {
            throw Problem(.conflict, "refused", "migration \(id)", "there is another of that name", remedy: "choose a new id")
        }
        return known.record
    }

    private static func begin(
        _ request: MigrationRequest, by peer: String, under authority: Authority, in store: any Store, with others: [Condition], _ more: [Write]
    ) async throws -> MigrationRecord? {
        let id = request.id ?? ""
        guard var vm: Stored<VMRecord> = try await store.load(Key.vm(request.vm)) else { throw Problem.notFound("machine \(request.vm)") }
        guard let site = try await store.read(Key.site(request.target)) else { throw Problem.notFound("site \(request.target)") }
        let question = Policy.Question(peer, request.vm, vm.record, to: request.target, at: max(request.startAt ?? .distantPast, .now))
        if case .denied(let why) = authority.decide(question) {
            throw Problem(.forbidden, "forbidden", "moving \(request.vm)", why, remedy: "see `turntable ctl policy check`")
        }
        guard try await store.list("active/", after: nil, atMost: Limits.activeMigrations).count < Limits.activeMigrations else {
            throw Problem(.serviceUnavailable, "busy", "moving \(request.vm)", "\(Limits.activeMigrations) migrations are under way", remedy: "ask again later")
        }
        var record = MigrationRecord(id: id, request: request, requestedBy: peer, created: .now, state: .scheduled, step: .authorise)
        record.note("\(peer) asked to move \(request.vm) to \(request.target)")
        // The site stays as long as a migration to it is under way.
        var conditions = others + [.absent(Key.migration(id)), .unchanged(site.key, site.revision)]
        var writes = more + [.put(Key.ofVM(request.vm, id), Data()), .put(Key.active(id), Data())]
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
        return try await store.commit(conditions, writes) == nil ? nil : record
    }

    /// A migration's name: a UUID, in one spelling.
    static func isIdentifier(_ text: String) -> Bool { UUID(uuidString: text)?.uuidString.lowercased() == text }
}

// One migration, from its begin to its end, by the master. The record in the store says which step is under way *before* anything
// of it is done, and every step may be done again: so a master that dies at any instant is followed by one that reads the record
// and goes on.
//
//   scheduled ─▶ authorise ─▶ hold ─▶ reserve ─▶ move ─▶ settle ─▶ completed
//                  │          │           │        │ the machine stayed
//                  └──────────┴───────────┴────────┴──▶ undoing ─▶ failed, or cancelled
//
// Until `move` is begun, a step that fails is followed by undoing. From then on only the source's site knows whose the machine is,
// and nothing is undone before it has said so: the master asks it for as long as that takes. Undoing gives back what may be held,
// last first. Whatever belongs to the store (the machine's lock, the line's reservation, the record) changes in one transaction,
// which is conditional on the term.

internal import Capability
internal import Foundation
internal import Lightpaths
internal import Logging
internal import TurntableCore
internal import TurntableLinux

struct Saga: Sendable {
    let id: String
    let master: Master

    typealias Migration = Stored<MigrationRecord>

    func run() async {
        while !Task.isCancelled {
            do {
                guard let migration: Migration = try await master.store.load(Key.migration(id)), !migration.record.state.isOver else { return }
                try await advance(migration)
            } catch {
                if Task.isCancelled { return }
                master.log.warning("\(id): \(error)")
                try? await Task.sleep(for: .nanoseconds(Limits.agentRetryTime.value))
            }
        }
    }

    private func advance(_ migration: Migration) async throws {
        let record = migration.record
        if record.state == .scheduled { return try await begin(migration) }
        if record.state == .undoing { return try await undo(migration) }
        if record.cancelRequested, !record.began(.move) {
            return try await beginUndoing(migration, Problem(.conflict, "cancelled", "migration \(id)", "it was cancelled before it moved"))
        }
        do throws(TurntableError) {
            switch record.step {
            case .authorise: try await authorise(migration)
            case .hold: try await hold(migration)
            case .reserve: try await reserve(migration)
            case .move: try await move(migration)
            case .settle: try await settle(migration)
            }
        } catch {
            // Who cannot be reached is asked again; before the move, not for ever.
            let sinceStep = Date.now.timeIntervalSince(record.events.last?.time ?? record.created)
            let isPatient = error.kind == .line && (record.began(.move) || sinceStep < Limits.agentPatience.seconds)
            if isPatient || record.began(.move) { throw error }
            try await beginUndoing(migration, Problem(error))
        }
    }

    // MARK: - Writing

    /// Writes the changed record, and whatever belongs to the change, if this is still the master and nobody else wrote.
    func commit(
        _ migration: Migration, _ others: [Condition] = [], _ writes: [Write] = [], _ change: (inout MigrationRecord) -> Void
    ) async throws(TurntableError) {
        var changed = migration
        change(&changed.record)
        let conditions = [master.term.condition, migration.condition] + others
        if try await master.store.commit(conditions, [changed.write()] + writes) != nil { return }
        // Somebody wrote one of them meanwhile, or this is the master no longer: look again.
        try? await Task.sleep(for: .nanoseconds(Limits.agentPollTime.value))
    }

    private func beginUndoing(_ migration: Migration, _ problem: Problem) async throws(TurntableError) {
        try await commit(migration) {
            $0.state = .undoing
            $0.problem = problem
            $0.note("\($0.step.rawValue) failed: \(problem.detail)")
        }
    }

    // MARK: - Forward

    /// At its time a migration takes its machine, which only one may have.
    private func begin(_ migration: Migration) async throws {
        let request = migration.record.request
        if migration.record.cancelRequested {
            return try await end(migration, .cancelled, Problem(.conflict, "cancelled", "migration \(id)", "it was cancelled before its time"))
        }
        if let time = request.startAt, time > .now {
            return try await master.waitForChange(of: migration.key, since: migration.revision, atMost: min(time.timeIntervalSinceNow, 60))
        }
        guard var vm: Stored<VMRecord> = try await master.store.load(Key.vm(request.vm)) else {
            return try await end(migration, .failed, .notFound("machine \(request.vm)"))
        }
        do throws(Problem) { try Admission.check(request, vm.record) } catch {
            return try await end(migration, .failed, error)
        }
        if vm.record.migration != nil {
            // Its turn comes when the other one is over.
            return try await master.waitForChange(of: vm.key, since: vm.revision, atMost: 60)
        }
        vm.record.migration = id
        let record = vm.record
        try await commit(migration, [vm.condition], [try vm.write()]) { $0.begin(record) }
    }

    private func authorise(_ migration: Migration) async throws(TurntableError) {
        let record = migration.record
        let (source, machine) = try await machineAtSource(record)
        let grant = try master.authority.authorise(record, machine)
        let target = try await master.agent(record.request.target).site()
        let issued = try master.authority.token(
            machine: machine.name, epoch: machine.nextEpoch, source: source.host, target: target.host, holder: Array(source.key), grant)
        // Each domain that has a site in it grants its part, to this domain.
        let wanted = GrantRequest(
            vm: machine.name, epoch: machine.nextEpoch, memoryBytes: machine.memoryBytes, source: record.source ?? "", target: record.request.target,
            sourceHost: source.host, targetHost: target.host, holder: source.key)
        let ofSource = try await foreignGrant(record.source ?? "", wanted)
        let ofTarget = try await foreignGrant(record.request.target, wanted)
        let lines = Set([grant.path, ofSource?.line, ofTarget?.line].compactMap { $0 })
        guard lines.count <= 1 else {
            throw TurntableError(
                .refused, "moving \(machine.name)", "the domains grant different lines: \(lines.sorted().joined(separator: ", "))",
                remedy: "agree on one in their policies")
        }
        try await commit(migration) {
            $0.token = ofSource?.token ?? issued?.text
            $0.targetToken = ofTarget?.token ?? issued?.text
            $0.grantedLine = lines.first
            $0.note("\($0.requestedBy) may move it: \(grant.why)" + (issued.map { "; \($0.claims.id) says so" } ?? ""))
            for part in [ofSource, ofTarget].compactMap({ $0 }) { $0.note("\(part.domain) grants its part: \(part.why)") }
            $0.step = .hold
        }
    }

    /// What the domain of a site grants; nil if the site is this domain's own.
    private func foreignGrant(_ site: String, _ wanted: GrantRequest) async throws(TurntableError) -> GrantResource? {
        let record: Stored<SiteRecord>? = try await master.store.load(Key.site(site))
        guard let authority = record?.record.authority else { return nil }
        return try await wanted.ask(authority, master.client)
    }

    private func machineAtSource(_ record: MigrationRecord) async throws(TurntableError) -> (SiteState, SiteMachine) {
        let source = try await master.agent(record.source ?? "").site()
        guard let machine = source.machines.first(where: { $0.name == record.request.vm && $0.isHere }) else {
            throw TurntableError(.refused, "moving \(record.request.vm)", "it is not at \(record.source ?? "") any more")
        }
        return (source, machine)
    }

    private func hold(_ migration: Migration) async throws(TurntableError) {
        let record = migration.record
        let (source, machine) = try await machineAtSource(record)
        let disks = record.request.disks == true ? try await disksAtSource(record) : nil
        let slot = try await master.agent(record.request.target).hold(
            id,
            SlotRequest(machine: machine.name, memoryBytes: machine.memoryBytes, processors: machine.processors, sourceHost: source.host, disks: disks,
                site: record.request.target, token: record.targetToken))
        try await commit(migration) {
            $0.slotUntil = slot.until
            $0.disks = disks
            let room = disks.map { ", and \(ByteCount($0.reduce(0) { $0 + $1.bytes })) for \($0.count) disks" } ?? ""
            $0.proceed(to: .reserve, "\($0.request.target) holds \(ByteCount(machine.memoryBytes)) and \(machine.processors) processors\(room)")
        }
    }

    private func disksAtSource(_ record: MigrationRecord) async throws(TurntableError) -> [MachineDisk] {
        let source = record.source ?? ""
        if let disks = try await master.agent(source).disks().machines[record.request.vm] { return disks }
        // Of this kind, so that it is asked again.
        throw TurntableError(
            .line, "looking for the disks of \(record.request.vm)", "\(source) cannot say now which it has",
            remedy: "see `turntable status --json --disks` there")
    }

    /// A line's reservation and the record that names it are written in one transaction, before its provider is asked for it.
    private func reserve(_ migration: Migration) async throws(TurntableError) {
        let record = migration.record
        if record.line != nil { return try await provision(migration) }
        let lines: [Stored<LineRecord>] = try await master.store.loadAll("lines/")
        let between = lines.filter {
            $0.record.joins(record.source ?? "", record.request.target) && (record.grantedLine == nil || $0.key == Key.line(record.grantedLine ?? ""))
        }
        guard !between.isEmpty else {
            // No line is described: what there is between the sites is used as it is.
            guard record.request.bitsPerSecond == nil, record.grantedLine == nil else {
                throw TurntableError(
                    .refused, "reserving a line for \(record.request.vm)",
                    "no \(record.grantedLine ?? "line") is known between \(record.source ?? "") and \(record.request.target)",
                    remedy: "describe it with `turntable ctl line`, or ask for no rate")
            }
            try await commit(migration) { $0.proceed(to: .move, "no line is described between the sites: none is reserved") }
            return
        }
        guard var line = between.max(by: { $0.record.freeBitsPerSecond < $1.record.freeBitsPerSecond }) else { return }
        let wanted = record.request.bitsPerSecond ?? line.record.freeBitsPerSecond
        guard wanted >= Admission.leastBitsPerSecond, wanted <= line.record.freeBitsPerSecond else {
            throw TurntableError(
                .refused, "reserving a line for \(record.request.vm)",
                "\(BitRate(bitsPerSecond: max(wanted, Admission.leastBitsPerSecond))) are wanted and \(BitRate(bitsPerSecond: line.record.freeBitsPerSecond)) "
                    + "of \(BitRate(bitsPerSecond: line.record.bitsPerSecond)) are free",
                remedy: "ask for less, or when another migration is over")
        }
        line.record.reserved[id] = wanted
        let reserved = line
        try await commit(migration, [line.condition], [try line.write()]) {
            $0.line = String(reserved.key.dropFirst("lines/".count))
            $0.lineSince = .now
            $0.bitsPerSecond = wanted
        }
    }

    /// Has the line's provider set it up. Each of its steps may have been done already, by the master before this one.
    private func provision(_ migration: Migration) async throws(TurntableError) {
        let record = migration.record
        guard var line = try await line(record) else {
            throw TurntableError(.refused, "reserving a line for \(record.request.vm)", "\(record.line ?? "") is gone")
        }
        let provider = try master.provider(of: line.record, for: id)
        let wanted = record.bitsPerSecond ?? 0
        _ = try await provider.reserve(
            id,
            LightpathRequest(
                ends: line.record.providerEnds(from: record.source ?? ""), bitsPerSecond: wanted,
                // Who asked for no rate takes what there is.
                leastBitsPerSecond: record.request.bitsPerSecond ?? Admission.leastBitsPerSecond, until: .now + Limits.lightpathTime.seconds))
        try await provider.commit(id)
        let path = try await provider.provision(id)
        line.record.reserved[id] = path.bitsPerSecond
        try await commit(migration, [line.condition], [try line.write()]) {
            $0.bitsPerSecond = path.bitsPerSecond
            $0.roundTripMilliseconds = path.roundTripMilliseconds ?? line.record.roundTripMilliseconds
            $0.lineAddress = path.addresses?.last
            $0.proceed(to: .move, "\(BitRate(bitsPerSecond: path.bitsPerSecond)) of \($0.line ?? "") are reserved")
        }
    }

    func line(_ record: MigrationRecord) async throws(TurntableError) -> Stored<LineRecord>? {
        guard let name = record.line else { return nil }
        return try await master.store.load(Key.line(name))
    }

    private func settle(_ migration: Migration) async throws(TurntableError) {
        try await release(migration.record)
        try await end(migration, .completed, migration.record.problem)
    }

    // MARK: - Back

    private func undo(_ migration: Migration) async throws(TurntableError) {
        let record = migration.record
        try await release(record)
        let isCancelled = record.cancelRequested && record.problem?.type == Problem.prefix + "cancelled"
        try await end(migration, isCancelled ? .cancelled : .failed, record.problem)
    }

    /// Gives the line and the slot back. What cannot be asked for that ends by itself.
    private func release(_ record: MigrationRecord) async throws(TurntableError) {
        if let line = try await line(record) {
            do throws(TurntableError) { try await master.provider(of: line.record, for: id).terminate(id) } catch {
                let since = record.events.last?.time ?? record.created
                if Date.now.timeIntervalSince(since) < Limits.agentPatience.seconds { throw error }
                master.log.warning("\(id): \(record.line ?? "") is not given back, and ends by itself: \(error)")
            }
        }
        do throws(TurntableError) {
            try await master.agent(record.request.target).release(id, discarding: record.state == .undoing)
        } catch {
            let isOver = (record.slotUntil ?? record.created).addingTimeInterval(2 * Limits.slotTime.seconds) < .now
            if !isOver { throw error }
        }
    }

    /// The machine is free again, the line is given back, the record says what came of it, and it is accounted for: in one transaction.
    private func end(_ migration: Migration, _ state: MigrationState, _ problem: Problem?) async throws(TurntableError) {
        let record = migration.record
        let now = Date.now
        let account = AccountRecord(record, state, ended: now)
        var conditions: [Condition] = []
        var writes: [Write] = [.delete(Key.active(id)), .delete(Key.progress(id)), .put(account.key, try JSON.encode(account))]
        if var vm: Stored<VMRecord> = try await master.store.load(Key.vm(record.request.vm)), vm.record.migration == id {
            vm.record.migration = nil
            if state == .completed { vm.record.site = record.request.target }
            vm.record.epoch = max(vm.record.epoch, record.epoch ?? 0)
            conditions.append(vm.condition)
            writes.append(try vm.write())
        }
        if var line = try await line(record) {
            line.record.reserved[id] = nil
            conditions.append(line.condition)
            writes.append(try line.write())
        }
        try await commit(migration, conditions, writes) {
            $0.state = state
            $0.problem = problem
            $0.ended = now
            $0.note(state.rawValue)
        }
    }
}

extension MigrationRecord {
    /// From here on the machine is held by this migration.
    mutating func begin(_ vm: VMRecord) {
        state = .running
        step = .authorise
        source = vm.site
        epoch = vm.epoch
        note("it begins: \(request.vm) is at \(vm.site), epoch \(vm.epoch)")
    }

    /// Where the sender finds the receiver: on the line, if the target listens at all of its addresses and has one there.
    var senderAddress: String {
        guard let receiver, let lineAddress, let address = Address(parsing: receiver, defaultPort: 0), ["0.0.0.0", "::"].contains(address.host) else {
            return receiver ?? ""
        }
        return "\(Address(host: lineAddress, port: address.port))"
    }

    mutating func proceed(to next: Step, _ text: String) {
        step = next
        note(text)
    }
}

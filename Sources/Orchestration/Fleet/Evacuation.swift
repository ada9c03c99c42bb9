// One evacuation, carried on by the master: it plans, has migrations made as the line allows, and sees what becomes of them. Each
// migration is one like any other, with its own saga. A machine's part of it and the migration that moves it are written in one
// transaction, so a master that dies is followed by one that makes no second of either.
//
//   scheduled ─▶ running ─▶ completed: all are at the target
//       │           └─────▶ failed: some are not, and say why;  cancelled
//       └─▶ failed: there is no room, or no time

internal import Crypto
internal import Foundation
internal import Logging
internal import TurntableCore

struct Evacuation: Sendable {
    let id: String
    let master: Master

    /// A move that was refused, for its machine wrote too much, is tried again with twice its rate.
    private static let mostAttempts = 3
    /// What a move takes beside sending: greeting, the target's QEMU, the hand-over.
    static let overheadSeconds = 1.5

    func run() async {
        while !Task.isCancelled {
            do {
                guard let evacuation: Stored<EvacuationRecord> = try await master.store.load(Key.evacuation(id)), !evacuation.record.state.isOver
                else { return }
                try await advance(evacuation)
            } catch {
                if Task.isCancelled { return }
                master.log.warning("evacuation \(id): \(error)")
                try? await Task.sleep(for: .nanoseconds(Limits.agentRetryTime.value))
            }
        }
    }

    private func advance(_ evacuation: Stored<EvacuationRecord>) async throws {
        if evacuation.record.state == .running { return try await carryOn(evacuation) }
        if evacuation.record.cancelRequested { return try await end(evacuation, .cancelled, nil) }
        if let time = evacuation.record.request.startAt, time > .now {
            return try await master.waitForChange(
                of: evacuation.key, since: evacuation.revision, atMost: min(time.timeIntervalSinceNow, 60))
        }
        do throws(Problem) { try await begin(evacuation) } catch { try await end(evacuation, .failed, error) }
    }

    // MARK: - Beginning

    private func begin(_ evacuation: Stored<EvacuationRecord>) async throws(Problem) {
        do {
            let moves = try await plan(evacuation.record.request)
            // In several transactions, of which an end in between leaves nothing that counts.
            for old in try await master.store.list(Key.moves(of: id)) { _ = try await master.store.commit([master.term.condition], [.delete(old.key)]) }
            for move in moves {
                _ = try await master.store.commit([master.term.condition], [.put(Key.move(of: id, move.vm), try JSON.encode(move))])
            }
            var begun = evacuation
            begun.record.state = .running
            begun.record.begun = .now
            begun.record.plannedSeconds = moves.map(\.plannedEnd).max() ?? 0
            begun.record.count(moves)
            _ = try await master.store.commit([master.term.condition, evacuation.condition], [begun.write()])
        } catch let problem as Problem {
            throw problem
        } catch let error as TurntableError {
            throw Problem(error)
        } catch {
            throw Problem(.internalServerError, "failed", "evacuation \(id)", "\(error)")
        }
    }

    private func plan(_ request: EvacuationRequest) async throws -> [EvacuationMove] {
        let what = "evacuating \(request.source)"
        var machines: [String: VMRecord] = [:]
        for vm in try await master.store.loadAll("vms/", VMRecord.self) where vm.record.site == request.source && vm.record.isPresent {
            machines[String(vm.key.dropFirst("vms/".count))] = vm.record
        }
        if let missing = request.vms?.first(where: { machines[$0] == nil }) {
            throw Problem(.conflict, "refused", what, "\(missing) is not there", remedy: "name machines that are")
        }
        if let named = request.vms.map(Set.init) { machines = machines.filter { named.contains($0.key) } }
        guard let target: Stored<SiteState> = try await master.store.load(Key.siteState(request.target)) else {
            throw Problem(.conflict, "refused", what, "\(request.target) is not reachable", remedy: "start its agent")
        }
        let memory = machines.values.reduce(0) { $0 + $1.memoryBytes }
        let processors = machines.values.reduce(0) { $0 + $1.processors }
        guard memory <= target.record.memoryFreeBytes, processors <= target.record.processorsFree else {
            throw Problem(
                .conflict, "refused", what,
                "\(ByteCount(memory)) and \(processors) processors are needed, and \(request.target) has \(ByteCount(target.record.memoryFreeBytes)) and "
                    + "\(target.record.processorsFree) free",
                remedy: "name some of the machines, or another site")
        }
        let disks = request.disks == true ? try await diskBytes(of: machines.keys, request, what) : [:]
        // Who cannot say is taken for quiet and full; a move that is then refused gets more of the line.
        var rates = DirtyRates(bytesPerSecond: [:], usedMemoryBytes: [:])
        do { rates = try await master.agent(request.source).dirtyRates() } catch {
            master.log.warning("\(what): what its machines write is not known: \(error)")
        }
        let fleet = machines.map { name, vm in
            FleetMachine(
                name: name, bytes: Double(min(rates.usedMemoryBytes[name] ?? vm.memoryBytes, vm.memoryBytes) + (disks[name] ?? 0)),
                dirtyBytesPerSecond: rates.bytesPerSecond[name] ?? 0, priority: request.priorities?[name] ?? 0)
        }
        .sorted { $0.name < $1.name }
        let line = try await freeLine(request)
        // Without a line there is no rate to plan with: one after the other, two at a time.
        let planner = EvacuationPlanner(line: line ?? FleetLine(bytesPerSecond: 1e9 / 8, overheadSeconds: Self.overheadSeconds, most: 2))
        let plan = planner.plan(fleet)
        if let machine = plan.unmovable.first {
            throw Problem(
                .conflict, "refused", what,
                "\(machine.name) writes \(BitRate(bitsPerSecond: machine.dirtyBytesPerSecond * 8)), more than the line takes away: "
                    + "\(BitRate(bitsPerSecond: planner.line.bytesPerSecond * 8)) are free",
                remedy: "leave it out, or free more of the line")
        }
        if let deadline = request.deadline, Date.now.addingTimeInterval(plan.seconds) > deadline {
            throw Problem(
                .conflict, "refused", what,
                "the plan takes \(Nanoseconds.seconds(plan.seconds)), and "
                    + "\(Nanoseconds.seconds(max(0, deadline.timeIntervalSinceNow))) are left to its deadline",
                remedy: "name fewer machines, or a later deadline")
        }
        return plan.moves.enumerated().map { order, move in
            let name = move.machine.name
            return EvacuationMove(
                vm: name, state: .waiting, order: order, memoryBytes: machines[name]?.memoryBytes ?? 0, diskBytes: disks[name],
                dirtyBytesPerSecond: move.machine.dirtyBytesPerSecond,
                bitsPerSecond: line.map { _ in max(move.bytesPerSecond * 8, Admission.leastBitsPerSecond) },
                plannedStart: move.start, plannedEnd: move.end)
        }
    }

    /// What the disks of each machine take, if the target has room for all that it has not yet.
    private func diskBytes(
        of machines: some Collection<String>, _ request: EvacuationRequest, _ what: String
    ) async throws -> [String: Int] {
        let known = try await master.agent(request.source).disks().machines
        if let machine = machines.first(where: { known[$0] == nil }) {
            throw Problem(
                .conflict, "refused", what, "\(request.source) cannot say now which disks \(machine) has", remedy: "ask again when it is not being moved")
        }
        let bytes = Dictionary(uniqueKeysWithValues: machines.map { ($0, known[$0]?.reduce(0) { $0 + $1.bytes } ?? 0) })
        let target = try await master.agent(request.target).disks()
        let needed = bytes.reduce(0) { $0 + max(0, $1.value - (target.keptBytes[$1.key] ?? 0)) }
        let free = target.freeBytes
        guard needed == 0 || needed <= free ?? -1 else {
            throw Problem(
                .conflict, "refused", what,
                "\(ByteCount(needed)) of disks are needed, and \(request.target) " + (free.map { "has \(ByteCount($0)) free" } ?? "takes none"),
                remedy: "name some of the machines, or another site")
        }
        return bytes
    }

    /// What is free between the sites, of the line that has most; nil if none is described.
    /// - Parameter moving: Moves that are begun: what they have not reserved yet is not free either.
    private func freeLine(_ request: EvacuationRequest, moving: [EvacuationMove] = []) async throws(TurntableError) -> FleetLine? {
        let lines = try await master.store.loadAll("lines/", LineRecord.self).map(\.record).filter { $0.joins(request.source, request.target) }
        let reserved = Set(lines.flatMap(\.reserved.keys))
        let promised = moving.filter { !reserved.contains($0.migration ?? "") }.reduce(0) { $0 + ($1.bitsPerSecond ?? 0) }
        guard let free = lines.map(\.freeBitsPerSecond).max().map({ max(0, $0 - promised) }) else { return nil }
        return FleetLine(bytesPerSecond: free / 8, overheadSeconds: Self.overheadSeconds, most: Limits.fleetMoves)
    }

    // MARK: - Going on

    /// Looks how the moves stand and begins others; then waits for a migration to begin or end, or for the evacuation to be cancelled.
    private func carryOn(_ evacuation: Stored<EvacuationRecord>) async throws {
        // Before anything is read, so that nothing is missed.
        let changes = [try await master.store.watch("active/"), try await master.store.watch("lines/"), try await master.store.watch(evacuation.key)]
        guard try await master.store.read(evacuation.key)?.revision == evacuation.revision else { return }
        var moves: [Stored<EvacuationMove>] = try await master.store.loadAll(Key.moves(of: id))
        moves.sort { $0.record.order < $1.record.order }
        for index in moves.indices where moves[index].record.state == .moving { try await look(at: &moves[index], evacuation.record) }
        var isSettled = true
        if evacuation.record.cancelRequested {
            for index in moves.indices where moves[index].record.state == .waiting {
                try await note(&moves[index]) {
                    $0.state = .failed
                    $0.problem = Problem(.conflict, "cancelled", "moving \($0.vm)", "the evacuation was cancelled before its turn")
                }
            }
        } else {
            isSettled = try await beginNext(&moves, evacuation.record)
        }
        var counted = evacuation
        counted.record.count(moves.map(\.record))
        if counted.record.waiting + counted.record.moving == 0 {
            let first = moves.lazy.compactMap(\.record.problem).first
            let state: EvacuationState = counted.record.failed == 0 ? .completed : counted.record.cancelRequested ? .cancelled : .failed
            return try await end(counted, state, counted.record.failed == 0 ? nil : first)
        }
        if counted != evacuation { _ = try await master.store.commit([master.term.condition, evacuation.condition], [counted.write()]) }
        await master.waitForAny(of: changes, atMost: (isSettled ? Limits.evacuationPulseTime : Limits.agentPollTime).seconds)
    }

    /// What became of the migration that moves it.
    private func look(at move: inout Stored<EvacuationMove>, _ evacuation: EvacuationRecord) async throws(TurntableError) {
        guard let name = move.record.migration, let migration: Stored<MigrationRecord> = try await master.store.load(Key.migration(name)) else { return }
        switch migration.record.state {
        case .completed: try await note(&move) { $0.state = .moved }
        case .failed, .cancelled:
            let isFinal = migration.record.state == .cancelled || move.record.attempts >= Self.mostAttempts || evacuation.cancelRequested
            try await note(&move) {
                $0.problem = migration.record.problem
                $0.state = isFinal ? .failed : .waiting
                if migration.record.step == .move { $0.bitsPerSecond = $0.bitsPerSecond.map { 2 * $0 } }
            }
        case .scheduled, .running, .undoing:
            if evacuation.cancelRequested, !migration.record.cancelRequested {
                var cancelled = migration
                cancelled.record.cancelRequested = true
                cancelled.record.note("its evacuation is cancelled")
                _ = try await master.store.commit([master.term.condition, migration.condition], [cancelled.write()])
            }
        }
    }

    /// Begins those that wait and fit, in their order. False if something changed meanwhile: look again.
    private func beginNext(_ moves: inout [Stored<EvacuationMove>], _ evacuation: EvacuationRecord) async throws -> Bool {
        let line = try await freeLine(evacuation.request, moving: moves.map(\.record).filter { $0.state == .moving })
        let waiting = moves.indices.filter { moves[$0].record.state == .waiting }
        let running = moves.count { $0.record.state == .moving }
        let free = line.map { $0.bytesPerSecond * 8 } ?? .infinity
        // One that wants more than there is at all begins when nothing else is under way.
        let most = running == 0 ? max(free, Admission.leastBitsPerSecond) : .infinity
        let rates = waiting.map { min(moves[$0].record.bitsPerSecond ?? 0, most) }
        var isSettled = true
        for chosen in EvacuationPlanner.beginning(rates, free: free, running: running, most: line?.most ?? 2) {
            if try await !begin(&moves[waiting[chosen]], evacuation, rates[chosen]) { isSettled = false }
        }
        return isSettled
    }

    private func begin(_ move: inout Stored<EvacuationMove>, _ evacuation: EvacuationRecord, _ bitsPerSecond: Double) async throws -> Bool {
        var begun = move
        begun.record.state = .moving
        begun.record.attempts += 1
        begun.record.problem = nil
        let name = Self.migration(id, move.record.vm, begun.record.attempts)
        begun.record.migration = name
        let request = MigrationRequest(
            id: name, vm: move.record.vm, target: evacuation.request.target, downtimeMilliseconds: evacuation.request.downtimeMilliseconds,
            bitsPerSecond: move.record.bitsPerSecond == nil ? nil : bitsPerSecond, disks: evacuation.request.disks)
        do {
            let admitted = try await Admission.admit(
                request, by: evacuation.requestedBy, under: master.authority, to: master.store,
                with: [master.term.condition, begun.condition], [try begun.write()])
            if admitted != nil { move = begun }
            return admitted != nil
        } catch let problem as Problem {
            try await note(&move) {
                $0.state = problem.type == Problem.prefix + "busy" ? .waiting : .failed
                $0.problem = problem
            }
            return true
        }
    }

    private func note(_ move: inout Stored<EvacuationMove>, _ change: (inout EvacuationMove) -> Void) async throws(TurntableError) {
        var changed = move
        change(&changed.record)
        if changed != move, let revision = try await master.store.commit([master.term.condition, move.condition], [changed.write()]) {
            move = Stored(key: move.key, record: changed.record, revision: revision)
        }
    }

    private func end(_ evacuation: Stored<EvacuationRecord>, _ state: EvacuationState, _ problem: Problem?) async throws(TurntableError) {
        var ended = evacuation
        ended.record.state = state
        ended.record.problem = problem
        ended.record.ended = .now
        _ = try await master.store.commit([master.term.condition, evacuation.condition], [ended.write(), .delete(Key.activeEvacuation(id))])
    }

    /// A migration's name that follows from what it is for: whoever begins it, it is the same one.
    static func migration(_ evacuation: String, _ vm: String, _ attempt: Int) -> String {
        let byte = Array(SHA256.hash(data: Data("\(evacuation) \(vm) \(attempt)".utf8)))
        let bytes = (
            byte[0], byte[1], byte[2], byte[3], byte[4], byte[5], byte[6], byte[7], byte[8], byte[9], byte[10], byte[11], byte[12], byte[13], byte[14], byte[15]
        )
        return UUID(uuid: bytes).uuidString.lowercased()
    }
}

extension EvacuationRecord {
    mutating func count(_ moves: [EvacuationMove]) {
        func count(_ state: EvacuationMove.State) -> Int { moves.count { $0.state == state } }
        (waiting, moving, moved, failed) = (count(.waiting), count(.moving), count(.moved), count(.failed))
    }
}

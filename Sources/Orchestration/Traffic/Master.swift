// What the elected orchestrator does: it keeps in touch with the sites, and carries on every migration that is not over.

internal import Foundation
internal import Logging
internal import TurntableCore

struct Master: Sendable {
    let store: any Store
    let client: Client
    let domain: String
    let authority: Authority
    let term: Term
    let log: Logger
    var nsi: NSIRequester?

    func run() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await carryOn("active/") { await Saga(id: $0, master: self).run() } }
            group.addTask { await carryOn("active-evacuations/") { await Evacuation(id: $0, master: self).run() } }
            group.addTask { await watchSites() }
            group.addTask { await prune() }
            await group.waitForAll()
        }
    }

    func agent(_ site: String) async throws(TurntableError) -> Agent {
        guard let record: Stored<SiteRecord> = try await store.load(Key.site(site)) else {
            throw TurntableError(.refused, "asking \(site)", "there is no such site", remedy: "describe it with `turntable ctl site`")
        }
        return Agent(client: client, url: record.record.agent, domain: domain, term: term)
    }

    /// Waits until an entry has another revision.
    func waitForChange(of key: String, since revision: Revision, atMost seconds: Double) async throws {
        let changes = try await store.watch(key)
        guard try await store.read(key)?.revision == revision else { return }
        await waitForAny(of: [changes], atMost: seconds)
    }

    /// Waits for the first change that one of these tells of.
    func waitForAny(of watches: [Changes], atMost seconds: Double) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { try? await Task.sleep(for: .seconds(max(0, seconds))) }
            for changes in watches { group.addTask { for await _ in Watched(changes) { return } } }
            await group.next()
            group.cancelAll()
        }
    }

    /// Lets watchers of a migration see how far it is.
    func show(_ id: String, _ progress: MoveProgress?) async throws(TurntableError) {
        guard let progress else { return }
        let data = try JSON.encode(progress)
        guard let entry = try await store.read(Key.progress(id)) else {
            _ = try await store.commit([term.condition, .absent(Key.progress(id))], [.put(Key.progress(id), data)])
            return
        }
        if entry.value != data { _ = try await store.commit([term.condition, .unchanged(entry.key, entry.revision)], [.put(entry.key, data)]) }
    }

    // MARK: - What is under way

    /// Carries on whatever stands under `prefix`, and looks again whenever something begins or ends.
    private func carryOn(_ prefix: String, _ run: @escaping @Sendable (String) async -> Void) async {
        await withDiscardingTaskGroup { group in
            let running = Running()
            while !Task.isCancelled {
                do {
                    let changes = try await store.watch(prefix)
                    try await startAll(prefix, in: &group, running, run)
                    for await _ in Watched(changes) { try await startAll(prefix, in: &group, running, run) }
                } catch {
                    log.warning("looking for what is \(prefix): \(error)")
                }
                try? await Task.sleep(for: .nanoseconds(Limits.agentRetryTime.value))
            }
            group.cancelAll()
        }
    }

    private func startAll(
        _ prefix: String, in group: inout DiscardingTaskGroup, _ running: Running, _ run: @escaping @Sendable (String) async -> Void
    ) async throws {
        for entry in try await store.list(prefix) where await running.add(entry.name) {
            group.addTask {
                await run(entry.name)
                await running.remove(entry.name)
            }
        }
    }

    /// Forgets migrations and evacuations that ended long ago, and much later what they used.
    private func prune() async {
        while !Task.isCancelled {
            let last = Date.now - Limits.migrationKeepTime.seconds
            for migration in (try? await store.loadAll("migrations/", MigrationRecord.self)) ?? [] {
                guard let ended = migration.record.ended, ended < last else { continue }
                let record = migration.record
                _ = try? await store.commit(
                    [term.condition, migration.condition], [.delete(migration.key), .delete(Key.ofVM(record.request.vm, record.id))])
            }
            for evacuation in (try? await store.loadAll("evacuations/", EvacuationRecord.self)) ?? [] {
                guard let ended = evacuation.record.ended, ended < last else { continue }
                let moves = (try? await store.list(Key.moves(of: evacuation.record.id))) ?? []
                for move in moves { _ = try? await store.commit([term.condition], [.delete(move.key)]) }
                _ = try? await store.commit([term.condition, evacuation.condition], [.delete(evacuation.key)])
            }
            let lastAccount = AccountRecord.mark(.now - Limits.accountKeepTime.seconds)
            for account in (try? await store.list(Key.accounting)) ?? [] where account.name < lastAccount {
                _ = try? await store.commit([term.condition], [.delete(account.key)])
            }
            try? await Task.sleep(for: .nanoseconds(Limits.pruneTime.value))
        }
    }

    // MARK: - Sites

    private func watchSites() async {
        guard let lease = try? await store.grantLease(Limits.siteStateTime) else { return }
        let states = SiteStates()
        while !Task.isCancelled {
            let sites: [Stored<SiteRecord>] = (try? await store.loadAll("sites/")) ?? []
            await withTaskGroup(of: Void.self) { group in
                for site in sites {
                    let name = String(site.key.dropFirst("sites/".count))
                    group.addTask { await look(at: name, site.record, states, lease) }
                }
            }
            guard (try? await store.renew(lease)) != false else { return }
            try? await Task.sleep(for: .nanoseconds(Limits.sitePollTime.value))
        }
    }

    private func look(at site: String, _ record: SiteRecord, _ states: SiteStates, _ lease: Lease) async {
        let key = Key.siteState(site)
        do throws(TurntableError) {
            // Read before the site is asked: what is written meanwhile is newer than its answer, and stays.
            var known: [String: Stored<VMRecord>] = [:]
            for vm in try await store.loadAll("vms/", VMRecord.self) { known[String(vm.key.dropFirst("vms/".count))] = vm }
            let state = try await Agent(client: client, url: record.agent, domain: domain, term: term).site()
            await states.answered(site)
            let data = try JSON.encode(state)
            let entry = try await store.read(key)
            if entry?.value != data {
                _ = try await store.commit([term.condition, Condition(key: key, revision: entry?.revision ?? 0)], [.put(key, data, lease)])
            }
            for machine in state.machines where machine.isHere { try await remember(machine, at: site, known[machine.name]) }
            for (name, vm) in known where vm.record.site == site && !state.machines.contains(where: { $0.name == name }) { try await forget(vm) }
        } catch {
            if await states.isSilent(site) { _ = try? await store.commit([term.condition], [.delete(key)]) }
            if !Task.isCancelled { log.info("site \(site) does not answer: \(error)") }
        }
    }

    /// A machine is where the highest epoch of it is: an epoch is a fencing token. While it is being moved the migration says where.
    private func remember(_ machine: SiteMachine, at site: String, _ known: Stored<VMRecord>?) async throws(TurntableError) {
        if let vm = known?.record, vm.migration != nil || vm.site != site && vm.state != "absent" && vm.epoch >= machine.epoch { return }
        let vm = Stored(
            key: Key.vm(machine.name),
            record: VMRecord(
                site: site, epoch: machine.epoch, state: machine.state, memoryBytes: machine.memoryBytes, processors: machine.processors, migration: nil),
            revision: known?.revision ?? 0)
        if vm != known { _ = try await store.commit([term.condition, vm.condition], [vm.write()]) }
    }

    /// What its site shows no more, and no migration took, is not there.
    private func forget(_ known: Stored<VMRecord>) async throws(TurntableError) {
        guard known.record.migration == nil, known.record.state != "absent" else { return }
        var vm = known
        vm.record.state = "absent"
        _ = try await store.commit([term.condition, vm.condition], [vm.write()])
    }
}

/// A watch whose end, by a failure or not, is only an end: the reader begins anew.
struct Watched: AsyncSequence, Sendable {
    let changes: Changes
    init(_ changes: Changes) { self.changes = changes }

    struct Iterator: AsyncIteratorProtocol {
        var inner: Changes.Iterator
        mutating func next() async -> Change? { (try? await inner.next()) ?? nil }
    }
    func makeAsyncIterator() -> Iterator { Iterator(inner: changes.makeAsyncIterator()) }
}

/// What is carried on here.
private actor Running {
    private var names: Set<String> = []
    func add(_ name: String) -> Bool { names.insert(name).inserted }
    func remove(_ name: String) { names.remove(name) }
}

/// When each site answered last.
private actor SiteStates {
    private var last: [String: ContinuousClock.Instant] = [:]
    func answered(_ site: String) { last[site] = .now }
    func isSilent(_ site: String) -> Bool {
        guard let time = last[site] else { return true }
        return ContinuousClock.now - time > .nanoseconds(Limits.siteStateTime.value)
    }
}

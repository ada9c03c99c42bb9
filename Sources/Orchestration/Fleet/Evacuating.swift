// Carrying an evacuation out, by the master: its machines are moved by ordinary migrations, begun in the order of the plan as soon as the
// line has room. What is remembered of a part is only that it was begun, and what came of it; a master that follows goes on from there.

internal import Foundation
internal import Logging
internal import TurntableCore

extension Master {
    func evacuate() async {
        while !Task.isCancelled {
            do {
                for evacuation in try await store.loadAll("evacuations/", EvacuationRecord.self) where evacuation.record.ended == nil {
                    try await advance(evacuation)
                }
            } catch {
                if !Task.isCancelled { log.warning("evacuating: \(error)") }
            }
            try? await Task.sleep(for: .nanoseconds(Limits.sitePollTime.value))
        }
    }

    private func advance(_ evacuation: Stored<EvacuationRecord>) async throws {
        let record = evacuation.record
        var moving: [String: Double] = [:]
        var waiting: [Stored<EvacuationPart>] = []
        var all: [EvacuationPart] = []
        for var part in try await store.parts(of: record.id) {
            if part.record.state == .moving { try await look(&part) }
            if part.record.state == .moving { moving[part.record.migration] = part.record.bitsPerSecond }
            if part.record.state == .waiting { waiting.append(part) }
            all.append(part.record)
        }
        if waiting.isEmpty && moving.isEmpty { return try await end(evacuation, all) }
        guard let line: Stored<LineRecord> = try await store.load(Key.line(record.line)) else { return }
        let others = line.record.reserved.filter { moving[$0.key] == nil }.reduce(0) { $0 + $1.value }
        var free = line.record.bitsPerSecond - others - moving.values.reduce(0, +)
        var count = moving.count
        for part in waiting where part.record.bitsPerSecond <= free && count < record.request.concurrency ?? EvacuationRequest.usualConcurrency {
            guard try await start(part, record) else { continue }
            free -= part.record.bitsPerSecond
            count += 1
        }
    }

    /// Begins a machine's migration; false if that cannot be.
    private func start(_ waiting: Stored<EvacuationPart>, _ record: EvacuationRecord) async throws -> Bool {
        var part = waiting
        let request = MigrationRequest(
            id: part.record.migration, vm: part.record.vm, target: record.request.target, downtimeMilliseconds: record.request.downtimeMilliseconds,
            bitsPerSecond: part.record.bitsPerSecond)
        do {
            _ = try await Admission.admit(request, by: record.requestedBy, in: store)
            part.record.state = .moving
        } catch let problem as Problem {
            part.record.state = .stayed
            part.record.problem = problem
        }
        _ = try await store.commit([term.condition, part.condition], [part.write()])
        return part.record.state == .moving
    }

    /// What came of a migration that was begun.
    private func look(_ part: inout Stored<EvacuationPart>) async throws {
        guard let migration: Stored<MigrationRecord> = try await store.load(Key.migration(part.record.migration)), migration.record.state.isOver else { return }
        part.record.state = migration.record.state == .completed ? .moved : .stayed
        part.record.problem = part.record.state == .moved ? nil : migration.record.problem
        _ = try await store.commit([term.condition, part.condition], [part.write()])
    }

    private func end(_ evacuation: Stored<EvacuationRecord>, _ parts: [EvacuationPart]) async throws {
        var ended = evacuation
        ended.record.state = parts.allSatisfy { $0.state == .moved } ? .completed : .incomplete
        ended.record.ended = .now
        _ = try await store.commit([term.condition, ended.condition], [ended.write()])
    }
}

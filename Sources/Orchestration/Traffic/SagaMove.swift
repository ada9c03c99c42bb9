// The step of a migration that moves the machine: the sites' engines do it, and this follows them until the source's site says whose the
// machine is. Meanwhile the move has the rate that its path has.

internal import Foundation
internal import Lightpaths
internal import TurntableCore

extension Saga {
    func move(_ migration: Migration) async throws(TurntableError) {
        let record = migration.record
        let source = try await master.agent(record.source ?? "")
        let target = try await master.agent(record.request.target)
        if record.cancelRequested {
            try await finish(migration, try await source.withdraw(id))
            return
        }
        if record.receiver == nil {
            let slot: Slot
            do throws(TurntableError) { slot = try await target.receive(id) } catch {
                if error.kind == .line { throw error }
                // Nothing was sent yet, and after this nothing can be.
                var withdrawn = try await source.withdraw(id)
                withdrawn.problem = Problem(error)
                try await finish(migration, withdrawn)
                return
            }
            try await commit(migration) {
                $0.receiver = slot.address
                $0.receiverHost = slot.host
                $0.note("\($0.request.target) waits for it at \(slot.address ?? "")")
            }
            return
        }
        if let wanted = record.wantedBitsPerSecond { return try await change(migration, to: wanted) }
        let request = MoveRequest(
            machine: record.request.vm, site: record.source, targetSite: record.request.target, address: record.senderAddress,
            targetHost: record.receiverHost ?? "",
            downtimeMilliseconds: record.request.downtimeMilliseconds ?? Admission.downtimeMilliseconds, bitsPerSecond: record.bitsPerSecond,
            roundTripMilliseconds: record.roundTripMilliseconds, streams: record.request.streams ?? 1,
            disks: record.disks?.map(\.name), token: record.token,
            targetToken: record.targetToken, elements: try await line(record)?.record.elements?.filter { $0.to == record.request.target })
        try await follow(migration, try await source.move(id, request), source, target)
    }

    /// Until the source's site says whose the machine is, or the record was changed.
    private func follow(_ migration: Migration, _ begun: Move, _ source: Agent, _ target: Agent) async throws(TurntableError) {
        var move = begun
        var held = Date.now
        var looked = Date.now
        while move.state == .moving {
            try await master.show(id, move.progress)
            if Date.now.timeIntervalSince(held) > Limits.slotTime.seconds / 4 {
                // The target is busy with the machine, and says so only when asked.
                _ = try? await target.receive(id)
                if let line = try await line(migration.record) { try? await master.provider(of: line.record, for: id).keep(id) }
                held = .now
            }
            if Date.now.timeIntervalSince(looked) > Limits.pathPollTime.seconds {
                if try await followPath(migration) { return }
                looked = .now
            }
            do { try await Task.sleep(for: .nanoseconds(Limits.movePollTime.value)) } catch { return }
            guard let now: Migration = try await master.store.load(migration.key), now.revision == migration.revision else { return }
            move = try await source.move(id)
        }
        try await finish(migration, move)
    }

    /// Somebody may have changed the path in use: the move has the rate that it has now. False if it is as it was.
    private func followPath(_ migration: Migration) async throws(TurntableError) -> Bool {
        guard let line = try await line(migration.record), let path = try? await master.provider(of: line.record, for: id).query(id),
            path.bitsPerSecond >= Admission.leastBitsPerSecond, path.bitsPerSecond != migration.record.bitsPerSecond
        else { return false }
        try await take(path, line, migration)
        return true
    }

    /// Asks for another rate of a path in use. What its provider refuses leaves it as it is.
    private func change(_ migration: Migration, to wanted: Double) async throws(TurntableError) {
        do throws(TurntableError) {
            guard let line = try await line(migration.record) else { throw TurntableError(.refused, "its rate", "it has no line that could change") }
            let free = line.record.freeBitsPerSecond + (line.record.reserved[id] ?? 0)
            guard wanted <= free else {
                throw TurntableError(
                    .refused, "its rate", "\(BitRate(bitsPerSecond: wanted)) are wanted and \(BitRate(bitsPerSecond: free)) are free for it")
            }
            let path = try await master.provider(of: line.record, for: id).change(id, bitsPerSecond: wanted)
            try await take(path, line, migration)
        } catch {
            if error.kind == .line { throw error }
            try await commit(migration) {
                $0.wantedBitsPerSecond = nil
                $0.note("it stays at its rate: \(error)")
            }
        }
    }

    /// The line's record and the migration's have a path's rate in one transaction; the sender hears of it next.
    private func take(_ path: Lightpath, _ line: Stored<LineRecord>, _ migration: Migration) async throws(TurntableError) {
        var changed = line
        changed.record.reserved[id] = path.bitsPerSecond
        try await commit(migration, [line.condition], [try changed.write()]) {
            $0.wantedBitsPerSecond = nil
            $0.bitsPerSecond = path.bitsPerSecond
            $0.note("it has \(BitRate(bitsPerSecond: path.bitsPerSecond)) of \($0.line ?? "") now")
        }
    }

    private func finish(_ migration: Migration, _ move: Move) async throws(TurntableError) {
        guard move.state == .ended else {
            try await master.show(id, move.progress)
            do { try await Task.sleep(for: .nanoseconds(Limits.movePollTime.value)) } catch {}
            return
        }
        switch move.owner {
        case .target:
            try await commit(migration) {
                $0.report = move.report
                $0.sent = move.sent
                $0.problem = move.problem
                $0.epoch = move.epoch ?? $0.epoch
                let standstill = move.report.map { ", after standing still \(Nanoseconds.milliseconds($0.blackoutMilliseconds))" } ?? ""
                $0.proceed(to: .settle, "it is \($0.request.target)'s\(standstill)")
            }
        case .source, nil:
            try await commit(migration) {
                $0.epoch = move.epoch ?? $0.epoch
                $0.sent = move.sent
                $0.state = .undoing
                $0.problem = move.problem ?? Problem(.conflict, "cancelled", "migration \($0.id)", "it was cancelled before the hand-off")
                $0.note("it stays \($0.source ?? "")'s: \($0.problem?.detail ?? "")")
            }
        }
    }
}

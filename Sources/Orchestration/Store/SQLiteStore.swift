// The store of a single orchestrator: one SQLite file, which it holds for itself. A transaction is on disk when it returns.
//
// Leases live in memory: the file has one user at a time, so when it is opened, whoever held a lease is dead.

internal import Foundation
internal import GRDB
internal import Synchronization
internal import TurntableCore
internal import TurntableLinux

final class SQLiteStore: Store {
    private struct Memory {
        /// When each lease ends, on the monotonic clock.
        var leases: [Int64: (end: Nanoseconds, time: Nanoseconds)] = [:]
        var watchers: [UUID: (prefix: String, stream: Changes.Continuation)] = [:]
    }

    private let queue: DatabaseQueue
    // Changed inside the queue's serial work only, so that watchers hear of transactions in their order.
    private let memory = Mutex(Memory())
    private let sweeper = Mutex<Task<Void, Never>?>(nil)

    init(path: String) throws(TurntableError) {
        do {
            var configuration = Configuration()
            configuration.prepareDatabase { database in
                try database.execute(sql: "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
            }
            queue = try DatabaseQueue(path: path, configuration: configuration)
            try queue.write { database in
                try database.execute(
                    sql: """
                        CREATE TABLE IF NOT EXISTS entries (
                            key TEXT PRIMARY KEY COLLATE BINARY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER
                        ) STRICT, WITHOUT ROWID;
                        CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
                        INSERT OR IGNORE INTO counters VALUES ('revision', 0), ('lease', 0);
                        DELETE FROM entries WHERE lease IS NOT NULL;
                        """)
            }
        } catch {
            throw Self.explain(error, "opening the store \(path)")
        }
        sweeper.withLock { task in
            task = Task { [weak self] in
                while !Task.isCancelled {
                    try? await Task.sleep(for: .milliseconds(500))
                    guard let self else { return }
                    try? await self.write("ending leases") { _ in }
                }
            }
        }
    }

    deinit { sweeper.withLock { $0?.cancel() } }

    private static func explain(_ error: any Error, _ what: String) -> TurntableError {
        if let error = error as? TurntableError { return error }
        if let error = error as? DatabaseError, error.resultCode == .SQLITE_BUSY {
            return TurntableError(
                .refused, what, "another process has it open", remedy: "one orchestrator uses a file; several of them share an etcd (--store etcd://…)")
        }
        return TurntableError(.unsupported, what, "\(error)", remedy: "check the directory, and that its disk has room")
    }

    // MARK: - Reading

    func read(_ key: String) async throws(TurntableError) -> Entry? {
        try await write("reading \(key)") { try Self.entries($0, "key = ?", [key], 1).first }
    }

    func list(_ prefix: String, after: String?, atMost: Int) async throws(TurntableError) -> [Entry] {
        try await write("listing \(prefix)") {
            try Self.entries($0, "key >= ? AND key < ? AND key > ?", [prefix, end(ofPrefix: prefix), after ?? ""], min(atMost, Limits.listEntries))
        }
    }

    private static func entries(_ database: Database, _ condition: String, _ arguments: StatementArguments, _ most: Int) throws -> [Entry] {
        try Row.fetchAll(
            database, sql: "SELECT key, value, revision FROM entries WHERE \(condition) ORDER BY key LIMIT \(most)", arguments: arguments
        ).map { Entry(key: $0["key"], value: $0["value"], revision: $0["revision"]) }
    }

    // MARK: - Writing

    func commit(_ conditions: [Condition], _ writes: [Write]) async throws(TurntableError) -> Revision? {
        try await write("a transaction") { database in
            for condition in conditions {
                let found = try Int64.fetchOne(database, sql: "SELECT revision FROM entries WHERE key = ?", arguments: [condition.key])
                guard found ?? 0 == condition.revision else { return nil }
            }
            for case .put(_, _, let lease?) in writes where self.memory.withLock({ $0.leases[lease.identifier] == nil }) { return nil }
            return try self.apply(writes, database)
        }
    }

    /// Writes, and tells the watchers once that is on disk.
    private func apply(_ writes: [Write], _ database: Database) throws -> Revision {
        guard
            let revision = try Int64.fetchOne(
                database, sql: "UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value")
        else { throw TurntableError(.unsupported, "reading the store", "it has no revision", remedy: "the file is damaged: restore it") }
        var changes: [Change] = []
        for write in writes {
            switch write {
            case .put(let key, let value, let lease):
                try database.execute(
                    sql: "INSERT OR REPLACE INTO entries (key, value, revision, lease) VALUES (?, ?, ?, ?)",
                    arguments: [key, value, revision, lease?.identifier])
                changes.append(Change(key: key, value: value, revision: revision))
            case .delete(let key):
                try database.execute(sql: "DELETE FROM entries WHERE key = ?", arguments: [key])
                if database.changesCount > 0 { changes.append(Change(key: key, value: nil, revision: revision)) }
            }
        }
        let made = changes
        database.afterNextTransaction { _ in
            // Outside the lock: who is told may be ending its watch, which takes the lock while its task is locked.
            let watchers = self.memory.withLock { Array($0.watchers.values) }
            for change in made {
                for watcher in watchers where change.key.hasPrefix(watcher.prefix) { watcher.stream.yield(change) }
            }
        }
        return revision
    }

    /// One transaction, after the leases whose time is over have ended.
    private func write<Value: Sendable>(
        _ what: String, _ body: @escaping @Sendable (Database) throws -> Value
    ) async throws(TurntableError) -> Value {
        do {
            return try await queue.write { database in
                try self.endLeases(database) { $0 <= Clock.now }
                return try body(database)
            }
        } catch {
            throw Self.explain(error, what)
        }
    }

    private func endLeases(_ database: Database, where isOver: (Nanoseconds) -> Bool) throws {
        let over = self.memory.withLock { memory in
            let over = memory.leases.filter { isOver($0.value.end) }.map(\.key)
            for lease in over { memory.leases[lease] = nil }
            return over
        }
        for lease in over {
            let keys = try String.fetchAll(database, sql: "SELECT key FROM entries WHERE lease = ?", arguments: [lease])
            if !keys.isEmpty { _ = try apply(keys.map { .delete($0) }, database) }
        }
    }

    // MARK: - Leases and watches

    func grantLease(_ time: Nanoseconds) async throws(TurntableError) -> Lease {
        try await write("granting a lease") { database in
            let identifier = try Int64.fetchOne(database, sql: "UPDATE counters SET value = value + 1 WHERE name = 'lease' RETURNING value") ?? 0
            self.memory.withLock { $0.leases[identifier] = (Clock.now + time, time) }
            return Lease(identifier: identifier)
        }
    }

    func renew(_ lease: Lease) async throws(TurntableError) -> Bool {
        try await write("renewing a lease") { _ in
            self.memory.withLock { memory in
                guard let time = memory.leases[lease.identifier]?.time else { return false }
                memory.leases[lease.identifier] = (Clock.now + time, time)
                return true
            }
        }
    }

    func revoke(_ lease: Lease) async throws(TurntableError) {
        try await write("ending a lease") { database in
            self.memory.withLock { memory in if let time = memory.leases[lease.identifier]?.time { memory.leases[lease.identifier] = (.zero, time) } }
            try self.endLeases(database) { $0 <= Clock.now }
        }
    }

    func watch(_ prefix: String) async throws(TurntableError) -> Changes {
        let (stream, continuation) = Changes.makeStream(bufferingPolicy: .bufferingOldest(Limits.watchedChanges))
        let name = UUID()
        continuation.onTermination = { [weak self] _ in self?.memory.withLock { $0.watchers[name] = nil } }
        try await write("watching \(prefix)") { _ in self.memory.withLock { $0.watchers[name] = (prefix, continuation) } }
        return stream
    }
}

// Where an orchestrator's state lives: a small map of keys to values with one way to change it.
//
//   revision      a number that grows with every transaction. An entry carries that of the transaction which wrote it, so two
//                 reads that give the same revision gave the same value.
//   transaction   conditions and writes. If every condition holds, all writes are made at once; else none is. Nothing else writes.
//   lease         an entry written under a lease vanishes with it. A lease ends unless it is renewed in time, so what belongs to a
//                 process that died goes away by itself.
//   watch         tells that something under a prefix changed. A watch that breaks says so: begin another, and read again.
//
// A transaction whose answer was lost may have been made. Whoever repeats one reads first.

internal import Foundation
internal import TurntableCore

typealias Revision = Int64

struct Entry: Sendable, Equatable {
    var key: String
    var value: Data
    var revision: Revision
}

struct Condition: Sendable, Equatable {
    var key: String
    /// That of the entry as it was read; 0 if there must be none.
    var revision: Revision

    static func absent(_ key: String) -> Condition { Condition(key: key, revision: 0) }
    static func unchanged(_ key: String, _ revision: Revision) -> Condition { Condition(key: key, revision: revision) }
}

enum Write: Sendable, Equatable {
    case put(String, Data, Lease? = nil)
    case delete(String)

    var key: String {
        switch self {
        case .put(let key, _, _), .delete(let key): key
        }
    }
}

struct Lease: Sendable, Hashable {
    var identifier: Int64
}

struct Change: Sendable, Equatable {
    var key: String
    /// Nil if the entry was deleted.
    var value: Data?
    var revision: Revision
}

typealias Changes = AsyncThrowingStream<Change, any Error>

protocol Store: Sendable {
    func read(_ key: String) async throws(TurntableError) -> Entry?

    /// The entries whose keys begin with `prefix`, in the order of their keys, at most ``Limits/listEntries``: those after `after`.
    func list(_ prefix: String, after: String?, atMost: Int) async throws(TurntableError) -> [Entry]

    /// Makes the writes if the conditions hold, and gives the revision; nil if one does not, or if a lease has ended.
    func commit(_ conditions: [Condition], _ writes: [Write]) async throws(TurntableError) -> Revision?

    func grantLease(_ time: Nanoseconds) async throws(TurntableError) -> Lease

    /// False if it has ended.
    func renew(_ lease: Lease) async throws(TurntableError) -> Bool

    /// Ends a lease now.
    func revoke(_ lease: Lease) async throws(TurntableError)

    /// Changes from now on: what is read after this returned, and what the stream gives, leave no gap.
    func watch(_ prefix: String) async throws(TurntableError) -> Changes
}

extension Store {
    func list(_ prefix: String) async throws(TurntableError) -> [Entry] {
        var all: [Entry] = []
        while true {
            let page = try await list(prefix, after: all.last?.key, atMost: Limits.listEntries)
            all += page
            if page.count < Limits.listEntries { return all }
        }
    }
}

/// The least key that is greater than every key with this prefix.
func end(ofPrefix prefix: String) -> String {
    var bytes = Array(prefix.utf8)
    // Keys are ASCII, so the last byte can always be raised.
    bytes[bytes.count - 1] += 1
    return String(decoding: bytes, as: UTF8.self)
}

// What each migration used, kept when what became of it is forgotten. In the store
//
//   accounting/<end, 20260131T220000Z>-<migration>     AccountRecord
//
// It is written in the transaction that ends the migration: there is one for each, whoever was master then.

internal import Foundation
internal import TurntableCore

struct AccountRecord: Codable, Sendable, Equatable {
    var migration: String
    var requestedBy: String
    var vm: String
    /// Nil if it ended before it began.
    var source: String?
    var target: String
    var created: Date
    var ended: Date
    var outcome: MigrationState
    /// The line of which it had some, how much at the end, and for how long.
    var line: String?
    var bitsPerSecond: Double?
    var lineSeconds: Int
    /// What crossed the line, and how much of that was disks'. Of a sender that was killed, what it had said by then.
    var bytesOnWire: Int
    var diskBytes: Int

    init(_ record: MigrationRecord, _ outcome: MigrationState, ended: Date) {
        migration = record.id
        requestedBy = record.requestedBy
        vm = record.request.vm
        source = record.source
        target = record.request.target
        created = record.created
        self.ended = ended
        self.outcome = outcome
        line = record.line
        bitsPerSecond = record.bitsPerSecond
        lineSeconds = record.lineSince.map { max(0, Int(ended.timeIntervalSince($0).rounded())) } ?? 0
        bytesOnWire = record.sent?.bytesOnWire ?? 0
        diskBytes = record.sent?.diskBytes ?? 0
    }

    var key: String { "\(Key.accounting)\(Self.mark(ended))-\(migration)" }

    /// A time as it stands in keys, which are then in the order of time.
    static func mark(_ time: Date) -> String { time.formatted(.iso8601).filter { !"-:".contains($0) } }
}

extension Key {
    static let accounting = "accounting/"
}

// What an orchestrator remembers. JSON in the store, under
//
//   sites/<site>            SiteRecord      where machines can be
//   site-state/<site>       SiteState       what its agent said last; vanishes when it is silent
//   vms/<vm>                VMRecord        a machine that a site has shown, and the migration that holds it
//   lines/<line>            LineRecord      a line between two sites, and what is reserved on it
//   migrations/<id>         MigrationRecord everything that was decided about one migration
//   by-vm/<vm>/<id>         (empty)         the migrations of a machine
//   active/<id>             (empty)         migrations that are not over
//   progress/<id>           MoveProgress    how far one is; vanishes with the master
//   accounting/<end>-<id>   AccountRecord   see Accounting.swift
//   master                  see Mastership

internal import Foundation
internal import Protection
internal import TurntableCore
internal import TurntableLinux

struct SiteRecord: Codable, Sendable, Equatable {
    /// Where its agent answers: https://host:port.
    var agent: String
    /// Where the orchestrator of the domain answers that the site belongs to; nil if it is this one's.
    var authority: String?
}

/// A machine as a site's agent sees it.
struct SiteMachine: Codable, Sendable, Equatable {
    var name: String
    /// here, migrating, incoming, interrupted or dead: as `turntable status` says.
    var state: String
    var epoch: UInt64
    /// The epoch under which it would be offered to a target.
    var nextEpoch: UInt64
    var memoryBytes: Int
    var processors: Int

    /// It runs here, or stands here and nowhere else.
    var isHere: Bool { state == "here" || state == "migrating" || state == "interrupted" }
}

/// How a site stands.
struct SiteState: Codable, Sendable, Equatable {
    /// The host's name in its certificate.
    var host: String
    /// SHA-256 of its certificate's key, which tokens for it are bound to.
    var key: Data
    /// The domains without whose tokens it does nothing; none if it needs no token.
    var trusts: [String]?
    var memoryBytes: Int
    var memoryFreeBytes: Int
    var processors: Int
    var processorsFree: Int
    var machines: [SiteMachine]
    /// The migrations that something is held for.
    var slots: [String]
}

struct VMRecord: Codable, Sendable, Equatable {
    var site: String
    var epoch: UInt64
    var state: String
    var memoryBytes: Int
    var processors: Int
    /// The migration that holds it: no other may begin meanwhile.
    var migration: String?

    var isPresent: Bool { state == "here" || state == "migrating" || state == "interrupted" }
}

/// A line between two sites: there always, or set up by its provider for each migration.
struct LineRecord: Codable, Sendable, Equatable {
    /// The two sites it is between.
    var ends: [String]
    var bitsPerSecond: Double
    var roundTripMilliseconds: Double?
    /// Nil: nobody has to set it up.
    var provider: LineProvider?
    /// Link elements on the way, those to one end in the order in which machines pass them.
    var elements: [LinkElementRecord]?
    /// What each migration has of it.
    var reserved: [String: Double] = [:]

    var freeBitsPerSecond: Double { max(0, bitsPerSecond - reserved.values.reduce(0, +)) }
    func joins(_ a: String, _ b: String) -> Bool { Set(ends) == [a, b] }
}

/// A link element on the way to a site (docs/tokens.md).
struct LinkElementRecord: Codable, Sendable, Equatable {
    /// The site that machines go to.
    var to: String
    /// host:port.
    var address: String
    /// Its public key, in PEM.
    var key: String

    static func check(_ elements: [LinkElementRecord], ends: [String]) throws(Problem) {
        guard elements.count <= Limits.linkElements else { throw Problem(.badRequest, "body", "elements", "they are more than \(Limits.linkElements)") }
        for (index, element) in elements.enumerated() {
            let what = "elements[\(index)]"
            guard ends.contains(element.to) else { throw Problem(.conflict, "refused", what, "\(element.to) is no end of the line") }
            guard element.address.utf8.count <= Limits.linkAddressBytes, !element.address.contains("="),
                let address = Address(parsing: element.address, defaultPort: 0), address.port != 0
            else { throw Problem(.badRequest, "body", "\(what).address", "it is no host:port") }
            do throws(TurntableError) { _ = try LinkPublicKey(pem: element.key, what) } catch { throw Problem(.badRequest, "body", "\(what).key", error.why) }
        }
    }
}

/// What a client asks for.
struct MigrationRequest: Codable, Sendable, Equatable {
    /// Chosen by the client, so that asking twice moves once.
    var id: String?
    var vm: String
    var target: String
    /// The longest the machine may stand still.
    var downtimeMilliseconds: Double?
    /// What to reserve on the line. Default: all that is free.
    var bitsPerSecond: Double?
    var streams: Int?
    /// Its disks come along; else both sites have the same storage.
    var disks: Bool?
    /// The machine's epoch as the client knows it: if it is another by then, nothing is moved.
    var epoch: UInt64?
    /// Not before this time.
    var startAt: Date?
}

/// The Traffic Controller's steps. Each is begun in the record before anything of it is done.
enum Step: String, Codable, Sendable, CaseIterable {
    /// Whether whoever asked may, now; and the token that says so.
    case authorise
    /// Memory, processors and room for disks at the target.
    case hold
    /// The line between the sites.
    case reserve
    /// The move itself, by the sites' engines.
    case move
    /// The machine is the target's: everything that was held for the move is given back.
    case settle
}

enum MigrationState: String, Codable, Sendable, CaseIterable {
    case scheduled, running, undoing, completed, failed, cancelled

    var isOver: Bool { self == .completed || self == .failed || self == .cancelled }
}

struct MigrationEvent: Codable, Sendable, Equatable {
    var time: Date
    var text: String
}

struct MigrationRecord: Codable, Sendable, Equatable {
    var id: String
    var request: MigrationRequest
    var requestedBy: String
    var created: Date
    var state: MigrationState
    /// The step that is under way, or was when it ended.
    var step: Step
    /// Where the machine was when it began, and its epoch.
    var source: String?
    var epoch: UInt64?
    /// What tells the sites that they may (Capability), in base64.
    var token: String?
    /// What the target's site is shown; the same, unless one of the sites is another domain's.
    var targetToken: String?
    /// The line that the policy allows, if it names one.
    var grantedLine: String?
    /// The line that is reserved, and how much of it.
    var line: String?
    var lineSince: Date?
    var bitsPerSecond: Double?
    /// Another rate that was asked for since, and is not tried yet.
    var wantedBitsPerSecond: Double?
    var roundTripMilliseconds: Double?
    /// The target's address on the line, if its provider gives it one.
    var lineAddress: String?
    /// Where the target waits for the machine, and under what name.
    var receiver: String?
    var receiverHost: String?
    /// The disks that go along.
    var disks: [MachineDisk]?
    /// What is held at the target ends by itself after this.
    var slotUntil: Date?
    var cancelRequested = false
    /// Why it did not complete, or what is to be known though it did.
    var problem: Problem?
    var report: MoveReport?
    /// Also of a move that failed.
    var sent: SentBytes?
    var ended: Date?
    var events: [MigrationEvent] = []

    mutating func note(_ text: String, _ time: Date = .now) {
        if events.count >= Limits.migrationEvents { events.remove(at: 1) }
        events.append(MigrationEvent(time: time, text: text))
    }

    /// Whether the effects of a step may exist.
    func began(_ step: Step) -> Bool {
        state != .scheduled && (Step.allCases.firstIndex(of: step) ?? 0) <= (Step.allCases.firstIndex(of: self.step) ?? 0)
    }
}

/// What a finished move took: of the engine's report, what a fleet's keeper asks for.
struct MoveReport: Codable, Sendable, Equatable {
    var epoch: UInt64
    var totalSeconds: Double
    var blackoutMilliseconds: Double
    var memoryBytes: Int
    var bytesOnWire: Int
    /// What of disks was sent.
    var diskBytes: Int?
    var rounds: Int
}

/// What crossed the line, and how much of that was disks'.
struct SentBytes: Codable, Sendable, Equatable {
    var bytesOnWire = 0
    var diskBytes = 0
}

struct MoveProgress: Codable, Sendable, Equatable {
    /// connecting, preparing, copying, paused, handedOff, completed; or unanswered: handed off, and the target cannot be asked.
    var phase: String
    var round: Int?
    var pagesLeft: Int?
    var rateBitsPerSecond: Double?
    var dirtyBytesPerSecond: Double?
    var predictedBlackoutMilliseconds: Double?
    var secondsLeft: Double?
}

/// What somebody asked for and may have cancelled.
protocol Undertaking: Codable, Sendable, Equatable {
    /// What it is called, in paths and for people.
    static var kind: String { get }
    static func key(_ id: String) -> String
    var id: String { get }
    var requestedBy: String { get }
    var cancelRequested: Bool { get }
    var isOver: Bool { get }
    var isCancelled: Bool { get }
    mutating func requestCancel(by peer: String)
}

extension MigrationRecord: Undertaking {
    static let kind = "migration"
    static func key(_ id: String) -> String { Key.migration(id) }
    var isOver: Bool { state.isOver }
    var isCancelled: Bool { state == .cancelled }
    mutating func requestCancel(by peer: String) {
        cancelRequested = true
        note("\(peer) cancels it")
    }
}

enum Key {
    static func site(_ name: String) -> String { "sites/\(name)" }
    static func siteState(_ name: String) -> String { "site-state/\(name)" }
    static func vm(_ name: String) -> String { "vms/\(name)" }
    static func line(_ name: String) -> String { "lines/\(name)" }
    static func migration(_ id: String) -> String { "migrations/\(id)" }
    static func ofVM(_ vm: String, _ id: String) -> String { "by-vm/\(vm)/\(id)" }
    static func active(_ id: String) -> String { "active/\(id)" }
    static func progress(_ id: String) -> String { "progress/\(id)" }
}

/// A record as it was read, to be written if nobody else wrote it meanwhile.
struct Stored<Record: Codable & Sendable>: Sendable {
    let key: String
    var record: Record
    /// 0 if it is new.
    let revision: Revision

    var condition: Condition { Condition(key: key, revision: revision) }
    func write() throws(TurntableError) -> Write { .put(key, try JSON.encode(record)) }
}

extension Stored: Equatable where Record: Equatable {}

extension Store {
    func load<Record: Codable & Sendable>(_ key: String, _ type: Record.Type = Record.self) async throws(TurntableError) -> Stored<Record>? {
        guard let entry = try await read(key) else { return nil }
        return try entry.stored()
    }

    func loadAll<Record: Codable & Sendable>(_ prefix: String, _ type: Record.Type = Record.self) async throws(TurntableError) -> [Stored<Record>] {
        var all: [Stored<Record>] = []
        for entry in try await list(prefix) { all.append(try entry.stored()) }
        return all
    }
}

extension Entry {
    func stored<Record: Codable & Sendable>(_ type: Record.Type = Record.self) throws(TurntableError) -> Stored<Record> {
        Stored(key: key, record: try JSON.decode(Record.self, value, "reading \(key) in the store"), revision: revision)
    }

    /// The key's last part.
    var name: String { String(key[key.index(after: key.lastIndex(of: "/") ?? key.startIndex)...]) }
}

internal import Foundation
internal import TurntableCore

// What the API shows: records, with links between them.

struct Links: Encodable, Sendable {
    var `self`: String
    var site: String?
    var vm: String?
    var source: String?
    var target: String?
    var migration: String?
    var migrations: String?
    var line: String?
    var events: String?
    var cancel: String?
}

struct Page<Item: Encodable & Sendable>: Encodable, Sendable {
    var items: [Item]
    /// Where the list goes on.
    var next: String?
}

struct SiteResource: Encodable, Sendable {
    var name: String
    var agent: String
    var authority: String?
    var isReachable: Bool
    /// What its agent said last, if that is not long ago.
    var state: SiteState?
    var links: Links

    init(_ name: String, _ record: SiteRecord, _ state: SiteState?) {
        self.name = name
        agent = record.agent
        authority = record.authority
        isReachable = state != nil
        self.state = state
        links = Links(self: "/v1/sites/\(name)")
    }
}

struct LineResource: Encodable, Sendable {
    var name: String
    var ends: [String]
    var bitsPerSecond: Double
    var freeBitsPerSecond: Double
    var roundTripMilliseconds: Double?
    var provider: LineProvider?
    var elements: [LinkElementRecord]?
    /// By migration.
    var reserved: [String: Double]
    var links: Links

    init(_ name: String, _ record: LineRecord) {
        self.name = name
        ends = record.ends
        bitsPerSecond = record.bitsPerSecond
        freeBitsPerSecond = record.freeBitsPerSecond
        roundTripMilliseconds = record.roundTripMilliseconds
        provider = record.provider
        elements = record.elements
        reserved = record.reserved
        links = Links(self: "/v1/lines/\(name)")
    }
}

/// A machine that can move. Its ETag is its epoch: who has read one, and says so, decides about no later one.
struct VMResource: Encodable, Sendable {
    struct RightToRun: Encodable, Sendable {
        var site: String
        var epoch: UInt64
    }
    var id: String
    var state: String
    var memoryBytes: Int
    var processors: Int
    var rightToRun: RightToRun
    var links: Links

    init(_ id: String, _ record: VMRecord, line: String?) {
        self.id = id
        state = record.state
        memoryBytes = record.memoryBytes
        processors = record.processors
        rightToRun = RightToRun(site: record.site, epoch: record.epoch)
        links = Links(
            self: "/v1/vms/\(id)", site: "/v1/sites/\(record.site)", migration: record.migration.map { "/v1/migrations/\($0)" },
            migrations: "/v1/migrations?vm=\(id)", line: line.map { "/v1/lines/\($0)" })
    }

    static func etag(_ record: VMRecord) -> String { "\"\(record.epoch)\"" }
}

struct MigrationResource: Encodable, Sendable {
    var id: String
    var vm: String
    var source: String?
    var target: String
    var state: MigrationState
    var step: Step
    var requestedBy: String
    var request: MigrationRequest
    var created: Date
    var ended: Date?
    var epoch: UInt64?
    var bitsPerSecond: Double?
    var isBeingCancelled: Bool
    var progress: MoveProgress?
    var report: MoveReport?
    var problem: Problem?
    var events: [MigrationEvent]
    var links: Links

    init(_ record: MigrationRecord, _ progress: MoveProgress?) {
        id = record.id
        vm = record.request.vm
        source = record.source
        target = record.request.target
        state = record.state
        step = record.step
        requestedBy = record.requestedBy
        request = record.request
        created = record.created
        ended = record.ended
        epoch = record.epoch
        bitsPerSecond = record.bitsPerSecond
        isBeingCancelled = record.cancelRequested && !record.state.isOver
        self.progress = record.state.isOver ? nil : progress
        report = record.report
        problem = record.problem
        events = record.events
        let path = "/v1/migrations/\(record.id)"
        links = Links(
            self: path, vm: "/v1/vms/\(record.request.vm)", source: record.source.map { "/v1/sites/\($0)" },
            target: "/v1/sites/\(record.request.target)", line: record.line.map { "/v1/lines/\($0)" }, events: "\(path)/events",
            cancel: record.state.isOver ? nil : "\(path)/cancel")
    }
}

struct EvacuationResource: Encodable, Sendable {
    struct Counts: Encodable, Sendable {
        var waiting: Int
        var moving: Int
        var moved: Int
        var failed: Int
    }
    var id: String
    var source: String
    var target: String
    var state: EvacuationState
    var requestedBy: String
    var request: EvacuationRequest
    var created: Date
    var begun: Date?
    var ended: Date?
    var plannedSeconds: Double?
    var machines: Counts
    var isBeingCancelled: Bool
    var problem: Problem?
    /// In the order in which they begin; only where one evacuation is shown.
    var moves: [EvacuationMove]?
    var links: Links

    init(_ record: EvacuationRecord, _ moves: [EvacuationMove]? = nil) {
        id = record.id
        source = record.request.source
        target = record.request.target
        state = record.state
        requestedBy = record.requestedBy
        request = record.request
        created = record.created
        begun = record.begun
        ended = record.ended
        plannedSeconds = record.plannedSeconds
        machines = Counts(waiting: record.waiting, moving: record.moving, moved: record.moved, failed: record.failed)
        isBeingCancelled = record.cancelRequested && !record.state.isOver
        problem = record.problem
        self.moves = moves
        let path = "/v1/evacuations/\(record.id)"
        links = Links(
            self: path, source: "/v1/sites/\(source)", target: "/v1/sites/\(target)", cancel: record.state.isOver ? nil : "\(path)/cancel")
    }
}

struct StatusResource: Encodable, Sendable {
    var domain: String
    /// This orchestrator, and the one that decides; none while one is elected.
    var name: String
    var master: String?
    var version = "1"
    /// Who asks.
    var you: String
    var mayChange: Bool
}

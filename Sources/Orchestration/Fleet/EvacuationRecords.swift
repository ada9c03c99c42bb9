// What is remembered of an evacuation: who leaves, in which order, and how far that is. In the store
//
//   evacuations/<id>              EvacuationRecord
//   evacuation-moves/<id>/<vm>    EvacuationMove     each machine's part of it
//   active-evacuations/<id>       (empty)            those that are not over

internal import Foundation
internal import TurntableCore

/// What a client asks for.
struct EvacuationRequest: Codable, Sendable, Equatable {
    /// Chosen by the client, so that asking twice is one evacuation.
    var id: String?
    var source: String
    var target: String
    /// Default: all that are at the source when it begins.
    var vms: [String]?
    /// Higher ones leave first. Default: 0.
    var priorities: [String: Int]?
    /// The longest each machine may stand still.
    var downtimeMilliseconds: Double?
    /// Their disks come along.
    var disks: Bool?
    /// Not before this time.
    var startAt: Date?
    /// Nothing is begun if the plan ends later.
    var deadline: Date?
}

enum EvacuationState: String, Codable, Sendable, CaseIterable {
    case scheduled, running, completed, failed, cancelled

    var isOver: Bool { self != .scheduled && self != .running }
}

struct EvacuationRecord: Codable, Sendable, Equatable {
    var id: String
    var request: EvacuationRequest
    var requestedBy: String
    var created: Date
    var state: EvacuationState
    var begun: Date?
    /// How long the plan takes.
    var plannedSeconds: Double?
    var waiting = 0
    var moving = 0
    var moved = 0
    var failed = 0
    var cancelRequested = false
    var problem: Problem?
    var ended: Date?
}

extension EvacuationRecord: Undertaking {
    static let kind = "evacuation"
    static func key(_ id: String) -> String { Key.evacuation(id) }
    var isOver: Bool { state.isOver }
    var isCancelled: Bool { state == .cancelled }
    mutating func requestCancel(by peer: String) { cancelRequested = true }
}

struct EvacuationMove: Codable, Sendable, Equatable {
    enum State: String, Codable, Sendable { case waiting, moving, moved, failed }
    var vm: String
    var state: State
    /// Those with lower numbers are begun first.
    var order: Int
    var memoryBytes: Int
    /// Of disks that come along.
    var diskBytes: Int?
    var dirtyBytesPerSecond: Double
    /// What it is to have of the line; nil if no line is described.
    var bitsPerSecond: Double?
    /// When the plan has it begin and end, in seconds after the evacuation's begin.
    var plannedStart: Double
    var plannedEnd: Double
    var attempts = 0
    /// The migration that moves it, or did last.
    var migration: String?
    var problem: Problem?
}

extension Key {
    static func evacuation(_ id: String) -> String { "evacuations/\(id)" }
    static func activeEvacuation(_ id: String) -> String { "active-evacuations/\(id)" }
    static func moves(of evacuation: String) -> String { "evacuation-moves/\(evacuation)/" }
    static func move(of evacuation: String, _ vm: String) -> String { moves(of: evacuation) + vm }
}

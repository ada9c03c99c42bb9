// What an orchestrator remembers of evacuations, in the store:
//
//   evacuations/<id>            EvacuationRecord   one that was asked for; written last, so that with it all of its parts are there
//   evacuation-parts/<id>/<vm>  EvacuationPart     a machine of it, and the migration that moves it

internal import Foundation
internal import TurntableCore

struct EvacuationRequest: Codable, Sendable, Equatable {
    /// Chosen by the client, so that asking twice evacuates once.
    var id: String?
    var site: String
    var target: String
    /// Refused if the plan takes longer than until then.
    var deadline: Date?
    /// Machines that move at once, at most.
    var concurrency: Int?
    var downtimeMilliseconds: Double?
    /// What a machine writes of which that is not known.
    var dirtyBytesPerSecond: Double?

    static let mostConcurrency = 64
    static let usualConcurrency = 16
    static let usualDirtyBytesPerSecond = 10e6
    /// What a migration takes besides its bytes: slot, line, hand-off.
    static let fixedSeconds = 3.0
}

enum EvacuationState: String, Codable, Sendable {
    case running, completed, incomplete, cancelled
}

struct EvacuationRecord: Codable, Sendable, Equatable {
    var id: String
    var request: EvacuationRequest
    var requestedBy: String
    var created: Date
    var state = EvacuationState.running
    var line: String
    /// By the plan.
    var seconds: Double
    var ended: Date?
}

struct EvacuationPart: Codable, Sendable, Equatable {
    enum State: String, Codable, Sendable {
        case waiting, moving, moved
        /// It is where it was, and `problem` says why.
        case stayed
    }
    var vm: String
    /// Its place in the plan.
    var order: Int
    var migration: String
    var bitsPerSecond: Double
    /// Seconds after the beginning, by the plan.
    var begin: Double
    var end: Double
    var state = State.waiting
    var problem: Problem?
}

extension Key {
    static func evacuation(_ id: String) -> String { "evacuations/\(id)" }
    static func evacuationParts(_ id: String) -> String { "evacuation-parts/\(id)/" }
}

extension Store {
    func parts(of id: String) async throws(TurntableError) -> [Stored<EvacuationPart>] {
        try await loadAll(Key.evacuationParts(id), EvacuationPart.self).sorted { $0.record.order < $1.record.order }
    }
}

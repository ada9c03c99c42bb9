// What may be asked of a lightpath, as LightpathAPI.swift has it: of this controller's own, of one over several networks, and of a peer.

internal import Foundation
internal import Lightpaths
internal import NIOHTTP1
internal import TurntableCore

enum LightpathOperation: Sendable {
    case reserve(LightpathRequest)
    case keep, commit, provision, release
    case change(bitsPerSecond: Double)
    case query, terminate

    fileprivate var message: (method: HTTPMethod, part: String, body: (any Encodable)?) {
        switch self {
        case .reserve(let request): (.PUT, "", request)
        case .keep: (.PUT, "/lease", nil)
        case .commit: (.PUT, "/commitment", nil)
        case .provision: (.PUT, "/dataplane", nil)
        case .release: (.DELETE, "/dataplane", nil)
        case .change(let rate): (.PUT, "/rate", RateRequest(bitsPerSecond: rate))
        case .query: (.GET, "", nil)
        case .terminate: (.DELETE, "", nil)
        }
    }
}

extension Client {
    /// Asks a controller.
    func perform(_ operation: LightpathOperation, _ id: String, at url: String) async throws(TurntableError) -> Lightpath {
        let message = operation.message
        return try await ask(message.method, "\(url)/v1/lightpaths/\(id)\(message.part)", message.body, atMost: Limits.storedBytes)
            .decoded(Lightpath.self, "a lightpath of \(url)")
    }
}

extension LightpathController {
    /// For an orchestrator, or a network whose path has a segment here: what is not kept ends.
    func perform(_ operation: LightpathOperation, _ id: String, owner: String) async throws(TurntableError) -> Lightpath {
        switch operation {
        case .reserve(let request): path(try await reserve(id, request, owner: owner))
        case .keep: path(try await keep(id, owner: owner))
        case .commit: path(try await commit(id, owner: owner, isLeased: true))
        case .provision: path(try await provision(id, owner: owner, isLeased: true))
        case .release: path(try await release(id, owner: owner))
        case .change(let rate):
            try await { () async throws(TurntableError) in
                _ = try await hold(id, bitsPerSecond: rate, until: nil, owner: owner)
                return path(try await commit(id, owner: owner, isLeased: true))
            }()
        case .query: path(try reservation(id, of: owner))
        case .terminate: path(try await terminate(id, owner: owner))
        }
    }
}

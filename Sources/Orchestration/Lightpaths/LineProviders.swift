// How a line's bandwidth is had: by whom, as its record says. A static line has it always; a controller of ours is asked for it.

internal import Foundation
internal import Lightpaths
internal import TurntableCore

/// Who sets a line up, and how its ends are called there.
struct LineProvider: Codable, Sendable, Equatable {
    enum Kind: String, Codable, Sendable { case controller, nsi }
    var kind: Kind
    var url: String
    /// Of NSI: the provider's name, and whether it changes connections in use; it does unless it is said.
    var nsa: String?
    var modifies: Bool?
    /// In the order of the line's.
    var ends: [String]

    func check() throws(Problem) {
        guard isHost(url, mayHavePath: kind == .nsi) else {
            throw Problem(.badRequest, "body", "provider.url", "it is no https://host:port")
        }
        guard kind != .nsi || (1...300).contains(nsa?.utf8.count ?? 0) else {
            throw Problem(.badRequest, "body", "provider.nsa", "a provider by NSI has a name")
        }
        guard ends.count == 2, ends[0] != ends[1], ends.allSatisfy({ (1...300).contains($0.utf8.count) }) else {
            throw Problem(.badRequest, "body", "provider.ends", "they are not the names of two ends")
        }
    }
}

extension LineRecord {
    /// The ends as its provider names them, for a machine that comes from a site.
    func providerEnds(from source: String) -> [String] {
        let names = provider?.ends ?? ends
        return source == ends[0] ? names : names.reversed()
    }
}

extension Master {
    /// - Parameter id: the migration that it is, or shall be, reserved for.
    func provider(of line: LineRecord, for id: String) throws(TurntableError) -> any LightpathProvider {
        guard let provider = line.provider else {
            return StaticLine(bitsPerSecond: line.reserved[id] ?? 0, roundTripMilliseconds: line.roundTripMilliseconds)
        }
        switch provider.kind {
        case .controller: return ControllerLine(client: client, url: provider.url)
        case .nsi:
            guard let nsi else {
                throw TurntableError(
                    .refused, "asking \(provider.nsa ?? provider.url)", "this orchestrator has no name for NSI", remedy: "start it with --nsi-name")
            }
            return NSILine(client: client, requester: nsi, provider: provider)
        }
    }
}

/// A line that is there: what a migration has of it stands in its record, and nothing is set up.
struct StaticLine: LightpathProvider {
    let bitsPerSecond: Double
    let roundTripMilliseconds: Double?

    private var path: Lightpath {
        Lightpath(
            state: .provisioned, bitsPerSecond: bitsPerSecond, roundTripMilliseconds: roundTripMilliseconds, isActive: true, until: .distantFuture)
    }
    func reserve(_ id: String, _ request: LightpathRequest) -> Lightpath { path }
    func commit(_ id: String) {}
    func provision(_ id: String) -> Lightpath { path }
    func query(_ id: String) -> Lightpath? { path }
    func change(_ id: String, bitsPerSecond: Double) -> Lightpath {
        StaticLine(bitsPerSecond: bitsPerSecond, roundTripMilliseconds: roundTripMilliseconds).path
    }
    func keep(_ id: String) {}
    func release(_ id: String) {}
    func terminate(_ id: String) {}
}

/// A line that a controller of ours sets up: LightpathAPI.swift. It is had as long as it is asked for.
struct ControllerLine: LightpathProvider {
    let client: Client
    let url: String

    private func perform(_ operation: LightpathOperation, _ id: String) async throws(TurntableError) -> Lightpath {
        try await client.perform(operation, id, at: url)
    }

    func reserve(_ id: String, _ request: LightpathRequest) async throws(TurntableError) -> Lightpath { try await perform(.reserve(request), id) }

    func commit(_ id: String) async throws(TurntableError) { _ = try await perform(.commit, id) }

    func provision(_ id: String) async throws(TurntableError) -> Lightpath {
        let path = try await perform(.provision, id)
        guard path.isActive else { throw TurntableError(.line, "lightpath \(id)", "\(url) has not set it up yet", remedy: "look at its log") }
        return path
    }

    func query(_ id: String) async throws(TurntableError) -> Lightpath? {
        do throws(TurntableError) {
            let path = try await perform(.query, id)
            return path.state == .terminated ? nil : path
        } catch {
            if error.kind == .refused { return nil }
            throw error
        }
    }

    func change(_ id: String, bitsPerSecond: Double) async throws(TurntableError) -> Lightpath {
        try await perform(.change(bitsPerSecond: bitsPerSecond), id)
    }

    func keep(_ id: String) async throws(TurntableError) { _ = try await perform(.keep, id) }

    func release(_ id: String) async throws(TurntableError) { _ = try await perform(.release, id) }

    func terminate(_ id: String) async throws(TurntableError) {
        do throws(TurntableError) { _ = try await perform(.terminate, id) } catch {
            // There is none: it was never reserved, or is forgotten.
            if error.kind != .refused { throw error }
        }
    }
}

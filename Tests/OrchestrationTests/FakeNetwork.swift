internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import TurntableCore
@testable internal import Lightpaths
@testable internal import Orchestration

/// Another network's controller that grants whatever it is asked for, unless it is told otherwise.
actor FakeNetwork {
    /// The last part of a path, or "reserve".
    typealias Part = String
    enum Answer { case refuses, isSilent }

    let name: String
    private let borders: [Topology.Border]
    /// In the place of its description.
    var says: Data?
    private var answers: [Part: Answer] = [:]
    private(set) var segments: [String: Lightpath] = [:]
    private(set) var requests: [LightpathRequest] = []

    /// - Parameter borders: the networks that it meets.
    init(_ name: String, meets peers: [String]) {
        self.name = name
        borders = peers.map { Self.border(of: name, with: $0) }
    }

    static func urn(_ name: String) -> String { "urn:ogf:network:\(name).test:2026" }

    static func border(of network: String, with peer: String) -> Topology.Border {
        Topology.Border(
            name: "to-\(peer)", carrier: .vlan, bitsPerSecond: 1e9, roundTripMilliseconds: 10, labels: [100, 199],
            peer: .init(network: urn(peer), border: "to-\(network)"))
    }

    func set(_ part: Part, _ answer: Answer?) { answers[part] = answer }
    func say(_ data: Data?) { says = data }
    func end(_ id: String) { segments[id]?.state = .terminated }
    var alive: [Lightpath] { segments.values.filter { $0.state != .terminated } }

    var document: NetworkDocument {
        NetworkDocument(network: Self.urn(name), serial: 1, nodes: ["node"], borders: borders, connections: [])
    }

    private func description() throws -> Response {
        guard let says else { return try .json(document) }
        return Response(status: .ok, headers: [.contentType: "application/json"], body: .init(byteBuffer: .init(bytes: says)))
    }

    private func offer() -> Offer {
        let ends = borders.map(\.name) + ["node"]
        let connections = ends.flatMap { one in
            ends.filter { $0 > one }.map { NetworkDocument.Connection(ends: [one, $0], bitsPerSecond: 1e9, roundTripMilliseconds: name == "slow" ? 50 : 10) }
        }
        return Offer(connections: connections, labels: Dictionary(uniqueKeysWithValues: borders.map { ($0.name, [[100, 199]]) }))
    }

    private func answer(_ id: String, _ part: Part, _ change: (inout Lightpath) -> Void) throws -> Response {
        switch answers[part] {
        case .refuses: throw TurntableError(.refused, "lightpath \(id)", "\(name) does not want to")
        case .isSilent: throw TurntableError(.line, "lightpath \(id)", "\(name) has its own trouble")
        case nil: break
        }
        guard var path = segments[id] else { throw TurntableError(.refused, "lightpath \(id)", "there is none") }
        if path.state != .terminated { change(&path) }
        segments[id] = path
        return try .json(path)
    }

    private func reserve(_ id: String, _ request: LightpathRequest) throws -> Response {
        requests.append(request)
        if answers["reserve"] == nil { segments[id] = Lightpath(state: .held, bitsPerSecond: request.bitsPerSecond, isActive: false, until: request.until) }
        return try answer(id, "reserve") { _ in }
    }

    nonisolated func routes() -> Routes {
        @Sendable func id(_ context: Context) throws -> String { try context.parameters.require("id") }
        var routes = Routes()
        routes.add("/v1/network", (.get, { _, _ in try await self.description() }))
        routes.add("/v1/network/offers", (.post, { _, _ in try .json(await self.offer()) }))
        routes.add("/v1/lightpaths/:id", (.put, { request, context in
            try await self.reserve(try id(context), try await request.json(LightpathRequest.self))
        }), (.get, { _, context in try await self.answer(try id(context), "query") { _ in } }), (.delete, { _, context in
            try await self.answer(try id(context), "terminate") { $0.state = .terminated }
        }))
        routes.add("/v1/lightpaths/:id/lease", (.put, { _, context in try await self.answer(try id(context), "lease") { _ in } }))
        routes.add("/v1/lightpaths/:id/commitment", (.put, { _, context in
            try await self.answer(try id(context), "commitment") { $0.state = .committed }
        }))
        routes.add("/v1/lightpaths/:id/dataplane", (.put, { _, context in
            try await self.answer(try id(context), "dataplane") { ($0.state, $0.isActive) = (.provisioned, true) }
        }), (.delete, { _, context in try await self.answer(try id(context), "release") { ($0.state, $0.isActive) = (.committed, false) } }))
        routes.add("/v1/lightpaths/:id/rate", (.put, { request, context in
            let rate = try await request.json(RateRequest.self).bitsPerSecond
            return try await self.answer(try id(context), "rate") { $0.bitsPerSecond = rate }
        }))
        return routes
    }
}

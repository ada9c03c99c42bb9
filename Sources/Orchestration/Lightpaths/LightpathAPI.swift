// What orchestrators ask of a controller: HTTP with JSON, TLS with both certificates, each request done once however often it is made.
//
//   PUT    /v1/lightpaths/<id>             LightpathRequest -> Lightpath   reserve
//   PUT    /v1/lightpaths/<id>/lease       -> Lightpath                    keep
//   PUT    /v1/lightpaths/<id>/commitment  -> Lightpath                    commit
//   PUT    /v1/lightpaths/<id>/dataplane   -> Lightpath                    provision
//   DELETE /v1/lightpaths/<id>/dataplane   -> Lightpath                    release
//   PUT    /v1/lightpaths/<id>/rate        RateRequest -> Lightpath        another rate
//   GET    /v1/lightpaths/<id>             -> Lightpath
//   DELETE /v1/lightpaths/<id>             -> Lightpath                    terminate
//   GET    /v1/lightpaths                  -> [Reservation]                all of them, for people
//   GET    /v1/topology                    -> Topology

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import Lightpaths
internal import TurntableCore

struct RateRequest: Codable, Sendable { var bitsPerSecond: Double }

/// Who may ask, by the names in their certificates.
struct LightpathAdmission: Sendable {
    enum Role { case user, peer }
    let users: Set<String>
    /// Controllers of other networks: for segments that join theirs.
    let peers: Set<String>
    /// Whether a controller that is no peer's may have them too, or only go on with what it has.
    var others: @Sendable (_ host: String, _ mayBegin: Bool) -> Bool = { _, _ in false }

    func role(_ context: Context, toBegin mayBegin: Bool = false) throws -> Role {
        if users.contains(context.peer) { return .user }
        if peers.contains(context.peer) || others(context.peer, mayBegin) { return .peer }
        throw Problem(
            .forbidden, "forbidden", "asking for lightpaths", "\(context.peer) may have none here",
            remedy: "start the controller with --user \(context.peer)")
    }

    func user(_ context: Context) throws {
        guard try role(context) == .user else {
            throw Problem(
                .forbidden, "forbidden", "\(context.peer)", "it is another network's controller, and may have segments that begin or end at a border here",
                remedy: "start the controller with --user \(context.peer)")
        }
    }
}

struct LightpathAPI: Sendable {
    let controller: LightpathController
    let topology: Topology
    let admission: LightpathAdmission
    /// Of a network that has a name: it may know others.
    let paths: NetworkPaths?

    func routes() -> Routes {
        var routes = Routes()
        routes.add("/v1/topology", (.get, { _, context in
            try admission.user(context)
            return try .json(topology)
        }))
        routes.add("/v1/lightpaths", (.get, { _, context in
            try admission.user(context)
            return try .json(await controller.all())
        }))
        routes.add("/v1/lightpaths/:id", (.put, { request, context in
            let id = try identifier(context)
            return try await perform(.reserve(try await request.json(LightpathRequest.self)), id, context)
        }), (.get, { _, context in try await perform(.query, context) }), (.delete, { _, context in try await perform(.terminate, context) }))
        routes.add("/v1/lightpaths/:id/lease", (.put, { _, context in try await perform(.keep, context) }))
        routes.add("/v1/lightpaths/:id/commitment", (.put, { _, context in try await perform(.commit, context) }))
        routes.add("/v1/lightpaths/:id/dataplane", (.put, { _, context in
            try await perform(.provision, context)
        }), (.delete, { _, context in try await perform(.release, context) }))
        routes.add("/v1/lightpaths/:id/rate", (.put, { request, context in
            let id = try identifier(context)
            return try await perform(.change(bitsPerSecond: try await request.json(RateRequest.self).bitsPerSecond), id, context)
        }))
        return routes
    }

    private func perform(_ operation: LightpathOperation, _ context: Context) async throws -> Response {
        try await perform(operation, try identifier(context), context)
    }

    private func perform(_ operation: LightpathOperation, _ id: String, _ context: Context) async throws -> Response {
        var operation = operation
        var isBeginning = false
        if case .reserve = operation { isBeginning = true }
        let isUser = try admission.role(context, toBegin: isBeginning) == .user
        if case .reserve(var request) = operation {
            if !isUser, !request.ends.contains(where: { topology.isBorder($0) }) { try admission.user(context) }
            // An end in this network may be named in full.
            request.ends = request.ends.map { topology.place($0).network == topology.network ? topology.place($0).name : $0 }
            operation = .reserve(request)
        }
        if isUser, let paths, await paths.isMine(id, operation) { return try .json(try await paths.perform(operation, id, owner: context.peer)) }
        return try .json(try await controller.perform(operation, id, owner: context.peer))
    }

    private func identifier(_ context: Context) throws -> String {
        _ = try admission.role(context)
        let id = try context.parameters.require("id")
        guard Admission.isIdentifier(id) else { throw Problem.notFound("lightpath \(id.prefix(80))") }
        return id
    }
}

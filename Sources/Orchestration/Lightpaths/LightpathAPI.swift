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

struct LightpathAPI: Sendable {
    let controller: LightpathController
    let topology: Topology
    /// Who may ask, by the names in their certificates.
    let users: Set<String>

    func routes() -> Routes {
        var routes = Routes()
        routes.add("/v1/topology", (.get, { _, context in
            try admit(context)
            return try .json(topology)
        }))
        routes.add("/v1/lightpaths", (.get, { _, context in
            try admit(context)
            return try .json(await controller.all())
        }))
        routes.add("/v1/lightpaths/:id", (.put, { request, context in
            let id = try identifier(context)
            return try await show(try await controller.reserve(id, try await request.json(LightpathRequest.self), owner: context.peer))
        }), (.get, { _, context in
            try await show(try await controller.reservation(try identifier(context), of: context.peer))
        }), (.delete, { _, context in
            try await show(try await controller.terminate(try identifier(context), owner: context.peer))
        }))
        routes.add("/v1/lightpaths/:id/lease", (.put, { _, context in
            try await show(try await controller.keep(try identifier(context), owner: context.peer))
        }))
        routes.add("/v1/lightpaths/:id/commitment", (.put, { _, context in
            try await show(try await controller.commit(try identifier(context), owner: context.peer, isLeased: true))
        }))
        routes.add("/v1/lightpaths/:id/dataplane", (.put, { _, context in
            try await show(try await controller.provision(try identifier(context), owner: context.peer, isLeased: true))
        }), (.delete, { _, context in
            try await show(try await controller.release(try identifier(context), owner: context.peer))
        }))
        routes.add("/v1/lightpaths/:id/rate", (.put, { request, context in
            let id = try identifier(context)
            let rate = try await request.json(RateRequest.self).bitsPerSecond
            _ = try await controller.hold(id, bitsPerSecond: rate, until: nil, owner: context.peer)
            return try await show(try await controller.commit(id, owner: context.peer, isLeased: true))
        }))
        return routes
    }

    private func show(_ reservation: Reservation) async throws -> Response { try .json(await controller.path(reservation)) }

    private func admit(_ context: Context) throws {
        guard users.contains(context.peer) else {
            throw Problem(
                .forbidden, "forbidden", "asking for lightpaths", "\(context.peer) may have none here",
                remedy: "start the controller with --user \(context.peer)")
        }
    }

    private func identifier(_ context: Context) throws -> String {
        try admit(context)
        let id = try context.parameters.require("id")
        guard Admission.isIdentifier(id) else { throw Problem.notFound("lightpath \(id.prefix(80))") }
        return id
    }
}

// What controllers of networks that meet ask of each other, besides segments of paths (LightpathAPI.swift), and what of it people see.
//
//   GET  /v1/network          -> NetworkDocument           what this network is, for its peers
//   GET  /v1/network/words    -> [NetworkWord]             its own word and those of others that it knows, to be passed on
//   POST /v1/network/offers   Offer.Request -> Offer       what is free in a window
//   GET  /v1/networks         -> [NetworkView]             which are known, how old that is, and why a border is not used
//   GET  /v1/network-paths    -> [NetworkPath]             paths over several networks and their segments, for people

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import Lightpaths

struct NetworksAPI: Sendable {
    let controller: LightpathController
    let neighbours: Neighbours
    let paths: NetworkPaths
    let admission: LightpathAdmission

    func add(to routes: inout Routes) {
        routes.add("/v1/network", (.get, { _, context in
            _ = try admission.role(context)
            return try .json(neighbours.own)
        }))
        routes.add("/v1/network/words", (.get, { _, context in
            _ = try admission.role(context)
            return try .json(try await neighbours.told())
        }))
        routes.add("/v1/network/offers", (.post, { request, context in
            _ = try admission.role(context, toBegin: true)
            return try .json(try await controller.offer(try await request.json(Offer.Request.self)))
        }))
        routes.add("/v1/networks", (.get, { _, context in
            try admission.user(context)
            return try .json(await neighbours.shown())
        }))
        routes.add("/v1/network-paths", (.get, { _, context in
            try admission.user(context)
            return try .json(await paths.all())
        }))
    }
}

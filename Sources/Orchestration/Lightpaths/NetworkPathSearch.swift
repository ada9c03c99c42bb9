// How a path over several networks is found: each says what it has free, the best way of that is taken, and asked for. Whoever refuses it
// twice, or is silent, is not asked again.

internal import Foundation
internal import Lightpaths
internal import TurntableCore

/// What is known of a search for a way.
private struct Search {
    var refusals: [Leg] = []
    var silent: Set<String> = []
    var last: TurntableError?

    mutating func take(_ failure: NetworkPaths.Failure) {
        if failure.error.kind == .refused { refusals.append(failure.leg) } else { silent.insert(failure.leg.network) }
        last = failure.error
    }

    /// What is not asked for again. Once may be chance, and so is what somebody else was faster with: that is offered no more.
    func refused(_ offers: [String: Offer]) -> [Leg] {
        let refusals = refusals.filter { $0.isFree(offers[$0.network]) }
        return refusals.filter { leg in refusals.count { $0.crosses(leg) } > 1 }
    }
}

extension NetworkPaths {
    func reserve(_ id: String, _ request: LightpathRequest, _ owner: String) async throws(TurntableError) -> Lightpath {
        if let known = paths[id] {
            guard known.owner == owner, known.request.ends == request.ends else { throw refused(id, "there is another of that name") }
            guard known.ended == nil else { throw refused(id, "it has ended", "ask for another, with a new name") }
            if known.isReserved { return try await performNow(.keep, id, owner) }
            await drop(known)
        }
        let ends = request.ends.map { topology.place($0) }
        guard ends.count == 2, ends.contains(where: { $0.network == own && topology.nodes[$0.name] != nil }), request.joints == nil else {
            throw refused(id, "no end of it is a node of \(own)", "ask a controller at one of its ends")
        }
        var search = Search()
        try await find(
            NetworkPath(id: id, owner: owner, request: request, segments: [], isReserved: false, roundTripMilliseconds: 0), &search)
        return try await shown(id)
    }

    /// While nothing is set up yet, another way is as good as the one that a network does not commit.
    func commit(_ first: NetworkPath) async throws(TurntableError) {
        var search = Search()
        for _ in 0..<Limits.lightpathAttempts {
            guard let path = paths[first.id], let mine = mine(path) else { break }
            guard let failure = await elsewhere(path, { _ in .commit }) else {
                _ = try await controller.perform(.commit, mine.id, owner: own)
                return
            }
            guard try await controller.reservation(mine.id, of: own).state == .held else { throw failure.error }
            search.take(failure)
            await drop(path)
            try await find(path, &search)
        }
        throw search.last ?? refused(first.id, "it is not reserved", "reserve it again")
    }

    /// Reserves a path on the best way that all its networks grant.
    private func find(_ path: NetworkPath, _ search: inout Search) async throws(TurntableError) {
        let request = path.request
        let ends = request.ends.map { topology.place($0) }
        let nodes = Dictionary(ends.map { ($0.network, $0.name) }) { first, _ in first }
        let least = request.leastBitsPerSecond ?? request.bitsPerSecond
        let asked = Offer.Request(node: nodes[own], bitsPerSecond: request.bitsPerSecond, from: request.from, until: request.until)
        for _ in 0..<Limits.lightpathAttempts {
            let offers = await neighbours.offers(try await controller.offer(asked), asked, nodes, without: search.silent)
            let map = await neighbours.map()
            search.silent.formUnion(map.documents.map(\.network).filter { offers[$0] == nil })
            let way = map.way(ends, most: request.bitsPerSecond, offers, without: search.refused(offers))
            guard let way, way.bitsPerSecond >= least else {
                throw refused(
                    path.id,
                    "\(BitRate(bitsPerSecond: least)) from \(request.ends[0].suffix(200)) to \(request.ends[1].suffix(200)) are wanted, and "
                        + (way.map { "\(BitRate(bitsPerSecond: $0.bitsPerSecond)) are the most that is free" } ?? "no way over the networks known is free")
                        + (search.last.map { "; \($0.what): \($0.why)" } ?? ""), "look at /v1/networks, ask for less, or at another time")
            }
            guard let failure = try await take(way, path) else { return }
            search.take(failure)
        }
        throw search.last ?? refused(path.id, "no way was found")
    }

    /// Has each network of a way reserve its segment; if one does not, says which, and nothing is left.
    private func take(_ way: NetworkWay, _ asked: NetworkPath) async throws(TurntableError) -> Failure? {
        var path = asked
        let urls = await neighbours.urls()
        path.segments = way.legs.map { NetworkPath.Segment(id: UUID().uuidString.lowercased(), leg: $0, url: urls[$0.network]) }
        path.roundTripMilliseconds = way.roundTripMilliseconds
        path.isReserved = false
        try await write(path)
        let last = path.segments.count - 1
        // The end that lies elsewhere: its address is of this network's, as the near one's is.
        let far = way.legs[0].network == own ? last : 0
        guard let mine = mine(path) else { return nil }
        func request(_ segment: NetworkPath.Segment, _ addresses: [String]? = nil) -> LightpathOperation {
            var joints = segment.leg.labels.map { LightpathRequest.Joint(label: $0) }
            if segment == path.segments[far] { joints[far == 0 ? 0 : 1].address = addresses?[far == 0 ? 0 : 1] }
            return .reserve(
                LightpathRequest(
                    ends: segment.leg.ends, bitsPerSecond: way.bitsPerSecond, from: asked.request.from, until: asked.request.until, joints: joints))
        }
        do throws(TurntableError) {
            let addresses = try await controller.perform(request(mine), mine.id, owner: own).addresses
            if let failure = await elsewhere(path, { request($0, addresses) }) {
                await drop(path)
                return failure
            }
        } catch {
            await drop(path)
            return Failure(leg: mine.leg, error: error)
        }
        path.isReserved = true
        try await write(path)
        return nil
    }
}

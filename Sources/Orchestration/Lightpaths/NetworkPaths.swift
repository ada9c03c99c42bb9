// Lightpaths over several networks. This controller, in whose network one end lies, is the only one that knows the whole: each network on
// the way is asked for a segment under a name of its own, by the messages that orchestrators ask with.
//
//   network-paths/<id>   NetworkPath   written before any network is asked, and when all have answered
//
// All reserve, then all commit, then all provision; this network last, so that its own segment's state, rate and window are the path's.
// If a network refuses or is silent, the others' segments are ended and another way is looked for. What cannot be ended now ends by its
// lease: every segment has one at its own network, and is kept only while whoever asked for the path keeps it here.

internal import Foundation
internal import Lightpaths
internal import Logging
internal import TurntableCore

struct NetworkPath: Codable, Sendable, Equatable {
    struct Segment: Codable, Sendable, Equatable {
        var id: String
        var leg: Leg
        /// Where its network's controller answered then: it may not be heard of any more.
        var url: String?
    }
    var id: String
    var owner: String
    var request: LightpathRequest
    var segments: [Segment]
    /// Every network has reserved its segment.
    var isReserved: Bool
    var roundTripMilliseconds: Double
    var ended: Date?
}

actor NetworkPaths {
    let topology: Topology
    let controller: LightpathController
    let neighbours: Neighbours
    let client: Client
    let store: any Store
    let log: Logger
    var paths: [String: NetworkPath] = [:]
    /// Of segments elsewhere, as their networks said last.
    var isActive: [String: Bool] = [:]
    /// Paths whose segments may not all have the same rate, for a change of it was cut short.
    var uneven: Set<String> = []
    /// What is done for a path is done one after the other.
    var operations: [String: Task<Void, Never>] = [:]

    init(
        topology: Topology, controller: LightpathController, neighbours: Neighbours, client: Client, store: any Store, log: Logger
    ) async throws(TurntableError) {
        self.topology = topology
        self.controller = controller
        self.neighbours = neighbours
        self.client = client
        self.store = store
        self.log = log
        for entry in try await store.loadAll("network-paths/", NetworkPath.self) {
            paths[entry.record.id] = entry.record
            uneven.insert(entry.record.id)
        }
    }

    func all() -> [NetworkPath] { paths.values.sorted { $0.id < $1.id } }

    /// Whether it is a path of several networks: it is known as one, or one of its ends lies elsewhere.
    func isMine(_ id: String, _ operation: LightpathOperation) -> Bool {
        guard case .reserve(let request) = operation else { return paths[id] != nil }
        return request.ends.contains { topology.place($0).network != own }
    }

    func perform(_ operation: LightpathOperation, _ id: String, owner: String) async throws(TurntableError) -> Lightpath {
        try await inOrder(id) { me async throws(TurntableError) in try await me.performNow(operation, id, owner) }
    }

    private func inOrder<Value: Sendable>(
        _ id: String, _ body: @escaping @Sendable (isolated NetworkPaths) async throws(TurntableError) -> Value
    ) async throws(TurntableError) -> Value {
        let before = operations[id]
        let operation = Task { () -> Result<Value, TurntableError> in
            await before?.value
            do throws(TurntableError) { return .success(try await body(self)) } catch { return .failure(error) }
        }
        let last = Task { _ = await operation.value }
        operations[id] = last
        let result = await operation.value
        if operations[id] == last { operations[id] = nil }
        return try result.get()
    }

    func performNow(_ operation: LightpathOperation, _ id: String, _ owner: String) async throws(TurntableError) -> Lightpath {
        if case .reserve(let request) = operation { return try await reserve(id, request, owner) }
        guard let path = paths[id], path.owner == owner else { throw refused(id, "\(owner) has none of that name") }
        switch operation {
        case .terminate: await end(path)
        case .query:
            // One that is silent passes traffic as it did.
            if path.ended == nil, let failure = await elsewhere(path, { _ in .query }), failure.error.kind == .refused { await end(path) }
        case _ where path.ended != nil || !path.isReserved: throw refused(id, "it has ended", "ask for another, with a new name")
        case .commit: try await commit(path)
        case .change(let rate): try await change(path, rate)
        default:
            try await level(path)
            try await everywhere(operation, path)
        }
        return try await shown(id)
    }

    func refused(_ id: String, _ why: String, _ remedy: String = "") -> TurntableError {
        TurntableError(.refused, "lightpath \(id)", why, remedy: remedy)
    }

    // MARK: - All segments

    /// A network that did not do what it was asked for.
    struct Failure: Error {
        var leg: Leg
        var error: TurntableError
    }

    var own: String { neighbours.own.network }

    /// The segment in this network.
    func mine(_ path: NetworkPath) -> NetworkPath.Segment? { path.segments.first { $0.leg.network == own } }

    /// The same of every other network, at once; gives the first that does not do it.
    func elsewhere(_ path: NetworkPath, _ operation: (NetworkPath.Segment) -> LightpathOperation) async -> Failure? {
        let urls = await neighbours.urls()
        let results = await withTaskGroup(of: (Int, Result<Lightpath, TurntableError>).self) { [client] group in
            for (index, segment) in path.segments.enumerated() where segment.leg.network != own {
                let operation = operation(segment)
                group.addTask {
                    do throws(TurntableError) {
                        guard let url = urls[segment.leg.network] ?? segment.url else {
                            throw TurntableError(.refused, segment.leg.network, "it is no peer any more")
                        }
                        return (index, .success(try await client.perform(operation, segment.id, at: url)))
                    } catch {
                        return (index, .failure(error))
                    }
                }
            }
            var results: [(index: Int, result: Result<Lightpath, TurntableError>)] = []
            for await result in group { results.append(result) }
            return results.sorted { $0.index < $1.index }
        }
        var failure: Failure?
        for (index, result) in results {
            let segment = path.segments[index]
            do throws(TurntableError) {
                let segmentPath = try result.get()
                isActive[segment.id] = segmentPath.isActive
                guard segmentPath.state != .terminated else { throw TurntableError(.refused, "lightpath \(path.id)", "\(segment.leg.network) has ended it") }
            } catch {
                failure = failure ?? Failure(leg: segment.leg, error: error)
            }
        }
        return failure
    }

    /// The same of every network, this one last. If one has ended its segment, all of it is over.
    private func everywhere(_ operation: LightpathOperation, _ path: NetworkPath) async throws(TurntableError) {
        var error = await elsewhere(path) { _ in operation }?.error
        if error == nil, let mine = mine(path) {
            do throws(TurntableError) { _ = try await controller.perform(operation, mine.id, owner: own) } catch let refusal { error = refusal }
        }
        guard let error else { return }
        if error.kind == .refused { await end(path) }
        throw error
    }

    /// Ends it for good.
    private func end(_ path: NetworkPath) async {
        guard path.ended == nil else { return }
        await terminate(path)
        var over = path
        over.ended = .now
        paths[path.id] = over
        do throws(TurntableError) { try await write(over) } catch {
            // Its own segment is over, which is found again.
            log.warning("\(error)")
        }
    }

    /// Ends its segments, and forgets it.
    func drop(_ path: NetworkPath) async {
        await terminate(path)
        await forget(path.id)
    }

    private func terminate(_ path: NetworkPath) async {
        if let mine = mine(path) { _ = try? await controller.perform(.terminate, mine.id, owner: own) }
        if let failure = await elsewhere(path, { _ in .terminate }), failure.error.kind != .refused {
            log.notice("lightpath \(path.id) in \(failure.leg.network) ends by its lease: \(failure.error)")
        }
        for segment in path.segments { isActive[segment.id] = nil }
    }

    func write(_ path: NetworkPath) async throws(TurntableError) {
        _ = try await store.commit([], [.put("network-paths/\(path.id)", try JSON.encode(path))])
        paths[path.id] = path
    }

    private func forget(_ id: String) async {
        paths[id] = nil
        uneven.remove(id)
        _ = try? await store.commit([], [.delete("network-paths/\(id)")])
    }

    /// One path with one state: its own segment's, as the others follow it.
    func shown(_ id: String) async throws(TurntableError) -> Lightpath {
        guard let path = paths[id], let mine = mine(path) else { throw refused(id, "nothing of it is reserved", "reserve it again") }
        var shown = try await controller.perform(.query, mine.id, owner: own)
        if path.ended != nil { shown.state = .terminated }
        shown.roundTripMilliseconds = path.roundTripMilliseconds
        shown.isActive = shown.isActive && path.segments.allSatisfy { $0 == mine || isActive[$0.id] == true }
        return shown
    }

    // MARK: - Rates

    /// Another rate everywhere, or the one that it had.
    private func change(_ path: NetworkPath, _ rate: Double) async throws(TurntableError) {
        try await level(path)
        guard let mine = mine(path) else { return }
        let old = try await controller.reservation(mine.id, of: own).bitsPerSecond
        _ = try await controller.perform(.change(bitsPerSecond: rate), mine.id, owner: own)
        uneven.insert(path.id)
        if let failure = await elsewhere(path, { _ in .change(bitsPerSecond: rate) }) {
            _ = try await controller.perform(.change(bitsPerSecond: old), mine.id, owner: own)
            if await elsewhere(path, { _ in .change(bitsPerSecond: old) }) == nil { uneven.remove(path.id) }
            throw failure.error
        }
        uneven.remove(path.id)
    }

    /// After a change that was cut short the others get the rate that it has here.
    private func level(_ path: NetworkPath) async throws(TurntableError) {
        guard uneven.contains(path.id), let mine = mine(path) else { return }
        let known = try await controller.reservation(mine.id, of: own)
        if known.state == .committed || known.state == .provisioned,
            let failure = await elsewhere(path, { _ in .change(bitsPerSecond: known.bitsPerSecond) })
        {
            throw failure.error
        }
        uneven.remove(path.id)
    }

    // MARK: - Time

    /// Until the task is cancelled.
    func run() async {
        for path in paths.values where !path.isReserved {
            _ = try? await inOrder(path.id) { me async throws(TurntableError) in if me.paths[path.id]?.isReserved == false { await me.drop(path) } }
        }
        while !Task.isCancelled {
            try? await Task.sleep(for: .nanoseconds(Limits.lightpathTickTime.value))
            await tick()
        }
    }

    /// Ends elsewhere what has ended here, and forgets what ended long ago.
    private func tick() async {
        let last = Date.now - Limits.endedMoveTime.seconds
        for path in paths.values where path.isReserved {
            if let ended = path.ended {
                guard ended < last else { continue }
                await forget(path.id)
            } else if await isOver(path) {
                log.notice("lightpath \(path.id) of \(path.owner) is over")
                _ = try? await inOrder(path.id) { me async throws(TurntableError) in
                    if let now = me.paths[path.id], await me.isOver(now) { await me.end(now) }
                }
            }
        }
    }

    private func isOver(_ path: NetworkPath) async -> Bool {
        guard path.isReserved, path.ended == nil else { return false }
        // None, if this network has another name now.
        guard let mine = mine(path) else { return true }
        let known = try? await controller.reservation(mine.id, of: own)
        return known.map { $0.state == .terminated } ?? true
    }
}

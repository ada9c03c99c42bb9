// All that a controller remembers: reservations, and what may become of them. Pure: times are arguments, and nothing is set up here.

public import Foundation
public import TurntableCore

public struct Reservation: Codable, Sendable, Equatable {
    /// What is asked for instead, and held until it is committed.
    public struct Change: Codable, Sendable, Equatable {
        public var bitsPerSecond: Double
        public var until: Date
    }
    /// What a requester by NSI is to be told, and where.
    public struct Requester: Codable, Sendable, Equatable {
        public var globalReservationID: String?
        public var description: String?
        public var name: String
        public var replyTo: String?

        public init(globalReservationID: String?, description: String?, name: String, replyTo: String?) {
            self.globalReservationID = globalReservationID
            self.description = description
            self.name = name
            self.replyTo = replyTo
        }
    }

    public var id: String
    /// Who asked, as the certificate says: nobody else may do anything with it.
    public var owner: String
    public var ends: [String]
    /// Of a segment of a longer path: how its ends join the rest.
    public var joints: [LightpathRequest.Joint]?
    public var bitsPerSecond: Double
    public var from: Date
    public var until: Date
    public var hops: [Hop]
    public var roundTripMilliseconds: Double
    /// Of all that are kept, this one: part of the names of what is set up for it.
    public var number: Int
    public var state: Lightpath.State
    public var change: Change?
    public var version: Int
    /// It ends by itself after this, before its window does.
    public var lease: Date
    public var requester: Requester?
    public var ended: Date?

    /// What is set up for it.
    public struct Setup: Sendable, Hashable {
        var number: Int
        var hops: [Hop]
        var bitsPerSecond: Double
        var addresses: [String?]
    }
    public var setup: Setup {
        Setup(number: number, hops: hops, bitsPerSecond: bitsPerSecond, addresses: (joints ?? []).map(\.address))
    }

    /// Whether its data plane is to be set up.
    public func isWanted(at time: Date) -> Bool { state == .provisioned && from <= time && time < until }

    public func path(isActive: Bool, _ pool: String?) -> Lightpath {
        Lightpath(
            state: state, bitsPerSecond: bitsPerSecond, roundTripMilliseconds: roundTripMilliseconds, isActive: isActive,
            addresses: pool.flatMap { AddressPool($0)?.ends(number) }, until: min(until, lease))
    }

    /// What one of its ends gets: what was agreed on, or one of this network's.
    func address(_ side: Int, _ pool: String?) -> String? { joints?[side].address ?? pool.flatMap { AddressPool($0)?.ends(number)[side] } }
}

public struct LightpathBook: Sendable {
    public let topology: Topology
    public private(set) var reservations: [String: Reservation] = [:]

    public init(topology: Topology) { self.topology = topology }

    /// As it was remembered. One whose links are there no more cannot be kept.
    public mutating func restore(_ reservation: Reservation, at now: Date) -> Reservation {
        var kept = reservation
        if kept.state != .terminated, !kept.hops.allSatisfy({ topology.link($0.link) != nil }) { kept.end(now) }
        reservations[kept.id] = kept
        return kept
    }

    public mutating func forget(_ id: String) { reservations[id] = nil }

    // MARK: - Asking

    private func refused(_ id: String, _ why: String, _ remedy: String = "") -> TurntableError {
        TurntableError(.refused, "lightpath \(id)", why, remedy: remedy)
    }

    public func reservation(_ id: String, of owner: String) throws(TurntableError) -> Reservation {
        guard let known = reservations[id], known.owner == owner else { throw refused(id, "\(owner) has none of that name") }
        return known
    }

    private func alive(_ id: String, _ owner: String) throws(TurntableError) -> Reservation {
        let known = try reservation(id, of: owner)
        guard known.state != .terminated else { throw refused(id, "it has ended", "ask for another, with a new name") }
        return known
    }

    private func calendar(without id: String) -> Calendar {
        Calendar(
            topology,
            reservations.values.filter { $0.id != id && $0.state != .terminated }.map {
                Calendar.Entry(
                    hops: $0.hops, bitsPerSecond: max($0.bitsPerSecond, $0.change?.bitsPerSecond ?? 0), from: $0.from,
                    until: max($0.until, $0.change?.until ?? $0.until))
            })
    }

    /// Holds a path. Asked again it is the one that there is, kept.
    /// - Parameter busy: numbers of which something is set up.
    public mutating func reserve(
        _ id: String, _ request: LightpathRequest, owner: String, requester: Reservation.Requester? = nil, lease: Date, at now: Date,
        besides busy: Set<Int> = []
    ) throws(TurntableError) -> Reservation {
        if let known = reservations[id] {
            guard known.owner == owner, known.ends == request.ends else { throw refused(id, "there is another of that name") }
            return try keep(id, owner: owner, lease: lease, at: now)
        }
        for end in request.ends where !topology.isEnd(end) { throw refused(id, "there is no node \(end.prefix(80))") }
        guard request.ends.count == 2, request.ends[0] != request.ends[1] else { throw refused(id, "it needs two ends") }
        let from = max(request.from ?? now, now)
        try check(id, request.bitsPerSecond, from, request.until, at: now)
        guard (request.leastBitsPerSecond ?? 1e6) <= request.bitsPerSecond else {
            throw refused(id, "\(request.bitsPerSecond) b/s are wanted", "ask for 1e6 to 1e13")
        }
        let labels = try labels(id, request)
        let best = calendar(without: id).path(request.ends, most: request.bitsPerSecond, from, request.until, given: labels)
        let least = request.leastBitsPerSecond ?? request.bitsPerSecond
        guard let best, best.bitsPerSecond >= least else {
            throw refused(
                id, "\(BitRate(bitsPerSecond: least)) from \(request.ends[0]) to \(request.ends[1]) are wanted, and "
                    + (best.map { "\(BitRate(bitsPerSecond: $0.bitsPerSecond)) are the most that is free" } ?? "no way is free"),
                "ask for less, or at another time")
        }
        let used = busy.union(reservations.values.filter { $0.state != .terminated }.map(\.number))
        let most = min(Limits.lightpaths, topology.addresses.flatMap { AddressPool($0)?.size } ?? .max)
        guard let number = (0..<most).first(where: { !used.contains($0) }) else {
            throw TurntableError(.line, "lightpath \(id)", "\(used.count) are reserved, and no more can be", remedy: "ask again later")
        }
        let made = Reservation(
            id: id, owner: owner, ends: request.ends, joints: request.joints, bitsPerSecond: best.bitsPerSecond, from: from, until: request.until,
            hops: best.hops, roundTripMilliseconds: best.roundTripMilliseconds, number: number, state: .held, version: 0, lease: lease,
            requester: requester)
        reservations[id] = made
        return made
    }

    private func check(_ id: String, _ bitsPerSecond: Double, _ from: Date, _ until: Date, at now: Date) throws(TurntableError) {
        guard from < until, until < now + Limits.lightpathWindow.seconds else {
            throw refused(id, "its window is \(from) to \(until)", "it must end after it begins, within \(Limits.lightpathWindow) from now")
        }
        guard (1e6...1e13).contains(bitsPerSecond) else { throw refused(id, "\(bitsPerSecond) b/s are wanted", "ask for 1e6 to 1e13") }
    }

    /// The labels that a request names, by border, and whether its addresses can be had.
    private func labels(_ id: String, _ request: LightpathRequest) throws(TurntableError) -> [String: Int] {
        let joints = request.joints ?? [.init(), .init()]
        guard joints.count == 2 else { throw refused(id, "it has \(joints.count) joints", "name both ends' or none") }
        var labels: [String: Int] = [:]
        for (end, joint) in zip(request.ends, joints) {
            if topology.isBorder(end) {
                guard let label = joint.label else { throw refused(id, "\(end) is a border, and no label is named", "agree on one with its peer") }
                labels[end] = label
            }
            guard let text = joint.address else { continue }
            guard let address = IPv4(text), topology.addresses.flatMap({ AddressPool($0) })?.contains(address) != true else {
                throw refused(id, "\(text.prefix(80)) is no address, or one of this network's own", "give each network addresses that no other has")
            }
            let others = reservations.values.filter { $0.id != id && $0.state != .terminated }
            if others.contains(where: { ($0.joints ?? []).contains { $0.address == text } }) {
                throw refused(id, "\(text) is another lightpath's", "give each network addresses that no other has")
            }
        }
        return labels
    }

    // MARK: - What other networks are told

    /// What there is at the best of times.
    public func document(serial: Int) -> NetworkDocument {
        let empty = Calendar(topology, [])
        let borders = (topology.borders ?? []).map { border in
            var told = border
            told.node = nil
            told.interface = nil
            return told
        }
        return NetworkDocument(
            network: topology.network ?? "", serial: serial, nodes: topology.nodes.keys.sorted(), borders: borders,
            connections: empty.connections(nil, most: 1e13, .distantPast, .distantFuture))
    }

    /// What is free in a window.
    public func offer(_ request: Offer.Request, at now: Date) throws(TurntableError) -> Offer {
        let from = max(request.from ?? now, now)
        try check("an offer", request.bitsPerSecond, from, request.until, at: now)
        if let node = request.node, topology.nodes[node] == nil { throw refused("an offer", "there is no node \(node.prefix(80))") }
        let calendar = calendar(without: "")
        let labels = (topology.borders ?? []).map {
            ($0.name, Labels.free($0.labels, besides: calendar.used($0.link, from, request.until)))
        }
        return Offer(
            connections: calendar.connections(request.node, most: request.bitsPerSecond, from, request.until),
            labels: Dictionary(uniqueKeysWithValues: labels))
    }

    /// Another rate or another end of its window, on the same way, held until it is committed.
    public mutating func hold(
        _ id: String, bitsPerSecond rate: Double?, until: Date? = nil, owner: String, at now: Date
    ) throws(TurntableError) -> Reservation {
        var changed = try alive(id, owner)
        guard changed.state != .held else { throw refused(id, "it is not committed yet", "commit it, or end it") }
        let until = until ?? changed.until
        let bitsPerSecond = rate ?? changed.bitsPerSecond
        guard (1e6...1e13).contains(bitsPerSecond), until > now, until < now + Limits.lightpathWindow.seconds else {
            throw refused(id, "\(bitsPerSecond) b/s until \(until) are wanted", "ask for 1e6 to 1e13, within \(Limits.lightpathWindow) from now")
        }
        let calendar = calendar(without: id)
        for hop in changed.hops {
            guard let link = topology.link(hop.link) else { continue }
            let free = calendar.free(link, changed.from, until)
            guard free >= bitsPerSecond else {
                throw refused(
                    id, "\(BitRate(bitsPerSecond: bitsPerSecond)) are wanted, and \(BitRate(bitsPerSecond: free)) of \(hop.link) are free",
                    "ask for less, or at another time")
            }
        }
        changed.change = .init(bitsPerSecond: bitsPerSecond, until: until)
        reservations[id] = changed
        return changed
    }

    /// The reservation, or the change of it that is held, is wanted. Nothing if none is held.
    public mutating func commit(_ id: String, owner: String, lease: Date) throws(TurntableError) -> Reservation {
        try update(id, owner) {
            if $0.state == .held { $0.state = .committed }
            if let change = $0.change {
                $0.bitsPerSecond = change.bitsPerSecond
                $0.until = change.until
                $0.version += 1
                $0.change = nil
            }
            $0.lease = lease
        }
    }

    /// A change that is held is not wanted, or a reservation that nobody committed.
    public mutating func abort(_ id: String, owner: String, at now: Date) throws(TurntableError) -> Reservation {
        try update(id, owner) { if $0.state == .held { $0.end(now) } else { $0.change = nil } }
    }

    public mutating func provision(_ id: String, owner: String, lease: Date) throws(TurntableError) -> Reservation {
        if try alive(id, owner).state == .held { throw refused(id, "it is not committed", "commit it first") }
        return try update(id, owner) {
            $0.state = .provisioned
            $0.lease = lease
        }
    }

    public mutating func release(_ id: String, owner: String) throws(TurntableError) -> Reservation {
        try update(id, owner) { if $0.state == .provisioned { $0.state = .committed } }
    }

    /// Says that it is still wanted; its window goes on for ``Limits/lightpathTime`` if less than half of that is left and it can.
    public mutating func keep(_ id: String, owner: String, lease: Date, at now: Date) throws(TurntableError) -> Reservation {
        let known = try alive(id, owner)
        let more = now + Limits.lightpathTime.seconds
        if known.state != .held, known.change == nil, known.until < now + Limits.lightpathTime.seconds / 2,
            (try? hold(id, bitsPerSecond: known.bitsPerSecond, until: more, owner: owner, at: now)) != nil
        {
            return try commit(id, owner: owner, lease: lease)
        }
        return try update(id, owner) { $0.lease = lease }
    }

    public mutating func terminate(_ id: String, owner: String, at now: Date) throws(TurntableError) -> Reservation {
        if try reservation(id, of: owner).state == .terminated { return try reservation(id, of: owner) }
        return try update(id, owner) { $0.end(now) }
    }

    private mutating func update(
        _ id: String, _ owner: String, _ body: (inout Reservation) -> Void
    ) throws(TurntableError) -> Reservation {
        var changed = try alive(id, owner)
        body(&changed)
        reservations[id] = changed
        return changed
    }

    /// Ends what nobody keeps and what is over; gives those.
    public mutating func expire(at now: Date) -> [Reservation] {
        var over: [Reservation] = []
        for var reservation in reservations.values where reservation.state != .terminated && min(reservation.lease, reservation.until) <= now {
            reservation.end(now)
            reservations[reservation.id] = reservation
            over.append(reservation)
        }
        return over
    }
}

extension Reservation {
    mutating func end(_ now: Date) {
        state = .terminated
        change = nil
        ended = now
    }
}

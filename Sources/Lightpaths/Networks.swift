// What networks tell each other of themselves, and of what they have free: names, borders, and bounds between them, not what is inside.
//
//   A ══ border a.x ── border b.y ══ B       a border is a link's one half: it is used if both networks name each other's, with the same
//                                            carrier, labels in common, and for a VXLAN each other's address
//
// Each half counts half of the border's round trip, so that segments add up.

public import Foundation
public import TurntableCore

/// A network as its peers see it.
public struct NetworkDocument: Codable, Sendable, Equatable {
    public struct Connection: Codable, Sendable, Equatable {
        /// Borders or nodes.
        public var ends: [String]
        /// The most that a way between them has, and the least round trip.
        public var bitsPerSecond: Double
        public var roundTripMilliseconds: Double
    }
    public var network: String
    /// Grows with each description that replaces another.
    public var serial: Int
    public var nodes: [String]
    /// Without their places inside.
    public var borders: [Topology.Border]
    /// Between each two borders.
    public var connections: [Connection]

    /// From a peer: whatever it holds is checked.
    public static func parse(_ data: Data, of network: String) throws(TurntableError) -> NetworkDocument {
        let what = "reading the description of \(network)"
        guard data.count <= Limits.networkDocumentBytes else {
            throw TurntableError(.protocol, what, "it has \(ByteCount(data.count)), and may have \(ByteCount(Limits.networkDocumentBytes))")
        }
        let document: NetworkDocument
        do { document = try JSONDecoder().decode(NetworkDocument.self, from: data) } catch {
            throw TurntableError(.protocol, what, "it is no such JSON: \("\(error)".prefix(300))")
        }
        if let fault = document.fault(network) { throw TurntableError(.protocol, what, fault, remedy: "its network.json is to be corrected") }
        return document
    }

    private func fault(_ expected: String) -> String? {
        if network != expected { return "it is of \(network.prefix(200))" }
        if nodes.count > Limits.topologyNodes { return "it has \(nodes.count) nodes, and may have \(Limits.topologyNodes)" }
        for name in nodes where (try? MachineName.check(name)) == nil { return "\(name.prefix(80)) is no name for a node" }
        if let fault = Topology.Border.fault(of: borders, besides: Set(nodes)) { return fault }
        if connections.count > borders.count * borders.count { return "it has \(connections.count) connections of \(borders.count) borders" }
        return nil
    }

    func border(_ name: String) -> Topology.Border? { borders.first { $0.name == name } }
}

/// What a network has free in a window, between its borders and one of its nodes.
public struct Offer: Codable, Sendable, Equatable {
    public struct Request: Codable, Sendable, Equatable {
        public var node: String?
        public var bitsPerSecond: Double
        public var from: Date?
        public var until: Date

        public init(node: String?, bitsPerSecond: Double, from: Date?, until: Date) {
            self.node = node
            self.bitsPerSecond = bitsPerSecond
            self.from = from
            self.until = until
        }
    }
    /// The widest way for each, up to what was asked for, and its round trip.
    public var connections: [NetworkDocument.Connection]
    /// Of each border: first and last, first and last, …
    public var labels: [String: [[Int]]]

    /// From a peer: whatever it holds is checked.
    public static func parse(_ data: Data, of network: String) throws(TurntableError) -> Offer {
        let what = "reading an offer of \(network)"
        let offer: Offer
        do { offer = try JSONDecoder().decode(Offer.self, from: data) } catch {
            throw TurntableError(.protocol, what, "it is no such JSON: \("\(error)".prefix(300))")
        }
        let isFine = offer.connections.count <= Limits.topologyBorders * (Limits.topologyBorders + 1)
            && offer.connections.allSatisfy { $0.ends.count == 2 && $0.bitsPerSecond >= 0 && (0...600_000).contains($0.roundTripMilliseconds) }
            && offer.labels.count <= Limits.topologyBorders
            && offer.labels.values.allSatisfy {
                $0.count <= Limits.labelRanges && $0.allSatisfy { $0.count == 2 && 1 <= $0[0] && $0[0] <= $0[1] && $0[1] <= 0xff_ffff }
            }
        guard isFine else { throw TurntableError(.protocol, what, "its connections or labels are none that can be") }
        return offer
    }
}

/// The networks that one of them knows, itself first.
public struct NetworkMap: Sendable {
    public let documents: [NetworkDocument]

    public init(_ documents: [NetworkDocument]) { self.documents = documents }

    public func document(_ network: String) -> NetworkDocument? { documents.first { $0.network == network } }

    /// Why a border is not used; nil if it is.
    public func fault(_ border: Topology.Border, of network: String) -> String? {
        let peer = border.peer
        if peer.network == network { return "it leads back to \(network)" }
        guard let other = document(peer.network) else { return "nothing is known of \(peer.network)" }
        guard let theirs = other.border(peer.border) else { return "\(peer.network) has no border \(peer.border)" }
        guard theirs.peer.network == network, theirs.peer.border == border.name else {
            return "\(peer.border) of \(peer.network) leads to \(theirs.peer.border) of \(theirs.peer.network)"
        }
        guard theirs.carrier == border.carrier else { return "it is a \(border.carrier), and there a \(theirs.carrier)" }
        if border.carrier == .vxlan, border.peer.address != theirs.address || theirs.peer.address != border.address {
            return "it joins \(border.address ?? "") and \(border.peer.address ?? ""), and there \(theirs.peer.address ?? "") and \(theirs.address ?? "")"
        }
        if Labels.shared([border.labels], [theirs.labels]).isEmpty { return "no label is both sides'" }
        return nil
    }
}

/// Ranges of labels: each has its first and its last.
enum Labels {
    static func shared(_ one: [[Int]], _ other: [[Int]]) -> [[Int]] {
        one.flatMap { a in other.map { [max(a[0], $0[0]), min(a[1], $0[1])] } }.filter { $0[0] <= $0[1] }
    }

    static func contains(_ label: Int, in ranges: [[Int]]) -> Bool { ranges.contains { ($0[0]...$0[1]).contains(label) } }

    /// One by chance, so that two who choose at once seldom choose the same.
    static func any(_ ranges: [[Int]], besides used: Set<Int>) -> Int? {
        let chosen = ranges.randomElement().map { Int.random(in: $0[0]...$0[1]) }
        return chosen.flatMap { used.contains($0) ? nil : $0 } ?? first(ranges, besides: used)
    }

    /// The lowest that is not used.
    static func first(_ ranges: [[Int]], besides used: Set<Int>) -> Int? {
        ranges.sorted { $0[0] < $1[0] }.lazy.flatMap { $0[0]...$0[1] }.first { !used.contains($0) }
    }

    /// What is left of a range; the first ``Limits/labelRanges`` of it.
    static func free(_ range: [Int], besides used: Set<Int>) -> [[Int]] {
        var ranges: [[Int]] = []
        var next = range[0]
        for label in used.sorted() + [range[1] + 1] where (range[0]...range[1] + 1).contains(label) {
            if next < label { ranges.append([next, label - 1]) }
            next = label + 1
        }
        return Array(ranges.prefix(Limits.labelRanges))
    }
}

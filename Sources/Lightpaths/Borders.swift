// Where a network meets others. Members of the network's description:
//
//   "network": "urn:ogf:network:west.example:2026",
//   "borders": [{"name": "to-east", "node": "gate", "interface": "eth2", "address": "198.51.100.1", "carrier": "vxlan",
//                "bitsPerSecond": 1e9, "roundTripMilliseconds": 90, "labels": [500, 599],
//                "peer": {"network": "urn:ogf:network:east.example:2026", "border": "to-west", "address": "198.51.100.2"}}],
//   "peers": [{"network": "urn:ogf:network:east.example:2026", "url": "https://net.east.example:4909", "host": "net.east.example"}]
//
//   peer        the same border as the other network has it: that one's name for it, and the address of its interface for a VXLAN
//   host        the name in the certificate of the peer's controller, which may ask for segments

internal import Foundation
internal import TurntableCore

extension Topology {
    public struct Border: Codable, Sendable, Equatable {
        public struct Peer: Codable, Sendable, Equatable {
            public var network: String
            public var border: String
            public var address: String?
        }
        public var name: String
        /// Where it is; peers are not told.
        public var node: String?
        public var interface: String?
        public var address: String?
        public var carrier: Carrier
        public var bitsPerSecond: Double
        public var roundTripMilliseconds: Double
        public var labels: [Int]
        public var peer: Peer

        /// Our half of it as a link; the point outside has the border's name.
        var link: Link {
            Link(
                name: name, carrier: carrier,
                ends: [
                    End(node: node ?? "", interface: interface ?? "", address: address),
                    End(node: name, interface: peer.border, address: peer.address),
                ],
                bitsPerSecond: bitsPerSecond, roundTripMilliseconds: roundTripMilliseconds / 2, labels: labels)
        }

        /// The first thing in borders that cannot be.
        static func fault(of borders: [Border], besides names: Set<String>) -> String? {
            if borders.count > Limits.topologyBorders { return "it has \(borders.count) borders, and may have \(Limits.topologyBorders)" }
            if Set(borders.map(\.name)).count != borders.count { return "two borders have the same name" }
            for border in borders {
                if (try? MachineName.check(border.name)) == nil { return "\(border.name.prefix(80)) is no name for a border" }
                if names.contains(border.name) { return "border \(border.name) has the name of a node or a link" }
                if let fault = border.fault { return "border \(border.name): \(fault)" }
            }
            return nil
        }

        private var fault: String? {
            if !Topology.isNetwork(peer.network) || (try? MachineName.check(peer.border)) == nil {
                return "it leads to \(peer.border.prefix(80)) of \(peer.network.prefix(200)), which is no border of a network"
            }
            for address in [address, peer.address] where address.map({ IPv4($0) == nil }) ?? (carrier == .vxlan) {
                return "a VXLAN needs an IPv4 address at each end"
            }
            return link.boundsFault
        }
    }

    public struct Peer: Codable, Sendable, Equatable {
        public var network: String
        public var url: String
        public var host: String
    }

    /// A name of a network: an URN, as NSI has them.
    public static func isNetwork(_ name: String) -> Bool {
        name.hasPrefix("urn:") && name.utf8.count <= 200 && !name.hasSuffix(":")
            && name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-:".contains($0)) }
    }

    /// An end as users name it: here by its name alone, in another network after that one's.
    public func place(_ end: String) -> (network: String, name: String) {
        guard end.hasPrefix("urn:"), let colon = end.lastIndex(of: ":") else { return (network ?? "", end) }
        return (String(end[..<colon]), String(end[end.index(after: colon)...]))
    }

    private static func isAddress(_ text: String) -> Bool {
        guard let url = URLComponents(string: text) else { return false }
        return url.scheme == "https" && url.host?.isEmpty == false && url.path.isEmpty
    }

    /// Links, and our halves of borders.
    var allLinks: [Link] { links + (borders ?? []).map(\.link) }

    /// What can be one end of a path.
    func isEnd(_ name: String) -> Bool { nodes[name] != nil || isBorder(name) }
    public func isBorder(_ name: String) -> Bool { borders?.contains { $0.name == name } == true }

    /// The first thing in how it meets others that cannot be.
    var meetingFault: String? {
        let peers = peers ?? []
        guard let network else { return (borders ?? []).isEmpty && peers.isEmpty ? nil : "it has borders or peers, and no network" }
        if !Self.isNetwork(network) { return "network: \(network.prefix(200)) is no urn:ogf:network:…" }
        if let fault = Border.fault(of: borders ?? [], besides: Set(nodes.keys).union(links.map(\.name))) { return fault }
        for border in borders ?? [] where border.peer.network == network { return "border \(border.name) leads back to \(network)" }
        if peers.count > Limits.lightpathPeers { return "it has \(peers.count) peers, and may have \(Limits.lightpathPeers)" }
        if Set(peers.map(\.network) + [network]).count != peers.count + 1 { return "two networks have the same name" }
        for peer in peers {
            if !Self.isNetwork(peer.network) { return "peer \(peer.network.prefix(200)) is no urn:ogf:network:…" }
            if peer.host.isEmpty { return "peer \(peer.network) needs the name in its certificate as host" }
            if !Self.isAddress(peer.url) { return "peer \(peer.network): \(peer.url.prefix(200)) is no https://host:port" }
        }
        if let url, !Self.isAddress(url) { return "url: \(url.prefix(200)) is no https://host:port" }
        return nil
    }
}

// The network that a controller sets lightpaths up in: nodes, and links between their interfaces. A JSON file.
//
//   {"addresses": "10.99.0.0/16",
//    "nodes": {"amsterdam": {"run": ["ssh", "root@a.example"]}, "chicago": {}, "sandiego": {}},
//    "links": [{"name": "atlantic", "carrier": "vxlan", "bitsPerSecond": 1e9, "roundTripMilliseconds": 90, "labels": [100, 199],
//               "ends": [{"node": "amsterdam", "interface": "eth1", "address": "192.0.2.1"},
//                        {"node": "chicago", "interface": "eth1", "address": "192.0.2.2"}]}, …]}
//
//   run         what is written before a command to have it run at the node: nothing is the controller's own host
//   carrier     vlan: a path has a VLAN of its own on the link, whose label is the VLAN's number
//               vxlan: a VXLAN between the addresses of the link's two interfaces, whose label is the network's number
//   labels      the first and the last that may be used on the link
//   addresses   each path gets two of them, one for each of its ends; none if it is not there
//
// Where it meets other networks: Borders.swift.

internal import Foundation
public import TurntableCore

public struct Topology: Codable, Sendable, Equatable {
    public struct Node: Codable, Sendable, Equatable { public var run: [String]? }
    public struct End: Codable, Sendable, Equatable {
        public var node: String
        public var interface: String
        public var address: String?
    }
    public enum Carrier: String, Codable, Sendable { case vlan, vxlan }
    public struct Link: Codable, Sendable, Equatable {
        public var name: String
        public var carrier: Carrier
        public var ends: [End]
        public var bitsPerSecond: Double
        public var roundTripMilliseconds: Double
        public var labels: [Int]

        /// The end at a node.
        func end(at node: String) -> End { ends[0].node == node ? ends[0] : ends[1] }
        func other(than node: String) -> String { ends[0].node == node ? ends[1].node : ends[0].node }
    }
    public var addresses: String?
    public var nodes: [String: Node]
    public var links: [Link]
    /// Its name, for others; and where it meets them, and who they are.
    public var network: String?
    public var borders: [Border]?
    public var peers: [Peer]?
    /// Where its controller answers, for networks that know it by others' word.
    public var url: String?
    /// Networks that are known by others' word are on paths from here, and may have segments here.
    public var others: Bool?

    public static func read(_ path: String) throws(TurntableError) -> Topology {
        let what = "reading the topology \(path)"
        guard let data = FileManager.default.contents(atPath: path) else { throw TurntableError(.usage, what, "it cannot be read") }
        guard data.count <= Limits.topologyBytes else {
            throw TurntableError(.usage, what, "it has \(ByteCount(data.count)), and may have \(ByteCount(Limits.topologyBytes))")
        }
        return try parse(data, what)
    }

    static func parse(_ data: Data, _ what: String) throws(TurntableError) -> Topology {
        let topology: Topology
        do { topology = try JSONDecoder().decode(Topology.self, from: data) } catch { throw TurntableError(.usage, what, "\(error)") }
        if let fault = topology.fault { throw TurntableError(.usage, what, fault, remedy: "see docs/lightpaths.md") }
        return topology
    }

    func link(_ name: String) -> Link? { links.first { $0.name == name } ?? borders?.first { $0.name == name }?.link }

    /// The first thing in it that cannot be.
    private var fault: String? {
        if nodes.count > Limits.topologyNodes { return "it has \(nodes.count) nodes, and may have \(Limits.topologyNodes)" }
        if links.count > Limits.topologyLinks { return "it has \(links.count) links, and may have \(Limits.topologyLinks)" }
        for name in nodes.keys where (try? MachineName.check(name)) == nil { return "\(name.prefix(80)) is no name for a node" }
        if Set(links.map(\.name)).count != links.count { return "two links have the same name" }
        if let fault = meetingFault { return fault }
        let interfaces = links.flatMap { $0.ends.map { "\($0.node) \($0.interface)" } } + (borders ?? []).map { "\($0.node ?? "") \($0.interface ?? "")" }
        if Set(interfaces).count != interfaces.count { return "two links use the same interface" }
        for link in links {
            if let fault = fault(of: link) { return "link \(link.name.prefix(80)): \(fault)" }
        }
        for border in borders ?? [] {
            if let fault = fault(of: border.link.ends[0], border.carrier) { return "border \(border.name): \(fault)" }
        }
        if let addresses, AddressPool(addresses) == nil { return "addresses: \(addresses.prefix(80)) is no network such as 10.99.0.0/16" }
        return nil
    }

    private func fault(of link: Link) -> String? {
        if (try? MachineName.check(link.name)) == nil { return "that is no name" }
        guard link.ends.count == 2, link.ends[0].node != link.ends[1].node else { return "it needs two ends, at two nodes" }
        for end in link.ends {
            if let fault = fault(of: end, link.carrier) { return fault }
        }
        return link.boundsFault
    }

    private func fault(of end: End, _ carrier: Carrier) -> String? {
        if nodes[end.node] == nil { return "there is no node \(end.node.prefix(80))" }
        // It becomes a word of a command.
        let isWord = end.interface.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
        if !isWord || !(1...15).contains(end.interface.utf8.count) || end.interface.hasPrefix("-") { return "\(end.interface.prefix(80)) is no interface" }
        if carrier == .vxlan, end.address.flatMap(IPv4.init) == nil { return "a VXLAN needs an IPv4 address at each end" }
        return nil
    }
}

extension Topology.Link {
    /// The first of its figures that cannot be.
    var boundsFault: String? {
        guard (1e6...1e13).contains(bitsPerSecond) else { return "bitsPerSecond must be 1e6 to 1e13" }
        guard (0...60_000).contains(roundTripMilliseconds) else { return "roundTripMilliseconds must be 0 to 60000" }
        let most = carrier == .vlan ? 4094 : 0xff_ffff
        guard labels.count == 2, 1 <= labels[0], labels[0] <= labels[1], labels[1] <= most else {
            return "labels must be the first and the last, 1 to \(most)"
        }
        return nil
    }
}

/// An IPv4 address as a number.
struct IPv4: Sendable, Equatable, CustomStringConvertible {
    var value: UInt32

    init(value: UInt32) { self.value = value }
    init?(_ text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        guard parts.count == 4, !parts.contains(nil) else { return nil }
        value = parts.reduce(0) { $0 << 8 | UInt32($1 ?? 0) }
    }

    var description: String { (0..<4).map { String(value >> (24 - 8 * UInt32($0)) & 0xff) }.joined(separator: ".") }
}

/// Networks of four addresses, one for each path: its ends have the second and the third.
struct AddressPool: Sendable {
    let base: IPv4
    let size: Int

    init?(_ text: String) {
        let parts = text.split(separator: "/")
        guard parts.count == 2, let base = IPv4(String(parts[0])), let bits = UInt32(parts[1]), (8...30).contains(bits),
            base.value << bits == 0
        else { return nil }
        self.base = base
        size = 1 << (30 - Int(bits))
    }

    func contains(_ address: IPv4) -> Bool { address.value >= base.value && address.value - base.value < UInt32(4 * size) }

    func ends(_ number: Int) -> [String] { (1...2).map { IPv4(value: base.value + UInt32(4 * number + $0)).description } }
}

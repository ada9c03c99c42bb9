// Lightpaths on Linux: what is to be there is compared with what is there, and made so. Nothing is remembered: all that belongs to a
// lightpath has its number in its name, so whoever comes after a kill finds it.
//
//   tt<number>.<hop>.<side>   an interface on the link's one, a VLAN or a VXLAN, at each end of each link
//   tt<number>.<hop>.b        a bridge, at a node between two links, of the interface that ends there and the one that begins
//   7470: on the link's interface: htb, with a class 7470:<number + 2> for the path and 7470:ffff for the rest, which has what the
//         paths leave and may use all that they do not
//
// Commands of iproute2, run at the node. It is not in anybody's blackout: a path is there before the machine begins to move.

internal import Foundation
public import TurntableCore
internal import TurntableLinux

public struct LinkSetup: Sendable {
    private let topology: Topology

    public init(topology: Topology) { self.topology = topology }

    static let handle = "7470:"
    static let firstClass = 2

    /// What one reservation needs at one end of one of its links.
    struct Port: Hashable {
        var interface: String
        var name: String
        var number: Int
        var label: Int
        var bitsPerSecond: Double
        /// The interface at the other end.
        var far: Topology.End
        var near: Topology.End
        var carrier: Topology.Carrier
        var address: String?
        var bridge: String?

        static func == (a: Port, b: Port) -> Bool { a.name == b.name }
        func hash(into hasher: inout Hasher) { hasher.combine(name) }
        var minor: String { String(number + LinkSetup.firstClass, radix: 16) }
    }

    /// By node.
    func ports(_ reservations: [Reservation]) -> [String: [Port]] {
        var all: [String: [Port]] = [:]
        for reservation in reservations {
            for (index, hop) in reservation.hops.enumerated() {
                guard let link = topology.link(hop.link) else { continue }
                for side in 0...1 {
                    let node = side == 0 ? hop.from : link.other(than: hop.from)
                    // The other half of a border is the other network's.
                    if topology.nodes[node] == nil { continue }
                    let isEnd = side == 0 ? index == 0 : index == reservation.hops.count - 1
                    let near = link.end(at: node)
                    let name = "tt\(reservation.number).\(index)"
                    all[node, default: []].append(
                        Port(
                            interface: near.interface, name: "\(name).\(side)", number: reservation.number, label: hop.label,
                            bitsPerSecond: reservation.bitsPerSecond, far: link.end(at: link.other(than: node)), near: near, carrier: link.carrier,
                            address: isEnd ? reservation.address(side, topology.addresses) : nil,
                            bridge: isEnd ? nil : "tt\(reservation.number).\(side == 0 ? index - 1 : index).b"))
                }
            }
        }
        return all
    }

    /// Makes what is there what these reservations need, and nothing else.
    /// - Parameter anew: nothing is known of what an earlier process did: the filters are made again.
    public func apply(_ reservations: [Reservation], anew: Bool) async throws(TurntableError) {
        let wanted = ports(reservations)
        for node in topology.nodes.keys.sorted() { try await apply(wanted[node] ?? [], at: node, anew) }
    }

    private func apply(_ ports: [Port], at node: String, _ anew: Bool) async throws(TurntableError) {
        let there = try await names(node)
        let wanted = Set(ports.map(\.name) + ports.compactMap(\.bridge))
        for name in there.subtracting(wanted) { try await run(node, "ip link del \(name)") }
        for link in topology.allLinks {
            for end in link.ends where end.node == node {
                try await shape(end.interface, link.bitsPerSecond, ports.filter { $0.interface == end.interface }, node, anew)
            }
        }
        for bridge in Set(ports.compactMap(\.bridge)).sorted() where !there.contains(bridge) {
            try await run(node, "ip link add \(bridge) type bridge stp_state 0 forward_delay 0")
            try await run(node, "ip link set \(bridge) up")
        }
        for port in ports {
            if !there.contains(port.name) { try await add(port, at: node) }
            if let bridge = port.bridge { try await run(node, "ip link set \(port.name) master \(bridge)") }
        }
    }

    private func names(_ node: String) async throws(TurntableError) -> Set<String> {
        let lines = try await run(node, "ip -o link show").split(separator: "\n")
        let names = lines.compactMap { line in
            line.split(separator: " ").dropFirst().first.map { String($0.prefix { $0 != "@" && $0 != ":" }) }
        }
        return Set(names.filter { $0.wholeMatch(of: /tt[0-9]+\.[0-9]+\.[01b]/) != nil })
    }

    private func add(_ port: Port, at node: String) async throws(TurntableError) {
        switch port.carrier {
        case .vlan: try await run(node, "ip link add link \(port.interface) name \(port.name) type vlan id \(port.label)")
        case .vxlan:
            try await run(
                node,
                "ip link add \(port.name) type vxlan id \(port.label) dev \(port.interface) local \(port.near.address ?? "") remote "
                    + "\(port.far.address ?? "") dstport 4789 nolearning")
        }
        do throws(TurntableError) {
            if let address = port.address { try await run(node, "ip address add \(address)/30 dev \(port.name)") }
            try await run(node, "ip link set \(port.name) up")
        } catch {
            // Half of it would be taken for the whole.
            _ = try? await run(node, "ip link del \(port.name)")
            throw error
        }
    }

    // MARK: - Rates

    private func shape(
        _ interface: String, _ capacity: Double, _ ports: [Port], _ node: String, _ anew: Bool
    ) async throws(TurntableError) {
        let isShaped = try await run(node, "tc qdisc show dev \(interface)").contains("htb \(Self.handle)")
        if ports.isEmpty {
            if isShaped { try await run(node, "tc qdisc del dev \(interface) root") }
            return
        }
        let on = "dev \(interface) parent \(Self.handle)"
        if !isShaped { try await run(node, "tc qdisc replace dev \(interface) root handle \(Self.handle) htb default ffff") }
        let known = isShaped ? try await classes(interface, node) : []
        for minor in known.subtracting(ports.map(\.minor) + ["1", "ffff"]) {
            try await unfilter(minor, on, node)
            try await run(node, "tc class del dev \(interface) classid \(Self.handle)\(minor)")
        }
        try await run(node, "tc class replace \(on) classid \(Self.handle)1 htb \(rates(capacity, capacity))")
        let rest = max(capacity / 100, capacity - ports.reduce(0) { $0 + $1.bitsPerSecond })
        try await run(node, "tc class replace dev \(interface) parent \(Self.handle)1 classid \(Self.handle)ffff htb prio 1 \(rates(rest, capacity))")
        for port in ports {
            let rate = rates(port.bitsPerSecond, port.bitsPerSecond)
            try await run(node, "tc class replace dev \(interface) parent \(Self.handle)1 classid \(Self.handle)\(port.minor) htb prio 0 \(rate)")
            if anew { try await unfilter(port.minor, on, node) }
            if anew || !known.contains(port.minor) { try await run(node, "tc filter add \(on) \(filter(port))") }
        }
    }

    /// A burst is what passes in 2 ms, and at least what the kernel hands over at once.
    private func rates(_ rate: Double, _ ceiling: Double) -> String {
        "rate \(Int(rate))bit ceil \(Int(ceiling))bit burst \(max(65_536, Int(rate / 4000))) cburst \(max(65_536, Int(ceiling / 4000))) quantum 60000"
    }

    /// The priority is the path's own, so that it can be named again.
    private func filter(_ port: Port) -> String {
        let priority = port.number + Self.firstClass
        return switch port.carrier {
        case .vlan: "protocol 802.1Q prio \(priority) flower vlan_id \(port.label) flowid \(Self.handle)\(port.minor)"
        // From the beginning of the IPv4 header, which has no options: UDP, to VXLAN's port, with this network's number.
        case .vxlan:
            "protocol ip prio \(priority) u32 match ip protocol 17 0xff match u16 4789 0xffff at 22 "
                + "match u32 \(port.label << 8) 0xffffff00 at 32 flowid \(Self.handle)\(port.minor)"
        }
    }

    private func unfilter(_ minor: String, _ on: String, _ node: String) async throws(TurntableError) {
        // There may be none.
        _ = try await attempt(node, "tc filter del \(on) prio \(Int(minor, radix: 16) ?? 0)")
    }

    private func classes(_ interface: String, _ node: String) async throws(TurntableError) -> Set<String> {
        let words = try await run(node, "tc class show dev \(interface)").split { $0 == " " || $0 == "\n" }
        return Set(words.filter { $0.hasPrefix(Self.handle) && $0.count > Self.handle.count }.map { String($0.dropFirst(Self.handle.count)) })
    }

    // MARK: - Commands

    private func attempt(_ node: String, _ text: String) async throws(TurntableError) -> (code: Int32, output: String) {
        try await Command.run((topology.nodes[node]?.run ?? []) + text.split(separator: " ").map(String.init))
    }

    @discardableResult
    private func run(_ node: String, _ text: String) async throws(TurntableError) -> String {
        let (code, output) = try await attempt(node, text)
        guard code == 0 else {
            throw TurntableError(
                .line, "setting up a lightpath at \(node)", "`\(text)` ended with \(code): \(output.suffix(300))", remedy: "it is tried again")
        }
        return output
    }
}

internal import Protection
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// Makes keepers of what a description says.
struct EndpointBuilder {
    private let description: GatewayDescription
    private let netlink: NetlinkSocket
    private let ways = Monitor<[IPAddress: Tunnel.Way]>([:])
    /// Of the endpoints that were made and have it.
    let translation = Translation()
    /// Whose each address is that is translated.
    private let translated = Monitor<Set<IPAddress>>([])

    init(_ description: GatewayDescription) throws(TurntableError) {
        guard description.endpoints.count <= Limits.endpoints else {
            throw TurntableError(.usage, "\(description.endpoints.count) endpoints", "one gateway keeps \(Limits.endpoints) at most")
        }
        self.description = description
        netlink = try NetlinkSocket()
    }

    /// The keeper of one machine's address, and whom it tells.
    func keeper(
        of endpoint: GatewayDescription.EndpointDescription, store: any AppendStore
    ) throws(TurntableError) -> (Keeper, [DatagramSocket.Peer]) {
        try MachineName.check(endpoint.machine)
        let names = endpoint.sites.map(\.name)
        guard (1...Limits.endpointSites).contains(names.count), Set(names).count == names.count else {
            throw wrong(endpoint, "it has 1 to \(Limits.endpointSites) sites, each once")
        }
        guard let home = names.firstIndex(of: endpoint.home) else { throw wrong(endpoint, "its home \(endpoint.home) is none of its sites") }
        if let here = description.here, !names.contains(here) { throw wrong(endpoint, "this site, \(here), is none of its sites") }
        let keeper = try Keeper(
            of: endpoint.machine, sites: names, home: home, key: EndpointKey(file: endpoint.key), backend: backend(endpoint), store: store)
        let others = endpoint.tell ?? []
        guard others.count <= Limits.endpointKeepers else { throw wrong(endpoint, "it tells more than \(Limits.endpointKeepers) others") }
        return (keeper, try others.map { (text) throws(TurntableError) in try peer(text, defaultGatewayPort) })
    }

    /// The tunnel of the endpoints that were made, if there is one.
    func tunnel() throws(TurntableError) -> Tunnel? {
        let ways = ways.read { $0 }
        guard let tunnel = description.tunnel else { return nil }
        guard (tunnel.anchor == nil) == (description.here == nil) else {
            throw TurntableError(.usage, "the tunnel", "a site has an anchor, and the anchor has none")
        }
        let listen = try address(tunnel.listen, defaultTunnelPort)
        let mtu = tunnel.mtu ?? 1400
        guard (576...Limits.tunnelPacketBytes).contains(mtu) else {
            throw TurntableError(.usage, "the tunnel's MTU \(mtu)", "it is 576 to \(Limits.tunnelPacketBytes)")
        }
        return Tunnel(
            device: try TunDevice(tunnel.device, mtuBytes: mtu), socket: try DatagramSocket(at: listen),
            anchor: try tunnel.anchor.map { (text) throws(TurntableError) in try peer(text, defaultTunnelPort) }, ways: ways)
    }

    // MARK: - Backends

    private func backend(_ endpoint: GatewayDescription.EndpointDescription) throws(TurntableError) -> any Backend {
        let address = try bytes(endpoint.address, endpoint)
        let mac = try endpoint.mac.map { (text) throws(TurntableError) in try macBytes(text) }
        let sites = endpoint.sites
        if sites.allSatisfy({ $0.route != nil }) {
            let ways = try sites.map { (site) throws(TurntableError) in
                (device: site.route!.device, via: try site.route!.via.map { (text) throws(TurntableError) in try bytes(text, endpoint) })
            }
            return NetlinkBackend(netlink, of: endpoint.machine) { () throws(TurntableError) in
                try ways.map { (way) throws(TurntableError) in .route(to: address, gateway: way.via, device: try deviceIndex(way.device)) }
            }
        }
        if sites.allSatisfy({ $0.vxlan != nil }) {
            guard let mac else { throw wrong(endpoint, "vxlan needs the \"mac\" of its card") }
            let ends = try sites.map { (site) throws(TurntableError) in (device: site.vxlan!.device, end: try bytes(site.vxlan!.end, endpoint)) }
            return NetlinkBackend(netlink, of: endpoint.machine) { () throws(TurntableError) in
                try ends.map { (way) throws(TurntableError) in .forwarding(of: mac, to: way.end, device: try deviceIndex(way.device)) }
            }
        }
        if sites.allSatisfy({ $0.nftables != nil }) { return try translationBackend(endpoint, address, mac) }
        guard sites.allSatisfy({ ($0.tunnel != nil) != ($0.deliver != nil) }), let tunnel = description.tunnel else {
            throw wrong(
                endpoint, "every site has a \"route\", or every site a \"vxlan\" or \"nftables\", or every other site a \"tunnel\" and this one a \"deliver\"")
        }
        return try tunnelBackend(endpoint, tunnel, address, mac)
    }

    private func tunnelBackend(
        _ endpoint: GatewayDescription.EndpointDescription, _ tunnel: GatewayDescription.TunnelDescription, _ address: [UInt8], _ mac: [UInt8]?
    ) throws(TurntableError) -> any Backend {
        let hops = try endpoint.sites.map { (site) throws(TurntableError) -> Tunnel.Hop in
            try checkDelivery(site, endpoint)
            return try site.tunnel.map { (text) throws(TurntableError) in .keeper(try peer(text, defaultTunnelPort)) } ?? .here
        }
        let deliver = endpoint.sites.lazy.compactMap(\.deliver).first
        let table = tunnel.table ?? UInt32(defaultGatewayPort)
        let way = Tunnel.Way(hops, of: endpoint.machine, netlink) { () throws(TurntableError) in
            guard let deliver else { return [.route(to: address, device: try deviceIndex(tunnel.device))] }
            var messages = try delivery(to: address, mac, by: deliver)
            // What comes from the machine goes into the tunnel, wherever this site's own routes lead.
            messages.append(.route(to: address.map { _ in 0 }, prefixBits: 0, device: try deviceIndex(tunnel.device), table: table))
            messages.append(.rule(from: address, device: deliver, table: table))
            return messages
        }
        guard let looked = IPAddress(address), ways.update({ $0.updateValue(way, forKey: looked) }) == nil else {
            throw wrong(endpoint, "another has the address \(endpoint.address)")
        }
        return way
    }

    private func translationBackend(
        _ endpoint: GatewayDescription.EndpointDescription, _ address: [UInt8], _ mac: [UInt8]?
    ) throws(TurntableError) -> any Backend {
        var machine = TranslationRules.Machine(name: endpoint.machine, address: address, sites: [])
        for (index, site) in endpoint.sites.enumerated() {
            try checkDelivery(site, endpoint)
            if let device = site.deliver { machine.here = (index, device) }
            machine.sites.append(try bytes(site.nftables!, endpoint))
        }
        for own in [address] + machine.sites {
            guard own.count == address.count else { throw wrong(endpoint, "its addresses are all IPv4, or all IPv6") }
            guard let looked = IPAddress(own), translated.update({ $0.insert(looked).inserted }) else {
                throw wrong(endpoint, "the machine has one address at each site, which no other has")
            }
        }
        let deliver = machine.here?.device
        return translation.add(machine) { () throws(TurntableError) in
            guard let deliver else { return }
            for message in try delivery(to: address, mac, by: deliver) { try netlink.perform(message, what: "preparing the way to \(endpoint.machine)") }
        }
    }

    /// This site's own way to a machine.
    private func delivery(to address: [UInt8], _ mac: [UInt8]?, by device: String) throws(TurntableError) -> [NetlinkMessage] {
        let inside = try deviceIndex(device)
        return [.route(to: address, device: inside)] + (mac.map { [.neighbour(address, mac: $0, device: inside)] } ?? [])
    }

    private func checkDelivery(
        _ site: GatewayDescription.SiteDescription, _ endpoint: GatewayDescription.EndpointDescription
    ) throws(TurntableError) {
        guard (site.deliver != nil) == (site.name == description.here) else {
            throw wrong(endpoint, "\"deliver\" is for the site that this is, and \(site.name) is \(description.here == nil ? "not" : "another")")
        }
    }

    // MARK: - Words

    private func bytes(_ text: String, _ endpoint: GatewayDescription.EndpointDescription) throws(TurntableError) -> [UInt8] {
        guard let bytes = addressBytes(text) else { throw wrong(endpoint, "\(text) is no IPv4 or IPv6 address") }
        return bytes
    }

    private func address(_ text: String, _ port: UInt16) throws(TurntableError) -> Address {
        guard let address = Address(parsing: text, defaultPort: port) else { throw TurntableError(.usage, "reading \"\(text)\"", "it is no address:port") }
        return address
    }

    private func peer(_ text: String, _ port: UInt16) throws(TurntableError) -> DatagramSocket.Peer { try DatagramSocket.Peer(address(text, port)) }

    private func wrong(_ endpoint: GatewayDescription.EndpointDescription, _ why: String) -> TurntableError {
        TurntableError(.usage, "the endpoint of \(endpoint.machine)", why, remedy: "see docs/endpoint.md")
    }
}

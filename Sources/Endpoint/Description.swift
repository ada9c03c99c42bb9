// What a gateway is told, in a file of JSON: docs/endpoint.md. The same program and the same words serve the anchor, where a machine's
// address belongs, and each site: everyone knows the sites in the same order, and how to reach each of them from where it is.

internal import Foundation
public import TurntableCore
internal import TurntableLinux

public struct GatewayDescription: Codable, Sendable {
    /// Where announcements come, over UDP.
    public var listen: String
    /// Directory of what must survive.
    public var state: String
    /// The site that this is; none at the anchor.
    public var here: String?
    public var tunnel: TunnelDescription?
    public var endpoints: [EndpointDescription]

    public struct TunnelDescription: Codable, Sendable {
        /// The network device to make.
        public var device: String
        /// Where tunnelled packets come, over UDP.
        public var listen: String
        public var mtu: Int?
        /// At a site: where the anchor's tunnel ends.
        public var anchor: String?
        /// At a site: the routing table of packets that come from machines.
        public var table: UInt32?
    }

    public struct EndpointDescription: Codable, Sendable {
        public var machine: String
        /// IPv4 or IPv6.
        public var address: String
        /// Of its network card: needed with `vxlan`; at a site it saves asking for it.
        public var mac: String?
        /// File of the key.
        public var key: String
        /// The site where the machine is before it first moves.
        public var home: String
        public var sites: [SiteDescription]
        /// Other gateways of this endpoint, who hear of what is believed here.
        public var tell: [String]?
    }

    /// A site, and one way to reach the machine when it is there.
    public struct SiteDescription: Codable, Sendable {
        public var name: String
        /// By a route of the kernel's.
        public var route: Route?
        /// By a VXLAN device.
        public var vxlan: VXLAN?
        /// By the tunnel to its gateway: address and port.
        public var tunnel: String?
        /// By nftables: the machine's address at the site.
        public var nftables: String?
        /// It is this site: the network device behind which the machine is. For endpoints with tunnels or nftables.
        public var deliver: String?
    }
    public struct Route: Codable, Sendable {
        public var device: String
        public var via: String?
    }
    public struct VXLAN: Codable, Sendable {
        public var device: String
        /// The address of its tunnel's end.
        public var end: String
    }

    public init(file path: String) throws(TurntableError) {
        let bytes = try readFile(path, atMost: Limits.gatewayFileBytes)
        do { self = try JSONDecoder().decode(Self.self, from: Data(bytes)) } catch {
            throw TurntableError(.usage, "reading \(path)", Self.text(error), remedy: "see docs/endpoint.md")
        }
    }

    private static func text(_ error: any Error) -> String {
        guard let error = error as? DecodingError else { return "\(error)" }
        switch error {
        case .keyNotFound(let key, let context): return "\(place(context)) has no \"\(key.stringValue)\""
        case .typeMismatch(_, let context), .valueNotFound(_, let context): return "\(place(context)): \(context.debugDescription)"
        case .dataCorrupted(let context): return "\(place(context)) is no JSON: \(context.debugDescription)"
        @unknown default: return "\(error)"
        }
    }

    private static func place(_ context: DecodingError.Context) -> String {
        context.codingPath.isEmpty ? "it" : context.codingPath.map { $0.intValue.map(String.init) ?? $0.stringValue }.joined(separator: ".")
    }
}

/// The six bytes of a network card's address.
func macBytes(_ text: String) throws(TurntableError) -> [UInt8] {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map { $0.count == 2 ? UInt8($0, radix: 16) : nil }
    guard parts.count == 6, !parts.contains(nil) else {
        throw TurntableError(.usage, "reading the card address \"\(text)\"", "it is not six bytes as in 52:54:00:12:34:56")
    }
    return parts.compactMap { $0 }
}

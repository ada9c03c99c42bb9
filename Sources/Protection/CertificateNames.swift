internal import SwiftASN1
internal import TurntableCore
internal import TurntableLinux
public import X509

/// The names that a certificate is for (RFC 5280, 4.2.1.6: subjectAltName).
public struct CertificateNames: Sendable, CustomStringConvertible {
    public let hosts: [String]
    /// IPv4 and IPv6 addresses as their 4 or 16 bytes.
    public let addresses: [[UInt8]]

    public init(_ certificate: Certificate) {
        var hosts: [String] = []
        var addresses: [[UInt8]] = []
        for name in (try? certificate.extensions.subjectAlternativeNames) ?? SubjectAlternativeNames([]) {
            switch name {
            case .dnsName(let host): hosts.append(host.lowercased())
            case .ipAddress(let address): addresses.append(Array(address.bytes))
            default: break
            }
        }
        self.hosts = hosts
        self.addresses = addresses
    }

    /// The name by which journals and messages call the host.
    public var description: String { String((hosts.first ?? "a certificate without a name").prefix(Limits.hostNameBytes)) }

    /// Whether the certificate is for `name`, a host name or an address. No wildcards: a host has a name of its own.
    public func include(_ name: String) -> Bool {
        if let address = addressBytes(name) { return addresses.contains(address) }
        return hosts.contains(name.lowercased())
    }
}

public import WireFormat

/// What protects the lines of a transport.
public enum LineSecurity: Sendable {
    /// Nothing, which the other end must ask for too.
    case none
    /// TLS and AES-GCM, as this host.
    case sealed(HostIdentity)

    public var protection: LineProtection {
        switch self {
        case .none: .none
        case .sealed: .sealed
        }
    }

    /// Signs as this host; nobody signs on a line without protection.
    public var sign: @Sendable ([UInt8]) -> [UInt8] {
        guard case .sealed(let identity) = self else { return { _ in [] } }
        // A statement without a signature is not believed, so nothing is lost by it.
        return { (try? Statement.sign($0, as: identity)) ?? [] }
    }

    /// Whether a statement is signed by the host that `name` is.
    public func believes(from name: String) -> @Sendable ([UInt8], [UInt8]) -> Bool {
        guard case .sealed(let identity) = self else { return { _, _ in true } }
        return { Statement.signer(of: $0, $1, authorities: identity.authorities)?.include(name) ?? false }
    }
}

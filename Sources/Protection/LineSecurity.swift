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
}

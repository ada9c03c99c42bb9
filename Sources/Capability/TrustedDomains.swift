public import Crypto
internal import Protection
public import TurntableCore

/// The domains whose tokens count here, with their keys: two while a domain changes its key.
public struct TrustedDomains: Sendable {
    public internal(set) var keys: [String: [Curve25519.Signing.PublicKey]]

    public init(_ keys: [String: [Curve25519.Signing.PublicKey]]) { self.keys = keys }

    /// - Parameter options: NAME=FILE each, the file holding public keys as `turntable keys domain` makes them.
    public init(options: [String]) throws(TurntableError) {
        keys = [:]
        for option in options {
            let parts = option.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { throw TurntableError(.usage, "--trust-domain \(option)", "it is no NAME=FILE") }
            try MachineName.check(parts[0])
            keys[parts[0], default: []] += try DomainKey.publicKeys(parts[1])
        }
    }

    public var names: [String] { keys.keys.sorted() }
}

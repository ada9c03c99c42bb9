// What `turntable xen migrate` sends before libxl's stream of a domain:
//
//   "TURNXEN1" | length u32 | the domain's configuration, as libxl's JSON
//
// libxl's stream follows, and the greeting of turntable-xen-helper in it (WireFormat/StreamGreeting.swift). All that is agreed on
// afterwards, readiness, hand-off and outcome, are messages of the engine between the two helpers.

public import TurntableCore
internal import WireFormat

/// The first message of a move.
public struct MoveHead: Equatable, Sendable {
    private static let magic = Array("TURNXEN1".utf8)
    /// As much as tells how long the rest is.
    public static let prefixBytes = magic.count + 4

    /// What libxl makes the domain from, opaque here.
    public var configuration: String

    public init(configuration: String) { self.configuration = configuration }

    public func encoded() throws(TurntableError) -> [UInt8] {
        let bytes = Array(configuration.utf8)
        guard bytes.count <= Limits.xenConfigurationBytes else {
            throw TurntableError(
                .unsupported, "the domain's configuration", "it has \(bytes.count) bytes, the limit is \(Limits.xenConfigurationBytes)")
        }
        var writer = MessageWriter()
        writer.append(raw: Self.magic)
        writer.append(bytes: bytes)
        return writer.bytes
    }

    /// The length of what follows a prefix.
    public static func bodyBytes(after prefix: [UInt8]) throws(TurntableError) -> Int {
        guard prefix.count == prefixBytes, Array(prefix.prefix(magic.count)) == magic else {
            throw TurntableError(.protocol, "the head of a move", "it does not begin as one", remedy: "use one version on both hosts")
        }
        let count = prefix[magic.count...].reversed().reduce(0) { $0 << 8 | Int($1) }
        guard count <= Limits.xenConfigurationBytes else {
            throw TurntableError(.protocol, "the head of a move", "it has \(count) bytes, the limit is \(Limits.xenConfigurationBytes)")
        }
        return count
    }

    /// From what follows the prefix.
    public init(decoding body: [UInt8]) throws(TurntableError) {
        // C reads it: a zero inside would hide the rest.
        guard let text = String(validating: body, as: UTF8.self), !body.isEmpty, !body.contains(0) else {
            throw TurntableError(.protocol, "the head of a move", "its configuration is no text")
        }
        configuration = text
    }
}

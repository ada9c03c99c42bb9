internal import Crypto
internal import Foundation
public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// What proves an announcement of one machine: a secret of its keepers and of the hosts that it may run at. On disk it is 64
/// hexadecimal digits, for its owner's eyes only.
public struct EndpointKey: Sendable {
    private let secret: [UInt8]
    private let key: SymmetricKey

    public static let bytes = 32

    private init(_ secret: [UInt8]) {
        self.secret = secret
        key = SymmetricKey(data: secret)
    }

    /// A new one.
    public static func random() -> EndpointKey { EndpointKey((0..<bytes).map { _ in UInt8.random(in: .min ... .max) }) }

    public init(file path: String) throws(TurntableError) {
        let remedy = "make one with `turntable-gateway key`"
        let digits = Array(try PrivateKeyFile.readSecret(path, remedy: remedy).utf8.filter { $0 > UInt8(ascii: " ") })
        let bytes = stride(from: 0, to: digits.count, by: 2).map { UInt8(String(decoding: digits[$0..<min($0 + 2, digits.count)], as: UTF8.self), radix: 16) }
        guard digits.count == 2 * Self.bytes, !bytes.contains(nil) else {
            throw TurntableError(
                .usage, "reading \(path)", "it is no endpoint's key: that has \(2 * Self.bytes) hexadecimal digits",
                remedy: remedy)
        }
        self.init(bytes.compactMap { $0 })
    }

    /// Writes the key to a file that must not be there yet.
    public func write(to path: String) throws(TurntableError) {
        let digits = secret.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        try writeNew(digits + "\n", to: path, mode: 0o600)
    }

    /// The datagram that says it.
    public func datagram(_ announcement: Announcement) -> [UInt8] {
        let signed = announcement.signedBytes
        return signed + Array(HMAC<SHA256>.authenticationCode(for: signed, using: key))
    }

    /// Whether whoever said it has the key; compared in constant time.
    public func verifies(_ mac: [UInt8], of announcement: Announcement) -> Bool {
        HMAC<SHA256>.isValidAuthenticationCode(mac, authenticating: announcement.signedBytes, using: key)
    }
}

extension Announcement {
    /// How a machine is named in announcements.
    public static func digest(of machine: String) -> [UInt8] { Array(SHA256.hash(data: Data(machine.utf8))) }
}

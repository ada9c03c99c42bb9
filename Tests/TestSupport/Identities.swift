internal import Foundation
public import Protection

/// Two hosts of one authority, and one of another.
public struct Identities: Sendable {
    public let alpha: HostIdentity
    public let beta: HostIdentity
    public let stranger: HostIdentity

    private static let made = Result { try Identities() }
    public static var shared: Identities { get throws { try made.get() } }

    private init() throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "turntable-keys-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        for authority in ["ours", "theirs"] {
            try KeyMaker.makeAuthority(named: authority, in: "\(directory)/\(authority)", days: 2)
        }
        func host(_ name: String, of authority: String) throws -> HostIdentity {
            try KeyMaker.makeHost(
                named: name, addresses: [], authority: "\(directory)/\(authority)", in: "\(directory)/\(name)", days: 1)
            return try HostIdentity(directory: "\(directory)/\(name)")
        }
        alpha = try host("alpha.test", of: "ours")
        beta = try host("beta.test", of: "ours")
        stranger = try host("beta.test.stranger", of: "theirs")
    }
}

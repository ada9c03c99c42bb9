internal import Crypto
internal import Foundation
internal import Synchronization
internal import TurntableCore

/// The policy that is in force, and the file that it is read from, again whenever somebody asks. A file with an error changes nothing.
final class StandingPolicy: Sendable {
    struct InForce: Sendable {
        var policy: Policy
        /// SHA-256 of the text, in hexadecimal digits.
        var digest: String
        var read: Date
        /// Why what the file says since is not in force.
        var refused: TurntableError?
    }

    private let path: String
    private let state: Mutex<InForce>

    init(file path: String) throws(TurntableError) {
        self.path = path
        state = Mutex(try Self.read(path))
    }

    var inForce: InForce { state.withLock { $0 } }

    /// - Throws: what is wrong with the file; the policy stays as it was.
    func readAgain() throws(TurntableError) {
        do {
            let new = try Self.read(path)
            state.withLock { $0 = new }
        } catch {
            state.withLock { $0.refused = error }
            throw error
        }
    }

    private static func read(_ path: String) throws(TurntableError) -> InForce {
        let text = try Policy.text(ofFile: path)
        return InForce(
            policy: try Policy(text, named: path), digest: SHA256.hash(data: Data(text.utf8)).map { String(format: "%02x", $0) }.joined(), read: .now)
    }
}

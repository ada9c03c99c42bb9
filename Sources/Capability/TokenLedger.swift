// What a host remembers of tokens: that they were used, for what, and that they were revoked. A file for each,
//
//   <directory>/<id>    "until <Unix seconds>", then "used <kind> <what>" or "revoked", a line each
//
// appended under the directory's lock, so that the agent and the receivers of a host know the same; durable before it counts.
// Nothing is forgotten before the token's window ends, and what may have been handed off under it later still.

internal import Foundation
public import TurntableCore
internal import TurntableLinux

public struct TokenLedger: Sendable {
    public let directory: String

    public init(directory: String) throws(TurntableError) {
        self.directory = directory
        do {
            try FileManager.default.createDirectory(
                atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: NSNumber(value: 0o700)])
        } catch {
            throw TurntableError(.unsupported, "making \(directory)", "\(error)", remedy: "run as root, or choose a directory with --state-dir")
        }
    }

    private func lines(_ file: AppendFile) throws(TurntableError) -> [Substring] {
        String(decoding: try file.contents(), as: UTF8.self).split(separator: "\n")
    }

    /// Each in one step, whoever else does the same.
    private func update(_ id: TokenID, until: Int, _ change: ([Substring]) throws(CapabilityError) -> String?) throws(CapabilityError) {
        let file = AppendFile("\(directory)/\(id.hexadecimal)")
        let result: Result<Void, CapabilityError>
        do throws(TurntableError) {
            result = try file.locked { () throws(TurntableError) in
                let known = try lines(file)
                let line: String?
                do throws(CapabilityError) { line = try change(known) } catch { return .failure(error) }
                guard let line else { return .success(()) }
                try file.append(Array((known.isEmpty ? "until \(until)\n\(line)\n" : "\(line)\n").utf8))
                try file.sync()
                return .success(())
            }
        } catch {
            throw .ledger(error)
        }
        try result.get()
    }

    /// Uses a token for `what`, which has one word. Again for the same it is the same use.
    public func use(_ claims: Claims, as kind: String, _ what: String) throws(CapabilityError) {
        try update(claims.id, until: claims.notAfter) { lines throws(CapabilityError) in
            guard !lines.contains("revoked") else { throw .revoked(claims.id) }
            guard let used = lines.first(where: { $0.hasPrefix("used \(kind) ") }) else { return "used \(kind) \(what)" }
            guard used == "used \(kind) \(what)" else { throw .replayed(claims.id, usedFor: String(used.dropFirst("used ".count))) }
            return nil
        }
    }

    /// Whether it was used for `what`, whatever became of it since.
    public func isUsed(_ id: TokenID, as kind: String, _ what: String) throws(CapabilityError) -> Bool {
        let file = AppendFile("\(directory)/\(id.hexadecimal)")
        do throws(TurntableError) { return try lines(file).contains("used \(kind) \(what)") } catch { throw .ledger(error) }
    }

    public func isRevoked(_ id: TokenID) throws(CapabilityError) -> Bool {
        do throws(TurntableError) { return try lines(AppendFile("\(directory)/\(id.hexadecimal)")).contains("revoked") } catch { throw .ledger(error) }
    }

    /// From now on nobody uses it.
    public func revoke(_ claims: Claims) throws(CapabilityError) {
        try update(claims.id, until: claims.notAfter) { $0.contains("revoked") ? nil : "revoked" }
    }

    /// Forgets tokens that nobody can use any more.
    /// - Parameter now: Unix seconds.
    public func prune(at now: Int) {
        let last = now - Int(Limits.longestResumeWindow.seconds)
        for name in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [] {
            guard let first = try? lines(AppendFile("\(directory)/\(name)")).first, first.hasPrefix("until "),
                let until = Int(first.dropFirst("until ".count)), until < last
            else { continue }
            try? FileManager.default.removeItem(atPath: "\(directory)/\(name)")
        }
    }
}

import ArgumentParser
import Capability
import Foundation
import MigrationEngine
import Protection
import TurntableCore
import WireFormat

/// A token in a file, as orchestrators issue them: base64.
enum TokenFile {
    static func read(_ path: String) throws(TurntableError) -> Capability {
        guard let file = FileHandle(forReadingAtPath: path), let bytes = try? file.read(upToCount: Limits.keyFileBytes) else {
            throw TurntableError(.usage, "reading \(path)", "it is not there, or is empty")
        }
        let text = String(decoding: bytes, as: UTF8.self)
        do { return try Capability(text: text) } catch { throw error.error("reading \(path)") }
    }
}

/// Which machines a receiver takes: those that a domain which it trusts has granted.
struct TokenOptions: ParsableArguments {
    @Flag(name: .customLong("require-token"), help: "Take no machine without a token of a trusted domain (docs/tokens.md).") var isRequired = false
    @Option(
        name: .customLong("trust-domain"),
        help: ArgumentHelp("A domain whose tokens count, and the file with its public key; repeatable.", valueName: "name=file"))
    var domains: [String] = []

    /// Nil if none is required.
    func admission(
        _ security: LineSecurity, _ state: StateDirectoryOption
    ) throws(TurntableError) -> (@Sendable (Offer, String, [UInt8]) throws(TurntableError) -> ByteCount?)? {
        guard isRequired || !domains.isEmpty else { return nil }
        guard isRequired, !domains.isEmpty else {
            throw TurntableError(.usage, isRequired ? "--require-token" : "--trust-domain", "--require-token and --trust-domain belong together")
        }
        guard case .sealed(let identity) = security else {
            throw TurntableError(
                .usage, "--require-token", "without protection nobody knows whose key the other end has", remedy: "leave out --protection none")
        }
        let gate = TokenGate(
            domains: try TrustedDomains(options: domains), ledger: try TokenLedger(directory: state.tokenDirectory)
        ) { Int(Date.now.timeIntervalSince1970) }
        let host = "\(identity.names)"
        return { (offer, peerName, peerKey) throws(TurntableError) in
            let use = Claims.Use(machine: offer.machine, epoch: offer.epoch, source: peerName, target: host, holder: peerKey)
            do throws(CapabilityError) {
                let claims = try gate.admit(offer.token, use, session: offer.session.hexadecimal, isHandedOff: offer.isHandedOff)
                return claims.byteBudget.map { ByteCount($0) }
            } catch { throw error.error("taking \(offer.machine)") }
        }
    }
}

import ArgumentParser
import Capability
import Crypto
import Foundation
import Protection
import TurntableCore

struct TokenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token",
        abstract: "Make, narrow and read tokens by hand; orchestrators do it by themselves.",
        discussion: """
            A token permits one machine to be moved once (docs/tokens.md). It is printed in base64, and is no secret: only the host whose key \
            it names can use it.

            EXAMPLES
              turntable token issue --domain home --domain-key ./home/domain.key --machine web --epoch 2 --source alpha.example \\
                  --target beta.example --holder ./alpha/host.pem --valid 10min > web.token
              turntable token issue … --delegate ./away/domain.pem | turntable token narrow /dev/stdin --domain-key ./away/domain.key --holder ./alpha/host.pem
              turntable token show web.token --trust-domain home=./home/domain.pem
              turntable token revoke web.token                (at a host or link element that must not let it be used any more)
            """,
        subcommands: [Issue.self, Narrow.self, Show.self, Revoke.self, Web.self])

    /// The orchestrators' program brings what JSON Web Tokens need.
    struct Web: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Issue a token for a Web client of orchestrators.",
            discussion: "Becomes `turntable-orchestrator web-token`: see `turntable token web --help`.\n\nEXAMPLES\n"
                + "  turntable token web --domain home --domain-key ./home/domain.key --client dashboard.example --valid 1h",
            helpNames: [])
        @Argument(parsing: .captureForPassthrough, help: "What to issue.") var words: [String] = []

        func run() throws { try reportingErrors { try becomeOrchestrator(["web-token"] + words) } }
    }

    /// What may be bounded further by each who passes it on.
    struct Bounds: ParsableArguments {
        @Option(name: .customLong("domain-key"), help: ArgumentHelp("The domain's key, as `turntable keys domain` makes it.", valueName: "file"))
        var domainKey: String
        @Option(help: ArgumentHelp("The certificate of the host that may use it: the source's.", valueName: "file")) var holder: String?
        @Option(help: ArgumentHelp("The public key of a domain that is to narrow it.", valueName: "file")) var delegate: String?
        @Option(help: ArgumentHelp("How long it is valid from now.", valueName: "time")) var valid: TimeOption?
        @Option(help: ArgumentHelp("What may be moved altogether.", valueName: "size")) var bytes: ByteCountOption?
        @Option(help: ArgumentHelp("The line that must be used.", valueName: "name")) var path: String?

        func apply(to claims: inout Claims) throws(TurntableError) {
            if let holder { claims.holder = try KeyDigest.ofCertificate(in: holder) }
            claims.delegate = try delegate.map { (file) throws(TurntableError) in Array(try DomainKey.publicKeys(file)[0].rawRepresentation) }
            guard claims.holder != nil || claims.delegate != nil else {
                throw TurntableError(.usage, "a token for \(claims.machine)", "it has neither --holder nor --delegate, and nobody could use it")
            }
            if let valid { claims.notAfter = now() + Int(valid.value.seconds) }
            if let bytes { claims.byteBudget = bytes.value.value }
            if let path { claims.path = path }
        }

        func key() throws(TurntableError) -> Curve25519.Signing.PrivateKey { try DomainKey.read(domainKey) }
    }

    struct Issue: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Grant a move, as a domain.")
        @Option(help: ArgumentHelp("The domain's name, as others trust it.", valueName: "name")) var domain: String
        @Option(help: "The machine.") var machine: String
        @Option(help: ArgumentHelp("Under which the target would run it: nextEpoch in `turntable status --json`.", valueName: "n")) var epoch: UInt64
        @Option(help: ArgumentHelp("The source, as its certificate names it.", valueName: "host")) var source: String
        @Option(help: ArgumentHelp("The target, as its certificate names it.", valueName: "host")) var target: String
        @OptionGroup var bounds: Bounds

        func run() throws {
            try reportingErrors {
                let now = now()
                var claims = Claims(
                    issuer: domain, machine: machine, epoch: Epoch(epoch), source: source.lowercased(), target: target.lowercased(),
                    notBefore: now - Int(Limits.tokenClockDifference.seconds), notAfter: now + Int(Limits.tokenTime.seconds))
                try bounds.apply(to: &claims)
                let key = try bounds.key()
                do throws(CapabilityError) { print(try Capability.issue(claims, signedBy: key).text) } catch { throw error.error("issuing a token") }
            }
        }
    }

    struct Narrow: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Pass a token on, as its delegate; what is not said stays as it is.")
        @Argument(help: ArgumentHelp("The token.", valueName: "file")) var file: String
        @OptionGroup var bounds: Bounds

        func run() throws {
            try reportingErrors {
                let token = try TokenFile.read(file)
                var claims = token.claims
                try bounds.apply(to: &claims)
                let key = try bounds.key()
                do throws(CapabilityError) { print(try token.narrowed(to: claims, signedBy: key).text) } catch { throw error.error("narrowing \(file)") }
            }
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Say what a token grants, and whether a domain that is trusted granted it.")
        @Argument(help: ArgumentHelp("The token.", valueName: "file")) var file: String
        @Option(
            name: .customLong("trust-domain"),
            help: ArgumentHelp("A domain whose tokens count, and the file with its public key; repeatable.", valueName: "name=file"))
        var domains: [String] = []

        func run() throws {
            try reportingErrors {
                let token = try TokenFile.read(file)
                for (index, claims) in token.chain.enumerated() { print("link \(index + 1): \(describe(claims))") }
                guard !domains.isEmpty else { return print("not verified: no --trust-domain is named") }
                let trusted = try TrustedDomains(options: domains)
                let claims = token.claims
                let use = Claims.Use(machine: claims.machine, source: claims.source, target: claims.target)
                do throws(CapabilityError) { try token.verify(use, trusted, at: now()) } catch { throw error.error("verifying \(file)") }
                print("valid now")
            }
        }

        private func describe(_ claims: Claims) -> String {
            func time(_ seconds: Int) -> String { Date(timeIntervalSince1970: Double(seconds)).formatted(.iso8601) }
            func hexadecimal(_ bytes: [UInt8]) -> String { bytes.prefix(4).map { String(format: "%02x", $0) }.joined() + "…" }
            var words = [
                "\(claims.issuer) grants \(claims.machine), epoch \(claims.epoch.value), from \(claims.source) to \(claims.target)",
                "from \(time(claims.notBefore)) until \(time(claims.notAfter))",
            ]
            if let path = claims.path { words.append("via \(path)") }
            if let budget = claims.byteBudget { words.append("up to \(ByteCount(budget))") }
            if let holder = claims.holder { words.append("to the key \(hexadecimal(holder))") }
            if let delegate = claims.delegate { words.append("to be narrowed by \(hexadecimal(delegate))") }
            return (words + ["\(claims.id)"]).joined(separator: ", ")
        }
    }

    struct Revoke: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let a token not be used any more: by this host's receivers and agent, or by the link element here.",
            discussion: "What was handed off under it is heard to its end all the same.")
        @Argument(help: ArgumentHelp("The token.", valueName: "file")) var file: String
        @OptionGroup var state: StateDirectoryOption

        func run() throws {
            try reportingErrors {
                let token = try TokenFile.read(file)
                let ledger = try TokenLedger(directory: state.tokenDirectory)
                do throws(CapabilityError) { try ledger.revoke(token.claims) } catch { throw error.error("revoking \(file)") }
            }
        }
    }
}

/// Unix seconds.
private func now() -> Int { Int(Date().timeIntervalSince1970) }

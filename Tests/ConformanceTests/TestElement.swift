internal import Capability
internal import Crypto
internal import Foundation
internal import LinkElement
internal import Protection
internal import TestSupport
internal import TurntableCore
internal import TurntableLinux

/// A link element on a thread of this process, and what alpha.test shows to pass it.
final class TestElement: Sendable {
    let passage: LinkPassage
    private let element: LinkElement
    private let thread: WorkerThread
    private let directory: String

    init(before target: UInt16) throws {
        directory = FileManager.default.temporaryDirectory.appending(path: "turntable-link-\(UUID().uuidString)").path
        let domain = Curve25519.Signing.PrivateKey()
        let key = LinkKey()
        let alpha = try Identities.shared.alpha
        let now = Int(Date.now.timeIntervalSince1970)
        let claims = Claims(
            issuer: "lab", machine: "m", epoch: Epoch(2), source: "alpha.test", target: "beta.test", path: "west", notBefore: now - 60,
            notAfter: now + 600, holder: alpha.keyDigest)
                let element = try LinkElement(
            LinkElement.Description(
                line: "west", key: key, domains: TrustedDomains(["lab": [domain.publicKey]]), next: [NextHop(parsing: "127.0.0.1:\(target)")!]),
            listening: Address(host: "127.0.0.1", port: 0), ledger: TokenLedger(directory: directory),
            now: { Int(Date.now.timeIntervalSince1970) }
        ) { _ in }
        self.element = element
        passage = LinkPassage(
            token: try Capability.issue(claims, signedBy: domain).encoded,
            elements: [LinkPassage.Element(address: Address(host: "127.0.0.1", port: element.port), key: key.publicKey)], identity: alpha)
        thread = WorkerThread("test-link") { try? element.serve() }
    }

    deinit {
        element.end()
        thread.join()
        try? FileManager.default.removeItem(atPath: directory)
    }
}

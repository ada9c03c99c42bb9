// The key of a link element (X25519), to which sources seal the key that its frames are checked with. In a directory,
//
//   link.key   the private key, PKCS#8 in PEM (RFC 8410), for its owner's eyes only
//   link.pem   the public key, which every host gets that sends over the link
//
// Sealing is HPKE (RFC 9180) in base mode; who sealed it is the pass's signature to say.

package import Crypto
internal import Foundation
internal import SwiftASN1
public import TurntableCore
public import TurntableLinux
package import WireFormat

/// A link element's public key, as sources have it.
public struct LinkPublicKey: Sendable {
    let key: Curve25519.KeyAgreement.PublicKey

    /// SubjectPublicKeyInfo of an X25519 key is this and the 32 bytes of the key (RFC 8410, 4).
    fileprivate static let header: [UInt8] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00]

    public init(file path: String) throws(TurntableError) {
        try self.init(pem: readText(path, remedy: LinkKey.remedy), "reading \(path)")
    }

    /// - Parameter what: names where the text is from, for errors.
    public init(pem text: String, _ what: String) throws(TurntableError) {
        guard let document = try? PEMDocument(pemString: text), document.discriminator == "PUBLIC KEY", document.derBytes.starts(with: Self.header),
            let key = try? Curve25519.KeyAgreement.PublicKey(rawRepresentation: document.derBytes.dropFirst(Self.header.count))
        else { throw TurntableError(.usage, what, "it is no X25519 public key in PEM", remedy: LinkKey.remedy) }
        self.key = key
    }

    init(_ key: Curve25519.KeyAgreement.PublicKey) { self.key = key }

    public var pem: String { PEMDocument(type: "PUBLIC KEY", derBytes: Self.header + key.rawRepresentation).pemString }
}

/// A link element's own.
public struct LinkKey: Sendable {
    private let key: Curve25519.KeyAgreement.PrivateKey

    public static let keyFile = "link.key"
    public static let publicKeyFile = "link.pem"
    /// PKCS#8 of an X25519 key is this and the 32 bytes of the key (RFC 8410, 7).
    private static let header: [UInt8] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20]
    static let remedy = "make them with `turntable keys link`, and copy the element's \(publicKeyFile) to those who send over it"

    public init(file path: String) throws(TurntableError) {
        guard let raw = try PrivateKeyFile.readRaw(path, after: Self.header, remedy: Self.remedy),
            let key = try? Curve25519.KeyAgreement.PrivateKey(rawRepresentation: raw)
        else { throw TurntableError(.usage, "reading \(path)", "it is no X25519 private key (PKCS#8) in PEM", remedy: Self.remedy) }
        self.key = key
    }

    public init() { key = Curve25519.KeyAgreement.PrivateKey() }

    public var publicKey: LinkPublicKey { LinkPublicKey(key.publicKey) }

    /// Makes link.key and link.pem in `directory`.
    public static func make(in directory: String) throws(TurntableError) {
        let made = LinkKey()
        try PrivateKeyFile.writeRaw(
            made.key.rawRepresentation, after: header, keyFile, publicText: made.publicKey.pem, publicKeyFile, in: directory)
    }

    /// Which element of the pass this is, and the key of the frames that follow; nil if it is none.
    package func open(_ pass: LinkPass) -> (index: Int, key: SymmetricKey)? {
        for (index, element) in pass.elements.enumerated() {
            guard
                var recipient = try? HPKE.Recipient(
                    privateKey: key, ciphersuite: LinkPassage.suite, info: LinkPassage.info, encapsulatedKey: Data(element.encapsulated)),
                let opened = try? recipient.open(Data(element.sealed), authenticating: Data(pass.context))
            else { continue }
            return (index, SymmetricKey(data: opened))
        }
        return nil
    }
}

/// What a source shows to the link elements on its way.
public struct LinkPassage: Sendable {
    private let token: [UInt8]
    private let elements: [Element]
    private let identity: HostIdentity

    /// A link element as a source knows it.
    public struct Element: Sendable {
        public var address: Address
        public var key: LinkPublicKey
        public init(address: Address, key: LinkPublicKey) { (self.address, self.key) = (address, key) }
    }

    fileprivate static let suite = HPKE.Ciphersuite.Curve25519_SHA256_ChachaPoly
    fileprivate static let info = Data("turntable link pass 1".utf8)

    /// - Parameters:
    ///   - token: bound to the identity's key.
    ///   - elements: in the order in which connections reach them, at most Limits.linkElements.
    public init(token: [UInt8], elements: [Element], identity: HostIdentity) {
        precondition((1...Limits.linkElements).contains(elements.count))
        (self.token, self.elements, self.identity) = (token, elements, identity)
    }

    /// Where connections begin.
    package var first: Address { elements[0].address }

    /// A pass for the connection to `target` that begins with `preface`, and the key that its frames are marked with.
    package func pass(for preface: Preface, to target: Address) throws(TurntableError) -> (pass: LinkPass, key: SymmetricKey) {
        func random(_ count: Int) -> [UInt8] { (0..<count).map { _ in .random(in: .min ... .max) } }
        let key = random(32)
        let nonce = random(LinkPass.nonceBytes)
        let ways = elements.dropFirst().map(\.address) + [target]
        var pass = LinkPass(
            time: UInt64(Date.now.timeIntervalSince1970), nonce: nonce, preface: preface, token: token,
            elements: ways.map { LinkPass.Element(next: "\($0)") })
        let context = Data(pass.context)
        do {
            for (index, element) in elements.enumerated() {
                var sender = try HPKE.Sender(recipientKey: element.key.key, ciphersuite: Self.suite, info: Self.info)
                let sealed = try sender.seal(Data(key), authenticating: context)
                pass.elements[index].encapsulated = Array(sender.encapsulatedKey)
                pass.elements[index].sealed = Array(sealed)
            }
        } catch { throw TurntableError(.usage, "sealing a key to a link element", "\(error)") }
        pass.signature = try Statement.sign(pass.signedBytes, as: identity)
        return (pass, SymmetricKey(data: key))
    }
}

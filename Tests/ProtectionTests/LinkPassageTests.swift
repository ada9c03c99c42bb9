internal import Crypto
internal import Foundation
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux

@testable internal import Protection
@testable internal import WireFormat

/// What a source shows to link elements, and the mark of its frames.
struct LinkPassageTests {
    private let preface = Preface(role: .data, protection: .sealed, stream: 3, attachment: AttachmentID(high: 1, low: 2))

    private let target = Address(host: "beta.test", port: 4906)

    private func passage(_ keys: [LinkKey]) throws -> LinkPassage {
        LinkPassage(
            token: [1, 2, 3], elements: keys.enumerated().map { .init(address: Address(host: "link\($0)", port: 1), key: $1.publicKey) },
            identity: try Identities.shared.alpha)
    }

    @Test func everyElementFindsTheSameKeyAndNobodyElseDoes() throws {
        let keys = [LinkKey(), LinkKey(), LinkKey()]
        let (pass, key) = try passage(keys).pass(for: preface, to: target)
        for (index, element) in keys.enumerated() { #expect(element.open(pass).map { $0.index == index && $0.key == key } == true) }
        #expect(pass.elements.map(\.next) == ["link1:1", "link2:1", "beta.test:4906"])
        #expect(LinkKey().open(pass) == nil)
        #expect(try passage(keys).pass(for: preface, to: target).key != key)
    }

    @Test func theKeyIsOfThisPassAlone() throws {
        let element = LinkKey()
        let (pass, _) = try passage([element]).pass(for: preface, to: target)
        let changes: [(inout LinkPass) -> Void] = [
            { $0.time += 1 }, { $0.nonce[0] ^= 1 }, { $0.token[0] ^= 1 }, { $0.preface.stream += 1 }, { $0.elements[0].sealed[47] ^= 1 },
            { $0.elements[0].encapsulated[0] ^= 1 }, { $0.elements[0].next += "0" },
        ]
        for change in changes {
            var other = pass
            change(&other)
            #expect(element.open(other) == nil)
            #expect(Statement.keyDigest(of: other.signedBytes, other.signature) == nil)
        }
        #expect(Statement.keyDigest(of: pass.signedBytes, pass.signature) == (try Identities.shared.alpha.keyDigest))
    }

    @Test func aPassIsReadAsItWasWritten() throws {
        let (pass, _) = try passage([LinkKey(), LinkKey()]).pass(for: preface, to: target)
        let bytes = pass.encoded()
        let body = Array(bytes.dropFirst(LinkPass.headBytes))
        #expect(try LinkPass.bodyBytes(Array(bytes.prefix(LinkPass.headBytes))) == body.count)
        #expect(try LinkPass(decodingBody: body) == pass)
        for count in 0..<body.count {
            #expect(throws: WireError.self) { try LinkPass(decodingBody: Array(body.prefix(count))) }
        }
    }

    @Test func keyFilesAreWhatOpenSSLReads() throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "turntable-link-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try LinkKey.make(in: directory)
        let made = try LinkKey(file: "\(directory)/\(LinkKey.keyFile)")
        #expect(try LinkPublicKey(file: "\(directory)/\(LinkKey.publicKeyFile)").pem == made.publicKey.pem)
        let openssl = Process()
        openssl.executableURL = URL(filePath: "/usr/bin/openssl")
        openssl.arguments = ["pkey", "-in", "\(directory)/\(LinkKey.keyFile)", "-pubout"]
        let output = Pipe()
        openssl.standardOutput = output
        try openssl.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        openssl.waitUntilExit()
        #expect(text.filter { !$0.isWhitespace } == made.publicKey.pem.filter { !$0.isWhitespace })
        #expect(throws: TurntableError.self) { try LinkKey.make(in: directory) }
        #expect(throws: TurntableError.self) { try LinkPublicKey(file: "\(directory)/\(LinkKey.keyFile)") }
    }

    /// Against swift-crypto's own AES-GCM with nothing encrypted.
    @Test func aMarkIsGMACCutToEightBytes() throws {
        var generator = SeededGenerator(seed: 4)
        let key = SymmetricKey(size: .bits256)
        let mac = HeaderMAC(key)
        for sequence in [0, 1, 77, UInt64.max] {
            let header = generator.bytes(FrameHeader.authenticatedBytes)
            let nonce = withUnsafeBytes(of: sequence.littleEndian, Array.init) + [0, 0, 0, 0]
            let tag = try AES.GCM.seal(Data(), using: key, nonce: AES.GCM.Nonce(data: nonce), authenticating: header).tag
            let mark = header.withUnsafeBytes { mac.mark(of: sequence, $0.baseAddress!, bytes: $0.count) }
            #expect(withUnsafeBytes(of: mark.littleEndian, Array.init) == Array(tag.prefix(8)))
        }
    }
}

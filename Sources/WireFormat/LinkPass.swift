// What a source says to the link elements on its way, before the preface of each connection: that it may use the line, and under which
// key the frames that follow are to be checked. All integers are little-endian.
//
//   pass = magic "TTLP" u32 | bodyBytes u32 | body
//   body = version u16 | time u64 (Unix seconds) | nonce (16 bytes) | preface (32 bytes) | token (u32 count, bytes)
//          | elements: u32 count, for each where it goes on to (u32 count, text), then for each encapsulated (32 bytes),
//            sealed key (48 bytes)
//          | signature (u32 count, Protection/Statement.swift) over all before it
//
// The elements are in the order in which the connection reaches them. Each goes on to the next, that is host:port, and passes the pass on; the
// last goes on to the target and leaves it out: the target sees nothing of it. The key is one for all of them and new for each connection; it is
// sealed to each (Protection/LinkKey.swift). Each answers to the one before it: once the connection goes on to the target, or with why it does
// not. On a data stream, on which the target says nothing, an element that stops it says why in the same way.
//
//   answer = magic "TTLA" u32 | verdict u8 | reason (u32 count, text)

internal import TurntableCore

package struct LinkPass: Equatable, Sendable {
    package static let version: UInt16 = 1
    package static let nonceBytes = 16
    /// Magic and length.
    package static let headBytes = 8
    static let magic: UInt32 = 0x504c_5454

    package struct Element: Equatable, Sendable {
        package static let encapsulatedBytes = 32
        package static let sealedBytes = 48
        /// Where it goes on to.
        package var next: String
        /// The key of the connection's frames, for this element alone.
        package var encapsulated: [UInt8]
        package var sealed: [UInt8]
        package init(next: String, encapsulated: [UInt8] = [], sealed: [UInt8] = []) {
            (self.next, self.encapsulated, self.sealed) = (next, encapsulated, sealed)
        }
    }

    /// Unix seconds.
    package var time: UInt64
    package var nonce: [UInt8]
    package var preface: Preface
    package var token: [UInt8]
    package var elements: [Element]
    package var signature: [UInt8]

    package init(time: UInt64, nonce: [UInt8], preface: Preface, token: [UInt8], elements: [Element], signature: [UInt8] = []) {
        (self.time, self.nonce, self.preface, self.token, self.elements, self.signature) = (time, nonce, preface, token, elements, signature)
    }

    /// What the keys are sealed with, so that they are of this pass alone.
    package var context: [UInt8] {
        var writer = MessageWriter()
        writer.append(Self.version)
        writer.append(time)
        writer.append(raw: nonce)
        writer.append(raw: preface.encoded())
        writer.append(bytes: token)
        writer.append(UInt32(elements.count))
        for element in elements { writer.append(text: element.next) }
        return writer.bytes
    }

    /// What the signature is over.
    package var signedBytes: [UInt8] {
        var writer = MessageWriter()
        writer.append(raw: context)
        for element in elements {
            writer.append(raw: element.encapsulated)
            writer.append(raw: element.sealed)
        }
        return writer.bytes
    }

    package func encoded() -> [UInt8] {
        var body = MessageWriter()
        body.append(raw: signedBytes)
        body.append(bytes: signature)
        var writer = MessageWriter()
        writer.append(Self.magic)
        writer.append(UInt32(body.bytes.count))
        writer.append(raw: body.bytes)
        return writer.bytes
    }

    /// The length of the body, from the first ``headBytes``.
    package static func bodyBytes(_ head: [UInt8]) throws(WireError) -> Int {
        var reader = MessageReader(head)
        let magic: UInt32 = try reader.read()
        guard magic == Self.magic else { throw WireError(.badMagic, value: UInt64(magic), limit: UInt64(Self.magic), offset: 0) }
        return try reader.readCount(atMost: Limits.linkPassBytes)
    }

    package init(decodingBody body: [UInt8]) throws(WireError) {
        var reader = MessageReader(body)
        let version: UInt16 = try reader.read()
        guard version == Self.version else { throw WireError(.unsupportedVersion, value: UInt64(version), limit: UInt64(Self.version), offset: 0) }
        time = try reader.read()
        nonce = try reader.read(raw: Self.nonceBytes)
        preface = try Preface.decode(reader.read(raw: Preface.bytes))
        token = try reader.readBytes(atMost: Limits.tokenBytes)
        elements = []
        for _ in 0..<(try reader.readCount(atMost: Limits.linkElements)) {
            elements.append(Element(next: try reader.readText(atMost: Limits.linkAddressBytes)))
        }
        for index in elements.indices {
            elements[index].encapsulated = try reader.read(raw: Element.encapsulatedBytes)
            elements[index].sealed = try reader.read(raw: Element.sealedBytes)
        }
        signature = try reader.readBytes(atMost: Limits.linkSignatureBytes)
        try reader.end()
    }
}

/// What a link element says.
package struct LinkAnswer: Equatable, Sendable {
    /// All but the reason.
    package static let headBytes = 9
    static let magic: UInt32 = 0x414c_5454

    package enum Verdict: UInt8, Sendable {
        /// The connection goes on.
        case passed = 0
        /// What is next on the way cannot be reached; it may be later.
        case notNow = 1
        /// It is not let through.
        case refused = 2
    }
    package var verdict: Verdict
    package var reason: String

    package init(_ verdict: Verdict, reason: String = "") {
        self.verdict = verdict
        self.reason = reason.limited(to: Limits.reasonBytes)
    }

    package func encoded() -> [UInt8] {
        var writer = MessageWriter()
        writer.append(Self.magic)
        writer.append(verdict.rawValue)
        writer.append(text: reason)
        return writer.bytes
    }

    /// The length of the reason, from the first ``headBytes``.
    package static func reasonBytes(_ head: [UInt8]) throws(WireError) -> Int {
        var reader = MessageReader(head)
        _ = try readVerdict(&reader)
        return try reader.readCount(atMost: Limits.reasonBytes)
    }

    package init(decoding bytes: [UInt8]) throws(WireError) {
        var reader = MessageReader(bytes)
        verdict = try Self.readVerdict(&reader)
        reason = try reader.readText(atMost: Limits.reasonBytes)
        try reader.end()
    }

    private static func readVerdict(_ reader: inout MessageReader) throws(WireError) -> Verdict {
        let magic: UInt32 = try reader.read()
        guard magic == Self.magic else { throw WireError(.badMagic, value: UInt64(magic), limit: UInt64(Self.magic), offset: 0) }
        return try reader.readEnum(atMost: 2)
    }
}

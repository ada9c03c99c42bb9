// The first 32 bytes of every connection, from the side that connects. All integers are little-endian.
//
//   preface = magic "TURNTBL\n" | lowestVersion u16 | highestVersion u16 | role u8 | protection u8 | stream u16
//             | attachment (16 bytes)
//
// What follows on a protected line: on a control stream TLS 1.3, in which all else happens; on a data stream a proof that
// whoever connects belongs to the attachment (Protection/SessionSecret.swift). The target refuses a line that is not
// protected as it wants lines to be, so nobody between the ends can talk them out of it.
//
// Version rule: the target answers a control preface with the highest version both speak (Welcome), or refuses. A version
// changes whenever bytes mean something new; there are no silent extensions.

internal import TurntableCore

/// What a connection is for.
public enum ConnectionRole: UInt8, Sendable {
    case control = 0
    case data = 1
}

/// How a line is protected.
public enum LineProtection: UInt8, Sendable {
    /// Not at all: for a line that nobody else can reach. Both ends must ask for it.
    case none = 0
    /// Control streams in TLS 1.3 with both certificates, data streams in AES-256-GCM.
    case sealed = 1
}

/// 128 random bits that name something: nobody joins it by guessing.
public struct RandomID<Named>: Hashable, Sendable, CustomStringConvertible {
    public static var none: RandomID { RandomID(high: 0, low: 0) }
    public var high: UInt64
    public var low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    public static func random() -> RandomID {
        var generator = SystemRandomNumberGenerator()
        return random(using: &generator)
    }

    public static func random(using generator: inout some RandomNumberGenerator) -> RandomID {
        RandomID(high: generator.next(), low: generator.next())
    }

    /// 32 digits, for files that only this host reads.
    public var hexadecimal: String {
        [high, low].map { half in
            String(repeating: "0", count: half.leadingZeroBitCount / 4 - (half == 0 ? 1 : 0)) + String(half, radix: 16)
        }
        .joined()
    }

    /// Nil if `text` is not 32 hexadecimal digits, space around them aside.
    public init?(hexadecimal text: String) {
        let digits = text.filter { !$0.isWhitespace }
        guard digits.count == 32, let high = UInt64(digits.prefix(16), radix: 16), let low = UInt64(digits.suffix(16), radix: 16) else {
            return nil
        }
        self.init(high: high, low: low)
    }

    /// The first eight digits: enough to tell two apart in a log, too few to join one.
    public var description: String { String(high >> 32, radix: 16) }
}

/// Names one migration between two ends, chosen by the source. It outlives its connections.
public typealias SessionID = RandomID<NamedSession>
/// Names one control stream with its data streams, chosen by the target. A line that is cut ends it.
public typealias AttachmentID = RandomID<NamedAttachment>
public enum NamedSession: Sendable {}
public enum NamedAttachment: Sendable {}

/// The first bytes of a connection.
public struct Preface: Equatable, Sendable {
    public static let bytes = 32
    /// The versions this build speaks.
    public static let version: UInt16 = 5
    static let magic: [UInt8] = Array("TURNTBL\n".utf8)

    public var lowestVersion: UInt16
    public var highestVersion: UInt16
    public var role: ConnectionRole
    public var protection: LineProtection
    public var stream: UInt16
    /// Of a data stream: what Welcome named. None on a control stream.
    public var attachment: AttachmentID

    public init(
        role: ConnectionRole, protection: LineProtection = .none, stream: UInt16 = 0, attachment: AttachmentID = .none,
        lowestVersion: UInt16 = version, highestVersion: UInt16 = version
    ) {
        self.role = role
        self.protection = protection
        self.stream = stream
        self.attachment = attachment
        self.lowestVersion = lowestVersion
        self.highestVersion = highestVersion
    }

    public func encoded() -> [UInt8] {
        var writer = MessageWriter()
        writer.append(raw: Self.magic)
        writer.append(lowestVersion)
        writer.append(highestVersion)
        writer.append(role.rawValue)
        writer.append(protection.rawValue)
        writer.append(stream)
        writer.append(attachment.high)
        writer.append(attachment.low)
        return writer.bytes
    }

    public static func decode(_ bytes: [UInt8]) throws(WireError) -> Preface {
        var reader = MessageReader(bytes)
        guard try reader.read(raw: magic.count) == magic else {
            throw WireError(.badMagic, value: UInt64(bytes[0]), limit: UInt64(magic[0]), offset: 0)
        }
        let lowest: UInt16 = try reader.read()
        let highest: UInt16 = try reader.read()
        let rawRole: UInt8 = try reader.read()
        guard let role = ConnectionRole(rawValue: rawRole) else {
            throw WireError(.unknownKind, value: UInt64(rawRole), limit: 1, offset: 12)
        }
        let rawProtection: UInt8 = try reader.read()
        guard let protection = LineProtection(rawValue: rawProtection) else {
            throw WireError(.unknownKind, value: UInt64(rawProtection), limit: 1, offset: 13)
        }
        let stream: UInt16 = try reader.read()
        guard stream < Limits.streams else { throw WireError(.tooMany, value: UInt64(stream), limit: UInt64(Limits.streams), offset: 14) }
        let attachment = AttachmentID(high: try reader.read(), low: try reader.read())
        try reader.end()
        return Preface(
            role: role, protection: protection, stream: stream, attachment: attachment, lowestVersion: lowest, highestVersion: highest)
    }

    /// The highest version that both this preface and this build speak.
    public func commonVersion() throws(WireError) -> UInt16 {
        guard lowestVersion <= Self.version, highestVersion >= Self.version else {
            throw WireError(.unsupportedVersion, value: UInt64(highestVersion), limit: UInt64(Self.version), offset: 8)
        }
        return Self.version
    }
}

// Control messages: what travels on the control stream after its preface. All integers are little-endian.
//
//   message = bodyBytes u32 (at most Limits.controlBodyBytes) | type u16 | 0 u16 | body
//
// Order, source (S) and target (T):
//   S preface ─ T Welcome ─ S Keys, if the line is protected ─ S Offer ─ T Readiness, if it is not ready ─ T Offered | Refused ─
//   T OlderPages, if it has older copies ─ frames of pages and blocks on the data streams, with S Ping / T Pong and that T Readiness
//   meanwhile ─ S pauses the machine, the last frames, those of the device state ─ S Handoff ─ T Committed | Refused ─ S Confirmed ─
//   S Digests ─ T Verified
//
// A cut line ends the attachment, not the session: the source connects again and says Offer with the same session; Offered
// tells what has arrived, and only what is missing is sent. Somebody who wants to know what became of an epoch says Query
// in place of Offer and hears Resolution; a source that could not say Confirmed in time says it there.
//
// With the first byte of Handoff the source has given up the right to run the machine. Nothing that the source does
// between pause and Handoff waits for the target, and the target resumes without asking back. Until Handoff either side
// ends the session by Abort, and the machine runs on at the source. After it only Refused gives the right back.

internal import TurntableCore

public enum ControlMessage: Equatable, Sendable {
    case welcome(Welcome)
    case offer(Offer)
    case offered(Offered)
    case refused(Refusal)
    case ping(UInt64)
    case pong(Pong)
    case handoff(Handoff)
    case committed(Committed)
    case abort(String)
    case digests(Digests)
    case verified(Verified)
    case query(Query)
    case resolution(Resolution)
    case keys(Keys)
    /// The source's journal says COMMITTED, on disk.
    case confirmed(Query)
    /// Of a region that the target has an older copy of.
    case olderPages(OlderPages)
    /// Whether the target's host has everything to run the machine but memory and state. Unsaid, it has. The source pauses the machine when
    /// it has, or has waited for long enough.
    case readiness(Bool)
    /// Of a program that the target runs for the source, on a control stream of its own.
    case program(ProgramMessage)
}

extension ControlMessage {
    public static let headerBytes = 8

    enum Kind: UInt16, CaseIterable {
        case welcome = 1, offer, offered, refused, ping, pong, handoff, committed, abort, digests, verified, query, resolution,
            keys, confirmed, olderPages, program, readiness
    }

    /// The message with its header, ready to send.
    public func encoded() -> [UInt8] {
        var body = MessageWriter()
        let kind: Kind
        switch self {
        case .welcome(let welcome): kind = body.append(welcome, .welcome)
        case .offer(let offer): kind = body.append(offer, .offer)
        case .offered(let offered): kind = body.append(offered, .offered)
        case .refused(let refusal): kind = body.append(refusal, .refused)
        case .ping(let stamp):
            kind = .ping
            body.append(stamp)
        case .pong(let pong): kind = body.append(pong, .pong)
        case .handoff(let handoff): kind = body.append(handoff, .handoff)
        case .committed(let committed): kind = body.append(committed, .committed)
        case .abort(let reason):
            kind = .abort
            body.append(text: reason.limited(to: Limits.reasonBytes))
        case .digests(let digests): kind = body.append(digests, .digests)
        case .verified(let verified): kind = body.append(verified, .verified)
        case .query(let query): kind = body.append(query, .query)
        case .resolution(let resolution): kind = body.append(resolution, .resolution)
        case .keys(let keys): kind = body.append(keys, .keys)
        case .confirmed(let query): kind = body.append(query, .confirmed)
        case .olderPages(let pages): kind = body.append(pages, .olderPages)
        case .readiness(let isReady):
            kind = .readiness
            body.append(flag: isReady)
        case .program(let program): kind = body.append(program, .program)
        }
        var message = MessageWriter()
        message.append(UInt32(body.bytes.count))
        message.append(kind.rawValue)
        message.append(UInt16(0))
        message.append(raw: body.bytes)
        return message.bytes
    }

    /// Reads a message header: the bytes of the body that follows, and its type for ``decode(type:body:)``.
    public static func decodeHeader(_ bytes: [UInt8]) throws(WireError) -> (bodyBytes: Int, type: UInt16) {
        var reader = MessageReader(bytes)
        let length = try reader.readCount(atMost: Limits.controlBodyBytes)
        let type: UInt16 = try reader.read()
        _ = try kind(type)
        let reserved: UInt16 = try reader.read()
        guard reserved == 0 else { throw WireError(.reservedNotZero, value: UInt64(reserved), limit: 0, offset: 6) }
        try reader.end()
        return (length, type)
    }

    private static func kind(_ type: UInt16) throws(WireError) -> Kind {
        guard let kind = Kind(rawValue: type) else {
            throw WireError(.unknownKind, value: UInt64(type), limit: UInt64(Kind.allCases.count), offset: 4)
        }
        return kind
    }

    public static func decode(type: UInt16, body: [UInt8]) throws(WireError) -> ControlMessage {
        let kind = try kind(type)
        var reader = MessageReader(body)
        let message: ControlMessage =
            switch kind {
            case .welcome: .welcome(try Welcome(from: &reader))
            case .offer: .offer(try Offer(from: &reader))
            case .offered: .offered(try Offered(from: &reader))
            case .refused: .refused(try Refusal(from: &reader))
            case .ping: .ping(try reader.read())
            case .pong: .pong(try Pong(from: &reader))
            case .handoff: .handoff(try Handoff(from: &reader))
            case .committed: .committed(try Committed(from: &reader))
            case .abort: .abort(try reader.readText(atMost: Limits.reasonBytes))
            case .digests: .digests(try Digests(from: &reader))
            case .verified: .verified(try Verified(from: &reader))
            case .query: .query(try Query(from: &reader))
            case .resolution: .resolution(try Resolution(from: &reader))
            case .keys: .keys(try Keys(from: &reader))
            case .confirmed: .confirmed(try Query(from: &reader))
            case .readiness: .readiness(try reader.readFlag())
            case .olderPages: .olderPages(try OlderPages(from: &reader))
            case .program: .program(try ProgramMessage(from: &reader))
            }
        try reader.end()
        return message
    }
}

extension MessageWriter {
    fileprivate mutating func append(_ body: any MessageBody, _ kind: ControlMessage.Kind) -> ControlMessage.Kind {
        body.write(to: &self)
        return kind
    }
}

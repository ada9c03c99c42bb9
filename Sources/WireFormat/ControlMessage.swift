// Control messages: what travels on the control stream after its preface. All integers are little-endian.
//
//   message = bodyBytes u32 (at most Limits.controlBodyBytes) | type u16 | 0 u16 | body
//
// Order, source (S) and target (T):
//   S preface ─ T Welcome ─ S Offer ─ T Offered | Refused ─ page frames on the data streams, with S Ping / T Pong
//   meanwhile ─ S pauses the machine, last page frames, device-state frames ─ S Handoff ─ T Committed | Refused
//
// With the first byte of Handoff the source has given up the right to run the machine. Nothing that the source does
// between pause and Handoff waits for the target, and the target resumes without asking back. Until Handoff either side
// ends the session by Abort, or by closing the stream, and the machine runs on at the source.

public import TurntableCore

public enum ControlMessage: Equatable, Sendable {
    case welcome(Welcome)
    case offer(Offer)
    case offered(Epoch)
    case refused(Refusal)
    case ping(UInt64)
    case pong(UInt64)
    case handoff(Handoff)
    case committed(Committed)
    case abort(String)
}

/// The target's answer to a control preface.
public struct Welcome: Equatable, Sendable {
    public var version: UInt16
    /// What the data streams of this connection must name.
    public var attachment: AttachmentID
    public init(version: UInt16, attachment: AttachmentID) {
        self.version = version
        self.attachment = attachment
    }
}

/// What the source wants to move: enough for the target to check it and to prepare everything before the pause.
public struct Offer: Equatable, Sendable {
    public struct Region: Equatable, Sendable {
        public var name: String
        public var bytes: UInt64
        public init(name: String, bytes: UInt64) {
            self.name = name
            self.bytes = bytes
        }
    }
    /// Memory that holds data at the source, in stripes: what the target may populate before the pages arrive.
    public struct Population: Equatable, Sendable {
        public var region: UInt16
        public var firstStripe: UInt32
        public var stripeCount: UInt32
        public init(region: UInt16, firstStripe: UInt32, stripeCount: UInt32) {
            self.region = region
            self.firstStripe = firstStripe
            self.stripeCount = stripeCount
        }
    }
    public static let maximumPopulations = 4096

    public var session: SessionID
    /// The epoch in which the target would run the machine.
    public var epoch: Epoch
    public var machine: String
    public var streams: UInt16
    public var regions: [Region]
    public var populations: [Population]
    /// The adapter's description of the machine; opaque here.
    public var description: [UInt8]

    public init(
        session: SessionID, epoch: Epoch, machine: String, streams: UInt16, regions: [Region], populations: [Population],
        description: [UInt8]
    ) {
        self.session = session
        self.epoch = epoch
        self.machine = machine
        self.streams = streams
        self.regions = regions
        self.populations = populations
        self.description = description
    }
}

/// A no, with its reason. After Handoff only this gives the right to run back.
public struct Refusal: Equatable, Sendable {
    public var epoch: Epoch
    public var reason: String
    public init(epoch: Epoch, reason: String) {
        self.epoch = epoch
        self.reason = reason
    }
}

/// The right to run passes to the target when every stream has reached its number.
public struct Handoff: Equatable, Sendable {
    public var epoch: Epoch
    public var session: SessionID
    /// Frames sent on each stream, which is the sequence number after the last.
    public var frames: [UInt64]
    public var deviceStateBytes: UInt64
    public init(epoch: Epoch, session: SessionID, frames: [UInt64], deviceStateBytes: UInt64) {
        self.epoch = epoch
        self.session = session
        self.frames = frames
        self.deviceStateBytes = deviceStateBytes
    }
}

/// The machine runs at the target; how long each step after the hand-off's arrival took there.
public struct Committed: Equatable, Sendable {
    public var epoch: Epoch
    public var waitedForStreams: Nanoseconds
    public var loadedDeviceState: Nanoseconds
    public var resumed: Nanoseconds
    public init(epoch: Epoch, waitedForStreams: Nanoseconds, loadedDeviceState: Nanoseconds, resumed: Nanoseconds) {
        self.epoch = epoch
        self.waitedForStreams = waitedForStreams
        self.loadedDeviceState = loadedDeviceState
        self.resumed = resumed
    }
}

extension ControlMessage {
    public static let headerBytes = 8

    private enum Kind: UInt16 {
        case welcome = 1, offer, offered, refused, ping, pong, handoff, committed, abort
    }

    /// The message with its header, ready to send.
    public func encoded() -> [UInt8] {
        var body = MessageWriter()
        let kind: Kind
        switch self {
        case .welcome(let welcome):
            kind = .welcome
            body.append(welcome.version)
            body.append(welcome.attachment)
        case .offer(let offer):
            kind = .offer
            body.append(offer.session)
            body.append(offer.epoch.value)
            body.append(text: offer.machine)
            body.append(offer.streams)
            body.append(UInt32(offer.regions.count))
            for region in offer.regions {
                body.append(text: region.name)
                body.append(region.bytes)
            }
            body.append(UInt32(offer.populations.count))
            for population in offer.populations {
                body.append(population.region)
                body.append(population.firstStripe)
                body.append(population.stripeCount)
            }
            body.append(bytes: offer.description)
        case .offered(let epoch):
            kind = .offered
            body.append(epoch.value)
        case .refused(let refusal):
            kind = .refused
            body.append(refusal.epoch.value)
            body.append(text: refusal.reason.limited(to: Limits.reasonBytes))
        case .ping(let stamp):
            kind = .ping
            body.append(stamp)
        case .pong(let stamp):
            kind = .pong
            body.append(stamp)
        case .handoff(let handoff):
            kind = .handoff
            body.append(handoff.epoch.value)
            body.append(handoff.session)
            body.append(UInt32(handoff.frames.count))
            for count in handoff.frames { body.append(count) }
            body.append(handoff.deviceStateBytes)
        case .committed(let committed):
            kind = .committed
            body.append(committed.epoch.value)
            body.append(committed.waitedForStreams.value)
            body.append(committed.loadedDeviceState.value)
            body.append(committed.resumed.value)
        case .abort(let reason):
            kind = .abort
            body.append(text: reason.limited(to: Limits.reasonBytes))
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
        guard Kind(rawValue: type) != nil else {
            throw WireError(.unknownKind, value: UInt64(type), limit: UInt64(Kind.abort.rawValue), offset: 4)
        }
        let reserved: UInt16 = try reader.read()
        guard reserved == 0 else { throw WireError(.reservedNotZero, value: UInt64(reserved), limit: 0, offset: 6) }
        try reader.end()
        return (length, type)
    }

    public static func decode(type: UInt16, body: [UInt8]) throws(WireError) -> ControlMessage {
        guard let kind = Kind(rawValue: type) else {
            throw WireError(.unknownKind, value: UInt64(type), limit: UInt64(Kind.abort.rawValue), offset: 4)
        }
        var reader = MessageReader(body)
        let message: ControlMessage
        switch kind {
        case .welcome:
            message = .welcome(Welcome(version: try reader.read(), attachment: try reader.readID()))
        case .offer:
            message = .offer(try Offer(from: &reader))
        case .offered:
            message = .offered(Epoch(try reader.read()))
        case .refused:
            message = .refused(Refusal(epoch: Epoch(try reader.read()), reason: try reader.readText(atMost: Limits.reasonBytes)))
        case .ping:
            message = .ping(try reader.read())
        case .pong:
            message = .pong(try reader.read())
        case .handoff:
            let epoch = Epoch(try reader.read())
            let session: SessionID = try reader.readID()
            var frames: [UInt64] = []
            for _ in 0..<(try reader.readCount(atMost: Limits.streams)) { frames.append(try reader.read()) }
            let position = reader.offset
            let deviceBytes: UInt64 = try reader.read()
            guard deviceBytes <= Limits.deviceStateBytes else {
                throw WireError(.tooLong, value: deviceBytes, limit: UInt64(Limits.deviceStateBytes), offset: position)
            }
            message = .handoff(Handoff(epoch: epoch, session: session, frames: frames, deviceStateBytes: deviceBytes))
        case .committed:
            message = .committed(
                Committed(
                    epoch: Epoch(try reader.read()), waitedForStreams: Nanoseconds(try reader.read()),
                    loadedDeviceState: Nanoseconds(try reader.read()), resumed: Nanoseconds(try reader.read())))
        case .abort:
            message = .abort(try reader.readText(atMost: Limits.reasonBytes))
        }
        try reader.end()
        return message
    }
}

extension Offer {
    fileprivate init(from reader: inout MessageReader) throws(WireError) {
        session = try reader.readID()
        epoch = Epoch(try reader.read())
        machine = try reader.readText(atMost: Limits.nameBytes)
        let streamsAt = reader.offset
        streams = try reader.read()
        guard streams > 0, streams <= Limits.streams else {
            throw WireError(.tooMany, value: UInt64(streams), limit: UInt64(Limits.streams), offset: streamsAt)
        }
        regions = []
        for _ in 0..<(try reader.readCount(atMost: Limits.regions)) {
            let name = try reader.readText(atMost: Limits.nameBytes)
            let position = reader.offset
            let bytes: UInt64 = try reader.read()
            let most = UInt64(Limits.regionPages) * UInt64(pageBytes)
            guard bytes > 0, bytes <= most, bytes % UInt64(pageBytes) == 0 else {
                throw WireError(.tooLong, value: bytes, limit: most, offset: position)
            }
            regions.append(Region(name: name, bytes: bytes))
        }
        populations = []
        for _ in 0..<(try reader.readCount(atMost: Self.maximumPopulations)) {
            let position = reader.offset
            let population = Population(region: try reader.read(), firstStripe: try reader.read(), stripeCount: try reader.read())
            guard population.region < regions.count else {
                throw WireError(.badRegion, value: UInt64(population.region), limit: UInt64(regions.count), offset: position)
            }
            let stripes =
                (regions[Int(population.region)].bytes / UInt64(pageBytes) + UInt64(Limits.stripePages) - 1) / UInt64(Limits.stripePages)
            guard UInt64(population.firstStripe) + UInt64(population.stripeCount) <= stripes else {
                throw WireError(.outsideMemory, value: UInt64(population.firstStripe), limit: stripes, offset: position)
            }
            populations.append(population)
        }
        description = try reader.readBytes(atMost: Limits.descriptionBytes)
    }
}

extension MessageWriter {
    fileprivate mutating func append<Named>(_ identifier: RandomID<Named>) {
        append(identifier.high)
        append(identifier.low)
    }
}

extension MessageReader {
    fileprivate mutating func readID<Named>() throws(WireError) -> RandomID<Named> { RandomID(high: try read(), low: try read()) }
}

extension String {
    /// Shortened to at most `limit` bytes of UTF-8, at a character's end.
    fileprivate func limited(to limit: Int) -> String {
        var text = self
        while text.utf8.count > limit { text.removeLast() }
        return text
    }
}

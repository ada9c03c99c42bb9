// The bodies of control messages, field by field in the order in which they are written.

public import TurntableCore

protocol MessageBody {
    init(from reader: inout MessageReader) throws(WireError)
    func write(to writer: inout MessageWriter)
}

/// The target's answer to a control preface.
public struct Welcome: Equatable, Sendable, MessageBody {
    public var version: UInt16
    /// What the data streams of this connection must name.
    public var attachment: AttachmentID
    /// A fresh public key that the secret of this attachment is agreed on with; empty on a line without protection.
    public var keyShare: [UInt8]
    public init(version: UInt16 = Preface.version, attachment: AttachmentID, keyShare: [UInt8] = []) {
        self.version = version
        self.attachment = attachment
        self.keyShare = keyShare
    }

    init(from reader: inout MessageReader) throws(WireError) {
        version = try reader.read()
        attachment = try reader.readID()
        keyShare = try reader.readBytes(atMost: Keys.mostBytes)
    }
    func write(to writer: inout MessageWriter) {
        writer.append(version)
        writer.append(attachment)
        writer.append(bytes: keyShare)
    }
}

/// The source's answer to the key share: with it both ends know the secret of the attachment (Protection/SessionSecret.swift).
public struct Keys: Equatable, Sendable, MessageBody {
    static let mostBytes = 64

    /// A key encapsulated for the target's key share.
    public var encapsulated: [UInt8]
    public var nonce: [UInt8]
    public init(encapsulated: [UInt8], nonce: [UInt8]) {
        self.encapsulated = encapsulated
        self.nonce = nonce
    }

    init(from reader: inout MessageReader) throws(WireError) {
        encapsulated = try reader.readBytes(atMost: Self.mostBytes)
        nonce = try reader.readBytes(atMost: Self.mostBytes)
    }
    func write(to writer: inout MessageWriter) {
        writer.append(bytes: encapsulated)
        writer.append(bytes: nonce)
    }
}

/// The target's answer to an offer: the machine's shell waits, and its memory is populated.
public struct Offered: Equatable, Sendable, MessageBody {
    public var epoch: Epoch
    public var host: HostID
    /// Frames of each stream that arrived on earlier attachments of this session; empty if nothing of it is here.
    public var received: [UInt64]
    /// What each region, of memory and then of disks, reads as; empty if something of the session is here.
    public var contents: [TargetContent]
    public init(epoch: Epoch, host: HostID, received: [UInt64], contents: [TargetContent] = []) {
        self.epoch = epoch
        self.host = host
        self.received = received
        self.contents = contents
    }

    init(from reader: inout MessageReader) throws(WireError) {
        epoch = Epoch(try reader.read())
        host = try reader.readID()
        received = try reader.readCounts(atMost: Limits.streams)
        contents = []
        for _ in 0..<(try reader.readCount(atMost: Limits.regions)) { contents.append(try reader.readEnum(atMost: TargetContent.older.rawValue)) }
    }
    func write(to writer: inout MessageWriter) {
        writer.append(epoch.value)
        writer.append(host)
        writer.append(counts: received)
        writer.append(UInt32(contents.count))
        for content in contents { writer.append(content.rawValue) }
    }
}

/// A no, with its reason. After Handoff only this gives the right to run back.
public struct Refusal: Equatable, Sendable, MessageBody {
    public var epoch: Epoch
    public var reason: String
    /// Over JournalRecord.signedBytes of the refusal; empty on a line without protection.
    public var signature: [UInt8]
    public init(epoch: Epoch, reason: String, signature: [UInt8] = []) {
        self.epoch = epoch
        self.reason = reason
        self.signature = signature
    }

    init(from reader: inout MessageReader) throws(WireError) {
        epoch = Epoch(try reader.read())
        reason = try reader.readText(atMost: Limits.reasonBytes)
        signature = try reader.readBytes(atMost: JournalRecord.signatureBytes)
    }
    func write(to writer: inout MessageWriter) {
        writer.append(epoch.value)
        writer.append(text: reason.limited(to: Limits.reasonBytes))
        writer.append(bytes: signature)
    }
}

/// The answer to a ping.
public struct Pong: Equatable, Sendable, MessageBody {
    /// The ping's.
    public var stamp: UInt64
    /// Frames of each stream that have arrived, over all attachments of the session.
    public var received: [UInt64]
    public init(stamp: UInt64, received: [UInt64]) {
        self.stamp = stamp
        self.received = received
    }

    init(from reader: inout MessageReader) throws(WireError) {
        stamp = try reader.read()
        received = try reader.readCounts(atMost: Limits.streams)
    }
    func write(to writer: inout MessageWriter) {
        writer.append(stamp)
        writer.append(counts: received)
    }
}

/// The right to run passes to the target when every stream has reached its number.
public struct Handoff: Equatable, Sendable, MessageBody {
    public var epoch: Epoch
    public var session: SessionID
    /// The one it is said on: said again on another it means nothing, since the device state went with it.
    public var attachment: AttachmentID
    /// Frames sent on each stream, over all attachments of the session.
    public var frames: [UInt64]
    public var deviceStateBytes: UInt64
    public init(epoch: Epoch, session: SessionID, attachment: AttachmentID, frames: [UInt64], deviceStateBytes: UInt64) {
        self.epoch = epoch
        self.session = session
        self.attachment = attachment
        self.frames = frames
        self.deviceStateBytes = deviceStateBytes
    }

    init(from reader: inout MessageReader) throws(WireError) {
        epoch = Epoch(try reader.read())
        session = try reader.readID()
        attachment = try reader.readID()
        frames = try reader.readCounts(atMost: Limits.streams)
        let position = reader.offset
        deviceStateBytes = try reader.read()
        guard deviceStateBytes <= Limits.deviceStateBytes else {
            throw WireError(.tooLong, value: deviceStateBytes, limit: UInt64(Limits.deviceStateBytes), offset: position)
        }
    }
    func write(to writer: inout MessageWriter) {
        writer.append(epoch.value)
        writer.append(session)
        writer.append(attachment)
        writer.append(counts: frames)
        writer.append(deviceStateBytes)
    }
}

/// The machine runs at the target; how long each step after the hand-off's arrival took there.
public struct Committed: Equatable, Sendable, MessageBody {
    public var epoch: Epoch
    public var waitedForStreams: Nanoseconds
    public var loadedDeviceState: Nanoseconds
    public var resumed: Nanoseconds
    public init(
        epoch: Epoch, waitedForStreams: Nanoseconds = .zero, loadedDeviceState: Nanoseconds = .zero, resumed: Nanoseconds = .zero
    ) {
        self.epoch = epoch
        self.waitedForStreams = waitedForStreams
        self.loadedDeviceState = loadedDeviceState
        self.resumed = resumed
    }

    init(from reader: inout MessageReader) throws(WireError) {
        epoch = Epoch(try reader.read())
        waitedForStreams = Nanoseconds(try reader.read())
        loadedDeviceState = Nanoseconds(try reader.read())
        resumed = Nanoseconds(try reader.read())
    }
    func write(to writer: inout MessageWriter) {
        writer.append(epoch.value)
        writer.append(waitedForStreams.value)
        writer.append(loadedDeviceState.value)
        writer.append(resumed.value)
    }
}

/// What the source's final memory is, as digests of stripes next to each other.
public struct Digests: Equatable, Sendable, MessageBody {
    /// Stripes in one message.
    public static let maximumStripes = 1 << 14

    public var region: UInt16
    public var firstStripe: UInt32
    public var stripes: [UInt64]
    /// Nothing follows.
    public var isLast: Bool
    public init(region: UInt16, firstStripe: UInt32, stripes: [UInt64], isLast: Bool) {
        self.region = region
        self.firstStripe = firstStripe
        self.stripes = stripes
        self.isLast = isLast
    }

    init(from reader: inout MessageReader) throws(WireError) {
        region = try reader.read()
        firstStripe = try reader.read()
        stripes = try reader.readCounts(atMost: Self.maximumStripes)
        isLast = try reader.readFlag()
    }
    func write(to writer: inout MessageWriter) {
        writer.append(region)
        writer.append(firstStripe)
        writer.append(counts: stripes)
        writer.append(flag: isLast)
    }
}

/// What the comparison of ``Digests`` with what arrived gave.
public struct Verified: Equatable, Sendable, MessageBody {
    /// Differences named in one message.
    public static let maximumExamples = 16

    public struct Stripe: Equatable, Sendable {
        public var region: UInt16
        public var stripe: UInt32
        public init(region: UInt16, stripe: UInt32) {
            self.region = region
            self.stripe = stripe
        }
    }
    public var epoch: Epoch
    public var stripesCompared: UInt64
    public var stripesDiffering: UInt64
    /// The first of those that differ.
    public var examples: [Stripe]
    public init(epoch: Epoch, stripesCompared: UInt64, stripesDiffering: UInt64, examples: [Stripe]) {
        self.epoch = epoch
        self.stripesCompared = stripesCompared
        self.stripesDiffering = stripesDiffering
        self.examples = examples
    }

    init(from reader: inout MessageReader) throws(WireError) {
        epoch = Epoch(try reader.read())
        stripesCompared = try reader.read()
        stripesDiffering = try reader.read()
        examples = []
        for _ in 0..<(try reader.readCount(atMost: Self.maximumExamples)) {
            examples.append(Stripe(region: try reader.read(), stripe: try reader.read()))
        }
    }
    func write(to writer: inout MessageWriter) {
        writer.append(epoch.value)
        writer.append(stripesCompared)
        writer.append(stripesDiffering)
        writer.append(UInt32(examples.count))
        for example in examples {
            writer.append(example.region)
            writer.append(example.stripe)
        }
    }
}

/// Names an epoch: asks a target what became of it, or tells it that its answer is on disk at the source.
public struct Query: Equatable, Sendable, MessageBody {
    public var machine: String
    public var epoch: Epoch
    public var session: SessionID
    public init(machine: String, epoch: Epoch, session: SessionID) {
        self.machine = machine
        self.epoch = epoch
        self.session = session
    }

    init(from reader: inout MessageReader) throws(WireError) {
        machine = try reader.readText(atMost: Limits.nameBytes)
        epoch = Epoch(try reader.read())
        session = try reader.readID()
    }
    func write(to writer: inout MessageWriter) {
        writer.append(text: machine)
        writer.append(epoch.value)
        writer.append(session)
    }
}

/// What became of an epoch, as far as the target's journal can tell.
public struct Resolution: Equatable, Sendable, MessageBody {
    public enum State: UInt8, Sendable, CaseIterable {
        /// The target owns the machine.
        case committed = 1
        /// The target never ran it and never will: the source has the right to run, under the next epoch.
        case refused
        /// It cannot be told: the target's host was restarted since, or its journal knows nothing of it.
        case unknown
        /// Nothing is decided: what the target has of the machine waits for the source to go on.
        case waiting
    }
    public var epoch: Epoch
    public var host: HostID
    public var state: State
    public var detail: String
    /// Of a refusal: as in ``Refusal``.
    public var signature: [UInt8]
    public init(epoch: Epoch, host: HostID, state: State, detail: String, signature: [UInt8] = []) {
        self.epoch = epoch
        self.host = host
        self.state = state
        self.detail = detail
        self.signature = signature
    }

    init(from reader: inout MessageReader) throws(WireError) {
        epoch = Epoch(try reader.read())
        host = try reader.readID()
        let position = reader.offset
        let raw: UInt8 = try reader.read()
        guard let state = State(rawValue: raw) else {
            throw WireError(.unknownKind, value: UInt64(raw), limit: UInt64(State.waiting.rawValue), offset: position)
        }
        self.state = state
        detail = try reader.readText(atMost: Limits.reasonBytes)
        signature = try reader.readBytes(atMost: JournalRecord.signatureBytes)
    }
    func write(to writer: inout MessageWriter) {
        writer.append(epoch.value)
        writer.append(host)
        writer.append(state.rawValue)
        writer.append(text: detail.limited(to: Limits.reasonBytes))
        writer.append(bytes: signature)
    }
}

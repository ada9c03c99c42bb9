// The hand-off journal: what a host remembers of the right to run one machine. All integers are little-endian.
//
//   journal = magic "TTJOURN\n" | version u32 | 0 u32 | record...
//   record  = bodyBytes u32 (at most JournalRecord.bodyBytes) | XXH3-64 of the body u64 | body
//   body    = role u8 | kind u8 | epoch u64 | session (16 bytes) | host (16 bytes) | boot (16 bytes) | unix seconds i64
//             | peer text | detail text | signature bytes
//
// Records are only ever appended. Which of them are durable before they count, and what the absence of one proves, is the
// hand-off's rule: see docs/promise.md.

public import TurntableCore

/// Names a host by what its journals' directory remembers: the same host with other journals is another one.
public typealias HostID = RandomID<NamedHost>
/// The kernel's own name for the time since it booted.
public typealias BootID = RandomID<NamedBoot>
public enum NamedHost: Sendable {}
public enum NamedBoot: Sendable {}

public struct JournalRecord: Equatable, Sendable {
    /// Which end of the migration wrote it.
    public enum Role: UInt8, Sendable, CaseIterable {
        case source = 1
        case target = 2
    }
    public enum Kind: UInt8, Sendable, CaseIterable {
        /// Source: the machine is offered under this epoch. Durable before the offer is sent.
        case offer = 1
        /// Target: it waits for the machine under this epoch. Durable before it says so.
        case offered
        /// Source: the right to run is given away. Written before the hand-off's first byte.
        case handoff
        /// Target: the machine is all here and is about to run. Written before it runs. Source: the target said so.
        case committed
        /// Target: it never ran this epoch and never will. Durable before it says so. Source: the target said so.
        case refused
        /// Source: given up before the hand-off.
        case withdrawn
        /// Source: whoever fenced the target's host says that nothing runs there under this epoch any more, and that no client
        /// can have seen it. Durable before it counts, which it then does as a refusal. ``detail`` names who states it.
        case fenced
        /// The same, but clients may have seen the epoch: what waits here is older than that, and does not run again.
        case fencedSeen
        /// The machine is started from its disk under this epoch. Durable before it runs.
        case started
        /// Target: COMMITTED is on disk at the source too, which takes no fence any more: the machine may be started here.
        case confirmed
    }

    public var role: Role
    public var kind: Kind
    public var epoch: Epoch
    public var session: SessionID
    /// The other end's host, once it is known.
    public var host: HostID
    public var boot: BootID
    /// For people; nothing is decided by it.
    public var unixSeconds: Int64
    /// The other end: its address, or the name in its certificate.
    public var peer: String
    public var detail: String
    /// Over ``signedBytes(machine:)``, by whoever states it; empty on a line without protection.
    public var signature: [UInt8]

    public init(
        role: Role, kind: Kind, epoch: Epoch, session: SessionID, host: HostID = .none, boot: BootID = .none, unixSeconds: Int64 = 0,
        peer: String = "", detail: String = "", signature: [UInt8] = []
    ) {
        self.role = role
        self.kind = kind
        self.epoch = epoch
        self.session = session
        self.host = host
        self.boot = boot
        self.unixSeconds = unixSeconds
        self.peer = peer
        self.detail = detail
        self.signature = signature
    }

    static let magic: [UInt8] = Array("TTJOURN\n".utf8)
    public static let version: UInt32 = 1
    /// Bytes of a record's body, at most.
    public static let bodyBytes = 8192
    static let headerBytes = 12
    public static let signatureBytes = 1024

    /// The bytes with which a journal begins.
    public static var fileHeader: [UInt8] {
        var writer = MessageWriter()
        writer.append(raw: magic)
        writer.append(version)
        writer.append(UInt32(0))
        return writer.bytes
    }

    /// The record as it stands in the file.
    public func encoded(digest: ([UInt8]) -> UInt64) -> [UInt8] {
        var body = MessageWriter()
        body.append(role.rawValue)
        body.append(kind.rawValue)
        body.append(epoch.value)
        body.append(session)
        body.append(host)
        body.append(boot)
        body.append(unixSeconds)
        body.append(text: peer.limited(to: Limits.nameBytes))
        body.append(text: detail.limited(to: Limits.reasonBytes))
        body.append(bytes: signature)
        var record = MessageWriter()
        record.append(UInt32(body.bytes.count))
        record.append(digest(body.bytes))
        record.append(raw: body.bytes)
        return record.bytes
    }

    /// What a statement about an epoch signs: kind, machine, epoch and session; of a fence also who states it.
    public func signedBytes(machine: String) -> [UInt8] {
        var writer = MessageWriter()
        writer.append(raw: Array("turntable statement 1\n".utf8))
        writer.append(kind.rawValue)
        writer.append(text: machine)
        writer.append(epoch.value)
        writer.append(session)
        if kind == .fenced || kind == .fencedSeen { writer.append(text: detail.limited(to: Limits.reasonBytes)) }
        return writer.bytes
    }

    fileprivate init(body: [UInt8]) throws(WireError) {
        var reader = MessageReader(body)
        let rawRole: UInt8 = try reader.read()
        let rawKind: UInt8 = try reader.read()
        guard let role = Role(rawValue: rawRole), let kind = Kind(rawValue: rawKind) else {
            throw WireError(.unknownKind, value: UInt64(rawRole) << 8 | UInt64(rawKind), limit: UInt64(Kind.confirmed.rawValue), offset: 0)
        }
        self.role = role
        self.kind = kind
        epoch = Epoch(try reader.read())
        session = try reader.readID()
        host = try reader.readID()
        boot = try reader.readID()
        unixSeconds = try reader.read()
        peer = try reader.readText(atMost: Limits.nameBytes)
        detail = try reader.readText(atMost: Limits.reasonBytes)
        signature = try reader.readBytes(atMost: Self.signatureBytes)
        try reader.end()
    }
}

/// What a journal's bytes hold.
public struct JournalContents: Equatable, Sendable {
    public var records: [JournalRecord] = []
    /// Bytes that count. What follows them is an append that a crash tore: it never counted, for nothing was said because of it.
    public var validBytes = 0

    /// - Throws: if a record that is not the last is damaged: then nothing that follows can be told from what never was.
    public init(_ bytes: [UInt8], digest: ([UInt8]) -> UInt64) throws(WireError) {
        let header = JournalRecord.fileHeader
        guard bytes.count >= header.count else {
            // The file's own first write was torn.
            guard header.starts(with: bytes) || bytes.allSatisfy({ $0 == 0 }) else {
                throw WireError(.badMagic, value: UInt64(bytes.first ?? 0), limit: UInt64(header[0]), offset: 0)
            }
            return
        }
        guard bytes.starts(with: header) else {
            // The first write's first block may not have come to the disk; nothing but that write was there then.
            let begun = zip(bytes, header).prefix { $0 == $1 }.count
            let isTorn = bytes[begun..<header.count].allSatisfy { $0 == 0 }
            guard isTorn, try Self.nextWhole(bytes, from: header.count, digest) == nil else {
                throw WireError(.badMagic, value: UInt64(bytes[0]), limit: UInt64(header[0]), offset: 0)
            }
            return
        }
        validBytes = header.count
        while validBytes < bytes.count {
            guard let end = try readRecord(bytes, digest) else { return }
            validBytes = end
        }
    }

    /// Reads the record at ``validBytes``; where it ends, or nil if a crash tore it.
    private mutating func readRecord(_ bytes: [UInt8], _ digest: ([UInt8]) -> UInt64) throws(WireError) -> Int? {
        if let (body, end) = try Self.whole(bytes, at: validBytes, digest) {
            records.append(try JournalRecord(body: body))
            return end
        }
        // A crash may leave any of the last write's blocks unwritten, or make the file longer without its bytes. But if a whole
        // record follows, what was written before it was damaged later.
        if let start = try Self.nextWhole(bytes, from: validBytes + 1, digest) {
            throw WireError(.badDigest, value: UInt64(bytes[validBytes]), limit: UInt64(start), offset: validBytes)
        }
        return nil
    }

    /// Where the first whole record at or after `start` begins.
    private static func nextWhole(_ bytes: [UInt8], from start: Int, _ digest: ([UInt8]) -> UInt64) throws(WireError) -> Int? {
        for start in start..<max(bytes.count, start) where try whole(bytes, at: start, digest) != nil { return start }
        return nil
    }

    /// The body of the record that begins at `start`, and where it ends; nil if none does.
    private static func whole(
        _ bytes: [UInt8], at start: Int, _ digest: ([UInt8]) -> UInt64
    ) throws(WireError) -> (body: [UInt8], end: Int)? {
        let bodyStart = start + JournalRecord.headerBytes
        guard bodyStart <= bytes.count else { return nil }
        var reader = MessageReader(Array(bytes[start..<bodyStart]))
        let count = Int(try reader.read(UInt32.self))
        guard count > 0, count <= JournalRecord.bodyBytes, bodyStart + count <= bytes.count else { return nil }
        let body = Array(bytes[bodyStart..<bodyStart + count])
        return digest(body) == (try reader.read(UInt64.self)) ? (body, bodyStart + count) : nil
    }
}

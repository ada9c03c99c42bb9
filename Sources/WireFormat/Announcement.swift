// What a target tells the keepers of a machine's address when it takes the machine over: one datagram, always of the same size. All
// integers are little-endian.
//
//   announcement = magic "TTARRIVE" | version u16 | site u16 | 0 u32 | machine (32 bytes: SHA-256 of its name) | epoch u64
//                  | unix nanoseconds i64 | HMAC-SHA-256 of all that precedes, by the endpoint's key (32 bytes)
//
// States of a keeper, for each machine: the highest epoch it has believed, and the site named in it.
//
//   MAC wrong, or no such machine        nothing changes
//   epoch at or below the highest        nothing changes
//   epoch above the highest              the address is at that site from now on
//
// Nothing is answered. The target says it at 0, 5, 20 and 80 ms; a keeper passes it on as it came, for it proves itself. The time is
// for people: nothing is decided by it.
//
// A keeper's record of a machine is the announcements that it believed, one after the other, as they came.

public import TurntableCore

public struct Announcement: Equatable, Sendable {
    public static let bytes = 96
    public static let version: UInt16 = 1
    /// Of the machine's digest, and of the MAC.
    public static let digestBytes = 32
    static let magic: [UInt8] = Array("TTARRIVE".utf8)

    /// Which of the endpoint's sites: its place in the list that all keepers have alike.
    public var site: UInt16
    /// SHA-256 of the machine's name.
    public var machine: [UInt8]
    public var epoch: Epoch
    public var unixNanoseconds: Int64

    public init(site: UInt16, machine: [UInt8], epoch: Epoch, unixNanoseconds: Int64) {
        self.site = site
        self.machine = machine
        self.epoch = epoch
        self.unixNanoseconds = unixNanoseconds
    }

    /// What the MAC is of, and precedes it in the datagram.
    public var signedBytes: [UInt8] {
        var writer = MessageWriter()
        writer.append(raw: Self.magic)
        writer.append(Self.version)
        writer.append(site)
        writer.append(UInt32(0))
        writer.append(raw: machine)
        writer.append(epoch.value)
        writer.append(unixNanoseconds)
        return writer.bytes
    }

    /// Reads a datagram; whether its MAC is right is for whoever has the key to say.
    public static func decode(_ datagram: [UInt8]) throws(WireError) -> (announcement: Announcement, mac: [UInt8]) {
        guard datagram.count <= bytes else {
            throw WireError(.trailingBytes, value: UInt64(datagram.count - bytes), limit: 0, offset: bytes)
        }
        var reader = MessageReader(datagram)
        guard try reader.read(raw: magic.count) == magic else {
            throw WireError(.badMagic, value: UInt64(datagram[0]), limit: UInt64(magic[0]), offset: 0)
        }
        let spoken: UInt16 = try reader.read()
        guard spoken == version else {
            throw WireError(.unsupportedVersion, value: UInt64(spoken), limit: UInt64(version), offset: 8)
        }
        let site: UInt16 = try reader.read()
        guard site < Limits.endpointSites else {
            throw WireError(.tooMany, value: UInt64(site), limit: UInt64(Limits.endpointSites), offset: 10)
        }
        let reserved: UInt32 = try reader.read()
        guard reserved == 0 else { throw WireError(.reservedNotZero, value: UInt64(reserved), limit: 0, offset: 12) }
        let machine = try reader.read(raw: digestBytes)
        let epoch = Epoch(try reader.read())
        let announcement = Announcement(site: site, machine: machine, epoch: epoch, unixNanoseconds: try reader.read())
        return (announcement, try reader.read(raw: digestBytes))
    }
}

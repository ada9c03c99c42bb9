// How two helpers find each other: by a greeting in the one-way stream that libxl has laid between them. To Xen's own helper it
// is the beginning of a stream of its own with a record that it may skip, so that each end can tell what the other is:
//
//   image header: all ones u64 | "XENF" | version 3 u32 | options u16 (0: little endian) | zeroes, 6 bytes        big endian
//   domain header: type u32 (1: PV, 2: HVM and PVH) | page shift u16 (12) | zero u16 | Xen's version: major u32, minor u32
//   record: type u32 (ours, with the bit that lets it be skipped) | length u32 | body | zeroes up to a multiple of 8
//   body: "TURNTABL" | version u16 | token (16 bytes) | port u16 | addresses: count u32, texts | is last u8 | is PV u8
//
// The source listens at those addresses on that port; the target's helper connects, and says
//
//   "TURNTABL" | version u16 | token | port u16 | port of the disks u16
//
// The ports are those that it receives on, at the address that it is seen from; that of the disks is 0 where none of a PV domain's can come. An end
// that meets nobody serves Xen's own. A PV domain then goes as Xen's own stream (LibxcStream.swift), the others by the engine.

package import TurntableCore

package struct StreamGreeting: Equatable {
    static let version: UInt16 = 4
    /// Of Xen: the only one whose save helper's messages and libraries the helper is made for.
    package static let xen = (major: 4, minor: 17)
    static let magic = Array("TURNTABL".utf8)
    static let recordType: UInt32 = 0x8000_0000 | 0x5454
    package static let tokenBytes = 16
    /// Image header and domain header: what Xen's own helper begins with as well.
    package static let headerBytes = 24 + 16
    /// As much as tells whose stream it is.
    package static let prefixBytes = headerBytes + 8

    package var token: [UInt8]
    package var port: UInt16
    package var addresses: [String]
    /// libxl has nothing more to say of the domain than that its stream ends: there is no device model.
    package var isLast: Bool
    /// Xen's own helpers do the work at both ends, and the two that meet carry what they say.
    package var isPV: Bool

    private var headers: [UInt8] {
        var writer = MessageWriter()
        writer.append(raw: Self.beginning)
        writer.append(UInt32(3).bigEndian)
        writer.append(raw: [UInt8](repeating: 0, count: 8))
        writer.append(UInt32(isPV ? 1 : 2))
        writer.append(UInt16(12))
        writer.append(UInt16(0))
        writer.append(UInt32(Self.xen.major))
        writer.append(UInt32(Self.xen.minor))
        return writer.bytes
    }
    /// What every stream begins with: marker and name.
    private static let beginning: [UInt8] = [UInt8](repeating: 0xff, count: 8) + Array("XENF".utf8)

    package func encoded() -> [UInt8] {
        var body = MessageWriter()
        body.append(raw: Self.magic)
        body.append(Self.version)
        body.append(raw: token)
        body.append(port)
        body.append(UInt32(addresses.count))
        for address in addresses { body.append(text: address) }
        body.append(flag: isLast)
        body.append(flag: isPV)
        var writer = MessageWriter()
        writer.append(raw: headers)
        writer.append(Self.recordType)
        writer.append(UInt32(body.bytes.count))
        writer.append(raw: body.bytes + [UInt8](repeating: 0, count: (8 - body.bytes.count % 8) % 8))
        return writer.bytes
    }

    /// The length of the record's body with what fills it up, if a stream that begins like this is ours; nil if it is Xen's.
    package static func recordBytes(after prefix: [UInt8]) throws(TurntableError) -> Int? {
        guard prefix.count >= prefixBytes, Array(prefix.prefix(beginning.count)) == beginning else { return nil }
        var reader = MessageReader(Array(prefix[headerBytes..<prefixBytes]))
        guard let type: UInt32 = try? reader.read(), let length: UInt32 = try? reader.read(), type == recordType else { return nil }
        guard length <= Limits.xenGreetingBytes else {
            throw TurntableError(.protocol, "the greeting in libxl's stream", "it has \(length) bytes, the limit is \(Limits.xenGreetingBytes)")
        }
        return (Int(length) + 7) / 8 * 8
    }

    /// The first greeting in a stream that begins with `bytes`, and where it ends; nil if it has not come whole.
    package static func find(in bytes: [UInt8]) throws(TurntableError) -> (greeting: StreamGreeting, end: Int)? {
        for start in bytes.indices where bytes[start] == beginning[0] && bytes.count - start >= prefixBytes {
            let body = start + prefixBytes
            guard let count = try recordBytes(after: Array(bytes[start..<body])) else { continue }
            guard bytes.count - body >= count else { return nil }
            return (try StreamGreeting(decoding: Array(bytes[body..<body + count])), body + count)
        }
        return nil
    }

    package init(token: [UInt8], port: UInt16, addresses: [String], isLast: Bool, isPV: Bool = false) {
        (self.token, self.port, self.addresses, self.isLast, self.isPV) = (token, port, addresses, isLast, isPV)
    }

    /// From a record's body.
    package init(decoding body: [UInt8]) throws(TurntableError) {
        do throws(WireError) {
            var reader = MessageReader(body)
            try Self.readHead(&reader)
            token = try reader.read(raw: Self.tokenBytes)
            port = try reader.read()
            addresses = []
            for _ in 0..<(try reader.readCount(atMost: Limits.xenAddresses)) { addresses.append(try reader.readText(atMost: Limits.nameBytes)) }
            isLast = try reader.readFlag()
            isPV = try reader.readFlag()
        } catch { throw Self.failure(error) }
    }

    /// The target's answer.
    package struct Answer: Equatable {
        package static let bytes = StreamGreeting.magic.count + 2 + StreamGreeting.tokenBytes + 4
        package var token: [UInt8]
        package var port: UInt16
        package var disksPort: UInt16

        package init(token: [UInt8], port: UInt16, disksPort: UInt16 = 0) { (self.token, self.port, self.disksPort) = (token, port, disksPort) }

        package func encoded() -> [UInt8] {
            var writer = MessageWriter()
            writer.append(raw: StreamGreeting.magic)
            writer.append(StreamGreeting.version)
            writer.append(raw: token)
            writer.append(port)
            writer.append(disksPort)
            return writer.bytes
        }

        package init(decoding bytes: [UInt8]) throws(TurntableError) {
            do throws(WireError) {
                var reader = MessageReader(bytes)
                try StreamGreeting.readHead(&reader)
                token = try reader.read(raw: StreamGreeting.tokenBytes)
                port = try reader.read()
                disksPort = try reader.read()
                try reader.end()
            } catch { throw StreamGreeting.failure(error) }
        }
    }

    private static func readHead(_ reader: inout MessageReader) throws(WireError) {
        let found = try reader.read(raw: magic.count)
        guard found == magic else { throw WireError(.unknownKind, value: UInt64(found[0]), limit: UInt64(magic[0]), offset: 0) }
        let version: UInt16 = try reader.read()
        guard version == Self.version else { throw WireError(.unknownKind, value: UInt64(version), limit: UInt64(Self.version), offset: 8) }
    }

    private static func failure(_ error: WireError) -> TurntableError {
        TurntableError(.protocol, "the greeting of the other helper", error.description, remedy: "use the same version on both hosts")
    }
}

// What the target's host needs to know of a domain before its memory comes; libxl has told it the rest.
//
//   description = version u16 | frames u64 | runs: count u32, then (first u64, count u64) each | rings: store u64, console u64
//                 | processor policy: length u32, bytes | volumes: count u32, then (length u32, bytes) each, in the offer's order of disks

internal import TurntableCore
internal import WireFormat

struct XenDescription: Equatable {
    static let version: UInt16 = 3
    /// Of the physical memory's address space.
    var frames: Int
    /// Frames that have memory behind them, in order.
    var runs: [Range<Int>]
    var rings: XenRings
    var processorPolicy: [UInt8]
    /// By what LVM knows the volumes that go along: a target that has one of them sees the same storage.
    var volumes: [String]

    init(frames: Int, runs: [Range<Int>], rings: XenRings, processorPolicy: [UInt8], volumes: [String]) {
        (self.frames, self.runs, self.rings, self.processorPolicy, self.volumes) = (frames, runs, rings, processorPolicy, volumes)
    }

    func encoded() -> [UInt8] {
        var writer = MessageWriter()
        writer.append(Self.version)
        writer.append(UInt64(frames))
        writer.append(UInt32(runs.count))
        for run in runs {
            writer.append(UInt64(run.lowerBound))
            writer.append(UInt64(run.count))
        }
        writer.append(rings.store)
        writer.append(rings.console)
        writer.append(bytes: processorPolicy)
        writer.append(UInt32(volumes.count))
        for volume in volumes { writer.append(text: volume) }
        return writer.bytes
    }

    init(decoding bytes: [UInt8]) throws(TurntableError) {
        do throws(WireError) {
            var reader = MessageReader(bytes)
            let version: UInt16 = try reader.read()
            guard version == Self.version else { throw WireError(.unknownKind, value: UInt64(version), limit: UInt64(Self.version), offset: 0) }
            frames = try Self.number(&reader, atMost: Limits.regionPages)
            runs = []
            var end = 0
            for _ in 0..<(try reader.readCount(atMost: Limits.xenRuns)) {
                let first = try Self.number(&reader, atMost: frames)
                let count = try Self.number(&reader, atMost: frames - first)
                guard first >= end, count > 0 else { throw WireError(.badText, value: UInt64(first), limit: UInt64(end), offset: reader.offset) }
                end = first + count
                runs.append(first..<end)
            }
            rings = XenRings(
                store: UInt64(try Self.number(&reader, atMost: frames)), console: UInt64(try Self.number(&reader, atMost: frames)))
            processorPolicy = try reader.readBytes(atMost: Limits.xenPolicyBytes)
            volumes = []
            for _ in 0..<(try reader.readCount(atMost: Limits.regions)) {
                volumes.append(try reader.readText(atMost: Limits.nameBytes))
            }
            try reader.end()
        } catch {
            throw TurntableError(.protocol, "the description of the domain", error.description)
        }
    }

    private static func number(_ reader: inout MessageReader, atMost limit: Int) throws(WireError) -> Int {
        let value: UInt64 = try reader.read()
        guard value <= UInt64(limit) else { throw WireError(.tooLong, value: value, limit: UInt64(limit), offset: reader.offset) }
        return Int(value)
    }
}

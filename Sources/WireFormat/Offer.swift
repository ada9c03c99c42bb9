public import TurntableCore

/// When the target compares what arrived with what the source says its memory was at the end.
public enum Verification: UInt8, Sendable, CaseIterable {
    case off = 0
    /// Before the machine runs: a difference stops the hand-off, and the comparison is part of the blackout.
    case before
    /// While it runs already: a difference is reported.
    case after
}

/// What the source wants to move: enough for the target to check it and to prepare everything before the pause.
public struct Offer: Equatable, Sendable, MessageBody {
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
    /// A disk that comes along.
    public struct Disk: Equatable, Sendable {
        public var name: String
        /// A multiple of 512.
        public var bytes: UInt64
        public init(name: String, bytes: UInt64) {
            self.name = name
            self.bytes = bytes
        }
    }

    public var session: SessionID
    /// The epoch in which the target would run the machine.
    public var epoch: Epoch
    public var machine: String
    public var streams: UInt16
    public var regions: [Region]
    public var populations: [Population]
    public var disks: [Disk]
    public var verification: Verification
    /// How long both ends keep what they have when the line is cut.
    public var resumeWindow: Nanoseconds
    /// The right to run was given to the target already: it is told again what it may not have heard.
    public var isHandedOff: Bool
    /// The adapter's description of the machine; opaque here.
    public var description: [UInt8]
    /// Permission for the move (Capability), which the target may demand; opaque here, empty if there is none.
    public var token: [UInt8]

    public init(
        session: SessionID, epoch: Epoch, machine: String, streams: UInt16, regions: [Region], populations: [Population],
        disks: [Disk] = [], verification: Verification = .off, resumeWindow: Nanoseconds = .zero, isHandedOff: Bool = false, description: [UInt8],
        token: [UInt8] = []
    ) {
        self.session = session
        self.epoch = epoch
        self.machine = machine
        self.streams = streams
        self.regions = regions
        self.populations = populations
        self.disks = disks
        self.verification = verification
        self.resumeWindow = resumeWindow
        self.isHandedOff = isHandedOff
        self.description = description
        self.token = token
    }

    func write(to writer: inout MessageWriter) {
        writer.append(session)
        writer.append(epoch.value)
        writer.append(text: machine)
        writer.append(streams)
        writer.append(UInt32(regions.count))
        for region in regions {
            writer.append(text: region.name)
            writer.append(region.bytes)
        }
        writer.append(UInt32(populations.count))
        for population in populations {
            writer.append(population.region)
            writer.append(population.firstStripe)
            writer.append(population.stripeCount)
        }
        writer.append(UInt32(disks.count))
        for disk in disks {
            writer.append(text: disk.name)
            writer.append(disk.bytes)
        }
        writer.append(verification.rawValue)
        writer.append(resumeWindow.value)
        writer.append(flag: isHandedOff)
        writer.append(bytes: description)
        writer.append(bytes: token)
    }

    init(from reader: inout MessageReader) throws(WireError) {
        session = try reader.readID()
        epoch = Epoch(try reader.read())
        machine = try reader.readText(atMost: Limits.nameBytes)
        let streamsAt = reader.offset
        streams = try reader.read()
        guard streams > 0, streams <= Limits.streams else {
            throw WireError(.tooMany, value: UInt64(streams), limit: UInt64(Limits.streams), offset: streamsAt)
        }
        regions = try Self.readRegions(from: &reader)
        populations = try Self.readPopulations(from: &reader, regions)
        disks = try Self.readDisks(from: &reader, regions: regions.count)
        verification = try reader.readEnum(atMost: Verification.after.rawValue)
        resumeWindow = Nanoseconds(try reader.read())
        isHandedOff = try reader.readFlag()
        description = try reader.readBytes(atMost: Limits.descriptionBytes)
        token = try reader.readBytes(atMost: Limits.tokenBytes)
    }

    private static func readRegions(from reader: inout MessageReader) throws(WireError) -> [Region] {
        var regions: [Region] = []
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
        return regions
    }

    private static func readDisks(from reader: inout MessageReader, regions: Int) throws(WireError) -> [Disk] {
        var disks: [Disk] = []
        for _ in 0..<(try reader.readCount(atMost: Limits.regions - regions)) {
            let name = try reader.readText(atMost: Limits.nameBytes)
            let position = reader.offset
            let bytes: UInt64 = try reader.read()
            guard bytes > 0, bytes <= Limits.diskBytes, bytes % 512 == 0 else {
                throw WireError(.tooLong, value: bytes, limit: UInt64(Limits.diskBytes), offset: position)
            }
            disks.append(Disk(name: name, bytes: bytes))
        }
        return disks
    }

    private static func readPopulations(from reader: inout MessageReader, _ regions: [Region]) throws(WireError) -> [Population] {
        var populations: [Population] = []
        for _ in 0..<(try reader.readCount(atMost: maximumPopulations)) {
            let position = reader.offset
            let population = Population(region: try reader.read(), firstStripe: try reader.read(), stripeCount: try reader.read())
            guard population.region < regions.count else {
                throw WireError(.badRegion, value: UInt64(population.region), limit: UInt64(regions.count), offset: position)
            }
            let stripeBytes = UInt64(pageBytes * Limits.stripePages)
            let stripes = (regions[Int(population.region)].bytes + stripeBytes - 1) / stripeBytes
            guard UInt64(population.firstStripe) + UInt64(population.stripeCount) <= stripes else {
                throw WireError(.outsideMemory, value: UInt64(population.firstStripe), limit: stripes, offset: position)
            }
            populations.append(population)
        }
        return populations
    }
}

// The disk of a host, as the engine sees it: a source that is written while it is read, and a sink that writes behind. What is in it
// outlives processes, machines and, once it was flushed, the host.

internal import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

final class Volume: @unchecked Sendable {
    static let pages = 300
    /// The last page reaches beyond the end.
    static let size = ByteCount(pages * pageBytes - 512)
    static let name = "v"
    static let chunkPages = 2

    let content: SimulatedMemory
    /// What is on its way to it, stripe by stripe.
    fileprivate let buffers: SimulatedMemory
    private(set) unowned var host: SimulatedHost
    private var marks = PageBitmap(pages: PageCount(pages))
    /// Written by a sink, and not flushed since.
    fileprivate(set) var isVolatile = false
    /// Written by a machine or a sink.
    fileprivate(set) var isUsed = false
    fileprivate(set) var isFrozen = false

    init(_ host: SimulatedHost) {
        self.host = host
        content = host.world.memories.take([Self.pages])
        buffers = host.world.memories.take([Self.pages])
        // Written by their address.
        buffers.touch(0..<Self.pages)
    }

    func mark(_ page: Int) {
        isUsed = true
        marks.insert(page..<page + 1)
    }
    fileprivate func clearMarks() { marks.remove(0..<Self.pages) }
    fileprivate func markedChunks(clearing: Bool) -> ChunkSet {
        let set = ChunkSet(size: Self.size, chunkBytes: Self.chunkPages * pageBytes)
        marks.forEachRun { set.insert($0.lowerBound / Self.chunkPages..<($0.upperBound - 1) / Self.chunkPages + 1) }
        if clearing { clearMarks() }
        return set
    }
    fileprivate func everything() -> ChunkSet {
        let set = ChunkSet(size: Self.size, chunkBytes: Self.chunkPages * pageBytes)
        content.forEachPopulatedRun(in: RegionIndex(0)) { set.insert($0.lowerBound / Self.chunkPages..<($0.upperBound - 1) / Self.chunkPages + 1) }
        return set
    }
    fileprivate func address(_ range: Range<Int>) -> UnsafeMutableRawPointer { content.base + range.lowerBound }
}

/// What a process reads of it. The changes are told by marks that outlive the process, if the plan says so.
final class SimulatedBlockSource: BlockSource, @unchecked Sendable {
    let name = Volume.name
    let size = Volume.size
    let chunkBytes = Volume.chunkPages * pageBytes
    let lastDeltaTime = Nanoseconds.milliseconds(1)
    private let volume: Volume
    private var lost: String?
    private var world: World { volume.host.world }

    init(_ volume: Volume) { self.volume = volume }

    func begin() -> ChunkSet {
        world.at(.freeze, volume.host)
        volume.clearMarks()
        volume.isFrozen = true
        lost = nil
        let all = volume.everything()
        world.at(.frozen, volume.host)
        return all
    }

    func takeUp() -> Bool {
        world.at(.freeze, volume.host)
        return volume.isFrozen && world.plan.dirtyLogOutlivesProcess
    }

    func nextDelta() -> BlockChanges {
        world.at(.freeze, volume.host)
        world.scheduler.sleep(.milliseconds(Double(world.chance.pick(1..<400))))
        if let reason = lost {
            lost = nil
            volume.clearMarks()
            return BlockChanges(volume.everything(), lossReason: reason)
        }
        let changed = volume.markedChunks(clearing: true)
        // The marks are gone, and nobody else has them yet.
        world.at(.frozen, volume.host)
        if world.plan.losesDeltasOnceIn > 0, world.chance.once(in: world.plan.losesDeltasOnceIn) { lost = "the snapshot overflowed" }
        return BlockChanges(changed)
    }

    func lastDelta() -> BlockChanges {
        world.at(.freeze, volume.host)
        if volume.host.machine?.stage == .running { world.fail("the last delta of a running machine's disk is asked for") }
        // The marks stay: the machine may run on, and then they are told again.
        let changed = volume.markedChunks(clearing: false)
        if let reason = lost {
            lost = nil
            return BlockChanges(volume.everything(), lossReason: reason)
        }
        world.at(.frozen, volume.host)
        if world.plan.mutation == .missesLastBlocks { return BlockChanges(ChunkSet(size: size, chunkBytes: chunkBytes)) }
        return BlockChanges(changed)
    }

    func changedBytes() -> ByteCount { volume.markedChunks(clearing: false).bytes }

    func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError) {
        world.at(.readBlocks, volume.host)
        if let lost { throw TurntableError(.unsupported, "reading the volume", lost) }
        buffer.copyMemory(from: UnsafeRawBufferPointer(start: volume.address(range), count: range.count))
    }
    func lossReason() -> String? { lost }
    func end() {
        world.at(.freeze, volume.host)
        volume.isFrozen = false
    }
}

/// What a process writes to it, on threads of its own, which end with it.
final class SimulatedBlockSink: BlockSink, @unchecked Sendable {
    let name = Volume.name
    let size = Volume.size
    private let volume: Volume
    private let process: SimulatedProcess
    private struct State {
        var claimed: Set<Int> = []
        var failure: TurntableError?
    }
    private let state = Monitor(State())
    private var world: World { volume.host.world }

    init(_ volume: Volume, _ process: SimulatedProcess) { (self.volume, self.process) = (volume, process) }

    var isZeroed: Bool { !volume.isUsed }

    func claim(_ range: Range<Int>) throws(TurntableError) -> BlockBuffer {
        let stripe = range.lowerBound / (Limits.stripePages * pageBytes)
        while true {
            let result = state.wait(atMost: .seconds(100)) { state -> Result<Void, TurntableError>? in
                if let failure = state.failure { return .failure(failure) }
                return state.claimed.insert(stripe).inserted ? .success(()) : nil
            }
            guard let result else { throw TurntableError(.unsupported, "writing the volume", "it takes nothing") }
            try result.get()
            return BlockBuffer(index: stripe, range: range, address: volume.buffers.base + range.lowerBound)
        }
    }

    func submit(_ buffer: BlockBuffer, _ parts: [BlockPart], done: @escaping @Sendable (TurntableError?) -> Void) {
        if world.plan.mutation == .countsUnwrittenBlocks { done(nil) }
        world.scheduler.add("blocks", process) { [self] in
            world.scheduler.sleep(.microseconds(world.chance.pick(50..<30_000)))
            world.at(.writeBlocks, volume.host)
            volume.isUsed = true
            volume.isVolatile = true
            if world.faults.takeFailure(.failWrite) {
                let failure = TurntableError(.unsupported, "writing the volume", "it failed")
                state.update { $0.failure = $0.failure ?? failure }
            }
            let failure = state.read { $0.failure }
            for part in parts where failure == nil { write(part, buffer) }
            state.update { $0.claimed.remove(buffer.index) }
            world.at(.wroteBlocks, volume.host)
            if world.plan.mutation != .countsUnwrittenBlocks { done(failure) }
        }
    }

    private func write(_ part: BlockPart, _ buffer: BlockBuffer) {
        let target = volume.address(part.range)
        volume.content.touch(part.range.pagesOfBytes)
        if part.isZero {
            target.initializeMemory(as: UInt8.self, repeating: 0, count: part.range.count)
        } else {
            target.copyMemory(from: buffer.address + (part.range.lowerBound - buffer.range.lowerBound), byteCount: part.range.count)
        }
    }

    func abandon(_ buffer: BlockBuffer) { state.update { $0.claimed.remove(buffer.index) } }
    func zero(_ range: Range<Int>) { world.fail("the engine zeroes by extents") }
    func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) {
        world.at(.readBlocks, volume.host)
        buffer.copyMemory(from: UnsafeRawBufferPointer(start: volume.address(range), count: range.count))
    }

    func flush(_ progress: BlockProgress) throws(TurntableError) {
        world.at(.sync, volume.host)
        let result = state.wait(atMost: .seconds(100)) { state -> Result<Void, TurntableError>? in
            if let failure = state.failure { return .failure(failure) }
            return state.claimed.isEmpty ? .success(()) : nil
        }
        try result?.get()
        world.scheduler.sleep(.microseconds(world.chance.pick(50..<5000)))
        volume.isVolatile = false
        world.at(.synced, volume.host)
    }
}

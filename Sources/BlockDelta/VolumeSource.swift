public import TurntableCore
internal import TurntableLinux

/// A logical volume that is in use, as a source of blocks. It is frozen by snapshots, one after another:
///
///     begin      snapshot 1 is made                                              read from 1
///     nextDelta  snapshot 2 is made; what 1 saved is what was written since 1    read from 2
///     settle     1 is removed
///     lastDelta  no snapshot: what the last one saved, and the volume itself     read from the volume
///
/// Snapshot n saves on, until it is removed, what is written after n+1 was made. That is only more than needed, and it is in
/// n+1 as well. For a thin volume the pool's metadata say where two snapshots differ.
///
/// A process that takes up what a killed one left goes on from the oldest snapshot there is: what it saved covers all that the other
/// may have learnt and not noted.
///
/// When a snapshot overflows the volume is not disturbed, but the changes are lost: ``BlockChanges/lossReason`` then says so, and
/// everything is copied again.
///
/// Unchecked: what changes does so in the calls that one thread makes while nothing is read (``BlockSource``).
public final class VolumeSource: BlockSource, @unchecked Sendable {
    public let origin: LogicalVolume
    public let name: String
    public let chunkBytes: Int
    public var size: ByteCount { origin.size }
    public private(set) var lastDeltaTime: Nanoseconds
    /// Bytes read to find out what changed, by the last call that did.
    public private(set) var deltaBytesRead = 0

    private let snapshots: Snapshots
    private let pool: ThinPool?
    private var frozen: Snapshots.Frozen?
    /// The one before, until what changed since is noted.
    private var superseded: Snapshots.Frozen?
    /// The volume itself, once nobody writes it.
    private var stopped: DirectFile?
    private var isBegun = false
    /// Of a thin volume's pool: what it used when the changes that are counted began, and what of them was before that.
    private var poolBlocks = (atFirst: 0, before: 0)

    /// - Parameters:
    ///   - volume: GROUP/VOLUME.
    ///   - name: what the machine calls it.
    ///   - copy: for whom it is copied: a machine. A process that takes up what another left says the same.
    ///   - chunkBytes: of a classic snapshot. Small ones copy less, large ones keep the store's tables short.
    ///   - watching: told when a store is extended, or cannot be.
    public init(
        _ volume: String, as name: String, for copy: String, lvm: LVM, chunkBytes: Int = 64 << 10, watching report: (@Sendable (String) -> Void)? = nil
    ) throws(TurntableError) {
        let origin = try lvm.volume(volume)
        let what = "copying \(origin.fullName)"
        guard origin.isActive else {
            throw TurntableError(.refused, what, "it is not active", remedy: "`lvchange -ay \(origin.fullName)`")
        }
        // Linear and striped volumes, origins of other snapshots, mirrors, raids and thin volumes.
        guard "-omrRV".contains(origin.kind) else {
            throw TurntableError(.unsupported, what, "volumes of LVM's kind \"\(origin.kind)\" have no snapshots that could be read")
        }
        guard
            origin.isThin || (Limits.snapshotChunkBytes.contains(chunkBytes) && chunkBytes.nonzeroBitCount == 1 && chunkBytes <= 512 << 10)
        else { throw TurntableError(.usage, what, "chunks of \(ByteCount(chunkBytes))", remedy: "a power of two from 4K to 512K") }
        pool = origin.isThin ? ThinPool(of: origin) : nil
        self.chunkBytes = try pool?.blockBytes() ?? chunkBytes
        guard origin.size.value / self.chunkBytes < Limits.diskChunks else {
            throw TurntableError(.unsupported, what, "\(origin.size) in chunks of \(ByteCount(self.chunkBytes))", remedy: "choose larger chunks")
        }
        self.origin = origin
        self.name = name
        lastDeltaTime = origin.isThin ? Limits.assumedThinDeltaTime : Limits.assumedDeltaTime
        snapshots = Snapshots(of: origin, copy: copy, lvm: lvm, chunkBytes: chunkBytes, report: report)
    }

    deinit { try? end() }

    public func begin() throws(TurntableError) -> ChunkSet {
        precondition(frozen == nil, "begin() is called once")
        isBegun = true
        // Of an earlier process, with which nobody goes on.
        try snapshots.removeAll()
        let first = try snapshots.make(isUntold: true)
        frozen = first
        let content = try wholeContent(first)
        try restartCount()
        return content
    }

    public func takeUp() throws(TurntableError) -> Bool {
        precondition(frozen == nil, "takeUp() is called instead of begin()")
        isBegun = true
        try pool?.releaseLeftover()
        let existing = try snapshots.existing()
        guard let oldest = existing.first, let adopted = try snapshots.adopt(oldest) else {
            try snapshots.removeAll()
            return false
        }
        frozen = adopted
        for newer in existing.dropFirst() { try snapshots.remove(newer) }
        guard try isReadable(adopted) else {
            frozen = nil
            try snapshots.discard(adopted)
            return false
        }
        try restartCount()
        return true
    }

    public func settle() throws(TurntableError) {
        if let frozen { try snapshots.markTold(frozen) }
        guard let old = superseded else { return }
        try countBlocks()
        superseded = nil
        try snapshots.discard(old)
        try pool.map { (pool) throws(TurntableError) in poolBlocks.atFirst = try pool.usedBlocks() }
    }

    public func nextDelta() throws(TurntableError) -> BlockChanges {
        try settle()
        stopped = nil
        let before = try current()
        if let reason = loss(of: before) {
            // Of no more use, and the next one needs the room.
            frozen = nil
            try snapshots.discard(before)
            let after = try snapshots.make(isUntold: true)
            frozen = after
            let content = try wholeContent(after)
            try restartCount()
            return BlockChanges(content, lossReason: reason)
        }
        let began = Clock.now
        // The less is cached, the shorter the moment for which the volume is suspended.
        try DirectFile(origin.devicePath).sync()
        let synced = Clock.now
        let after = try snapshots.make(isUntold: false)
        let made = Clock.now
        let changed: BlockChanges
        do throws(TurntableError) {
            try restartCount()
            changed = try changes(from: before, to: after.volume)
        } catch {
            // What changed since the older one is not told: that one stays.
            try? snapshots.discard(after)
            throw error
        }
        lastDeltaTime = (synced - began) + (Clock.now - made)
        frozen = after
        superseded = before
        return changed
    }

    public func lastDelta() throws(TurntableError) -> BlockChanges {
        let began = Clock.now
        let before = try current()
        let volume = try DirectFile(origin.devicePath)
        // What was written through the page cache is written now: only then has the snapshot saved what it replaces.
        try volume.sync()
        let changed = try changes(from: before, to: origin)
        stopped = volume
        lastDeltaTime = Clock.now - began
        return changed
    }

    public func changedBytes() throws(TurntableError) -> ByteCount {
        let before = try current()
        if let pool {
            return ByteCount(min(size.value, (poolBlocks.before + max(0, try pool.usedBlocks() - poolBlocks.atFirst)) * chunkBytes))
        }
        guard case .used(let used, of: _, let table) = try DeviceMapper.snapshotStatus(of: before.volume.deviceName()) else { return size }
        return ByteCount(min(size.value, max(0, used.value - table.value)))
    }

    public func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError) {
        let snapshot = try current()
        guard let file = stopped ?? snapshot.file else { preconditionFailure("a snapshot that is being removed is not read") }
        try unsafe file.read(at: range.lowerBound, into: buffer)
    }

    public func lossReason() -> String? { stopped != nil ? nil : frozen.flatMap { loss(of: $0) } }

    public func end() throws(TurntableError) {
        stopped = nil
        guard isBegun else { return }
        for old in [superseded, frozen] { if let old { try? snapshots.discard(old) } }
        (superseded, frozen) = (nil, nil)
        // What could not be removed just now, and what LVM made before its helper died.
        try snapshots.removeAll()
        isBegun = false
    }

    private func current() throws(TurntableError) -> Snapshots.Frozen {
        guard let frozen else {
            throw TurntableError(.unsupported, "reading \(origin.fullName)", "it has no snapshot: an earlier step failed")
        }
        return frozen
    }
}

// MARK: - Changes

extension VolumeSource {
    private func wholeContent(_ frozen: Snapshots.Frozen) throws(TurntableError) -> ChunkSet {
        if let pool { return try pool.mapped(frozen.volume) }
        let everything = ChunkSet(size: size, chunkBytes: chunkBytes)
        everything.insertAll()
        return everything
    }

    private func changes(from before: Snapshots.Frozen, to after: LogicalVolume) throws(TurntableError) -> BlockChanges {
        if let pool { return BlockChanges(try pool.difference(before.volume, after)) }
        if let saved = try savedChunks(by: before.volume) { return BlockChanges(saved) }
        let everything = ChunkSet(size: size, chunkBytes: chunkBytes)
        everything.insertAll()
        return BlockChanges(everything, lossReason: overflow(of: before.volume))
    }

    private func loss(of frozen: Snapshots.Frozen) -> String? {
        guard !origin.isThin, case .invalid? = (try? DeviceMapper.snapshotStatus(of: frozen.volume.deviceName())) ?? nil else { return nil }
        return overflow(of: frozen.volume)
    }

    private func overflow(of snapshot: LogicalVolume) -> String { "the snapshot \(snapshot.fullName) overflowed" }

    /// Whether a snapshot that was found has all that is needed of it, in the chunks that are told here.
    private func isReadable(_ found: Snapshots.Frozen) throws(TurntableError) -> Bool {
        guard pool == nil else { return true }
        guard try DeviceMapper.snapshotStatus(of: found.volume.deviceName()) != nil else { return false }
        let store = try DirectFile("/dev/mapper/" + found.volume.deviceName(layer: "cow"))
        let first = try store.read(at: 0, count: blockAlignment)
        return ((try? ExceptionStoreHeader(decoding: first))?.chunkBytes) == chunkBytes
    }

    /// What a snapshot saved of the volume; nil if that is lost.
    private func savedChunks(by snapshot: LogicalVolume) throws(TurntableError) -> ChunkSet? {
        let device = snapshot.deviceName()
        switch try DeviceMapper.snapshotStatus(of: device) {
        case .invalid: return nil
        case .used: break
        case nil:
            throw TurntableError(
                .unsupported, "asking for the state of \(snapshot.fullName)", "it is gone, or no snapshot any more", remedy: "copy again")
        }
        let store = try DirectFile("/dev/mapper/" + snapshot.deviceName(layer: "cow"))
        let refuse = { (error: ExceptionStoreError) in
            TurntableError(
                .unsupported, "reading what the snapshot \(snapshot.fullName) saved",
                "bad \(error.kind.rawValue) at byte \(error.offset) of its store: \(error.value), limit \(error.limit)")
        }
        let header: ExceptionStoreHeader
        let first = try store.read(at: 0, count: blockAlignment)
        do throws(ExceptionStoreError) { header = try ExceptionStoreHeader(decoding: first) } catch { throw refuse(error) }
        guard header.isValid else { return nil }
        guard header.chunkBytes == chunkBytes else {
            throw refuse(ExceptionStoreError(kind: .chunkSize, value: UInt64(header.chunkBytes), limit: UInt64(chunkBytes), offset: 12))
        }
        var bytesRead = first.count
        let changed = try changedChunks(
            inStoreOf: store.size.value, originBytes: size, header: header,
            read: { (offset, count) throws(TurntableError) in
                bytesRead += count
                return try store.read(at: offset, count: count)
            }, refuse: refuse)
        deltaBytesRead = bytesRead
        // It may have overflowed while it was read.
        if case .invalid? = try DeviceMapper.snapshotStatus(of: device) { return nil }
        return changed
    }

    // MARK: - The count of a thin volume's changes: blocks that its pool has had to give since, to anybody

    /// The snapshot was made just now.
    private func restartCount() throws(TurntableError) {
        guard let pool else { return }
        poolBlocks = (try pool.usedBlocks(), 0)
    }

    /// Before an older snapshot is removed, whose blocks the pool gets back.
    private func countBlocks() throws(TurntableError) {
        guard let pool else { return }
        poolBlocks.before += max(0, try pool.usedBlocks() - poolBlocks.atFirst)
    }
}

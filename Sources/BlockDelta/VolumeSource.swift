public import TurntableCore
internal import TurntableLinux

/// A logical volume that is in use, as a source of blocks. It is frozen by snapshots, one after another:
///
///     begin      snapshot 1 is made                                              read from 1
///     nextDelta  snapshot 2 is made; what 1 saved is what was written since 1    read from 2; 1 is removed
///     lastDelta  no snapshot: what the last one saved, and the volume itself     read from the volume
///
/// Snapshot n saves on, until it is removed, what is written after n+1 was made. That is only more than needed, and it is in
/// n+1 as well. For a thin volume the pool's metadata say where two snapshots differ.
///
/// A snapshot has a store as large as it could ever need, if the group has the room; else half of what is free, which is
/// extended while it fills (``SnapshotWatch``). When it overflows nevertheless the volume is not disturbed, but the changes are
/// lost: ``BlockChanges/lossReason`` then says so, and everything is copied again.
public final class VolumeSource: BlockSource {
    public let origin: LogicalVolume
    public private(set) var chunkBytes: Int
    public var size: ByteCount { origin.size }
    /// Bytes read to find out what changed, by the last call that did.
    public private(set) var deltaBytesRead = 0

    private let lvm: LVM
    private let prefix: String
    private var number = 0
    private var frozen: Frozen?
    /// The volume itself, once nobody writes it.
    private var isLast = false

    /// The content that is read: a snapshot, or at last the volume.
    private final class Frozen {
        let snapshot: LogicalVolume
        /// Nil when it is to be removed: a device that is open cannot be.
        var file: DirectFile?
        let watch: SnapshotWatch?
        init(_ snapshot: LogicalVolume, _ file: DirectFile, _ watch: SnapshotWatch?) {
            self.snapshot = snapshot
            self.file = file
            self.watch = watch
        }
    }

    /// - Parameters:
    ///   - session: distinguishes the snapshots of this copy from others' of the same volume.
    ///   - chunkBytes: of a classic snapshot. Small ones copy less, large ones keep the store's tables short.
    ///   - watching: told when a store is extended, or cannot be.
    public init(
        _ name: String, lvm: LVM, session: String, chunkBytes: Int = 64 << 10, watching report: (@Sendable (String) -> Void)? = nil
    ) throws(TurntableError) {
        let origin = try lvm.volume(name)
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
        guard origin.size.value / chunkBytes < Limits.diskChunks else {
            throw TurntableError(.unsupported, what, "\(origin.size) in chunks of \(ByteCount(chunkBytes))", remedy: "choose larger chunks")
        }
        guard LVM.isName("turntable.\(session)") else {
            throw TurntableError(.usage, what, "\"\(session)\" cannot be part of a volume's name")
        }
        self.origin = origin
        self.lvm = lvm
        self.chunkBytes = chunkBytes
        self.report = report
        prefix = "turntable.\(session)"
    }
    private let report: (@Sendable (String) -> Void)?

    deinit { try? end() }

    public func begin() throws(TurntableError) -> ChunkSet {
        precondition(frozen == nil, "begin() is called once")
        let first = try freeze()
        frozen = first
        let content = try wholeContent(first)
        chunkBytes = content.chunkBytes
        return content
    }

    public func nextDelta() throws(TurntableError) -> BlockChanges {
        let before = try current()
        if let reason = loss(of: before) {
            // Of no more use, and the next one needs the room.
            frozen = nil
            try discard(before)
            let after = try freeze()
            frozen = after
            return BlockChanges(try wholeContent(after), lossReason: reason)
        }
        let after = try freeze()
        // From here on end() removes this one, and the other is removed below, whatever happens.
        frozen = after
        let result: Result<BlockChanges, TurntableError>
        do throws(TurntableError) {
            result = .success(try changes(from: before, to: after.snapshot))
        } catch {
            result = .failure(error)
        }
        // The first error is the one to tell.
        if case .failure = result { try? discard(before) } else { try discard(before) }
        return try result.get()
    }

    public func lastDelta() throws(TurntableError) -> BlockChanges {
        let before = try current()
        let volume = try DirectFile(origin.devicePath)
        // What was written through the page cache is written now: only then has the snapshot saved what it replaces.
        try volume.sync()
        let changed = try changes(from: before, to: origin)
        before.file = volume
        isLast = true
        return changed
    }

    public func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError) {
        try unsafe current().file?.read(at: range.lowerBound, into: buffer)
    }

    public func lossReason() -> String? { isLast ? nil : frozen.flatMap { loss(of: $0) } }

    public func end() throws(TurntableError) {
        if let frozen {
            self.frozen = nil
            try discard(frozen)
        }
        guard number > 0 else { return }
        // And what LVM made before its helper died.
        for leftover in try lvm.tagged() where leftover.group == origin.group && leftover.name.hasPrefix(prefix + ".") {
            try lvm.remove(leftover)
        }
        number = 0
    }

    // MARK: - Snapshots

    private func current() throws(TurntableError) -> Frozen {
        guard let frozen else {
            throw TurntableError(.unsupported, "reading \(origin.fullName)", "it has no snapshot: an earlier step failed")
        }
        return frozen
    }

    private func freeze() throws(TurntableError) -> Frozen {
        number += 1
        let name = "\(prefix).\(number)"
        // What is free may have changed since.
        let now = try lvm.volume(origin.fullName)
        guard !origin.isThin else {
            let snapshot = try lvm.createThinSnapshot(of: now, named: name)
            return try open(snapshot, watch: nil)
        }
        let most = largestStore(extentBytes: now.extentBytes)
        // The first leaves half of the room for the next one, which is made before it can be removed.
        let half = max(now.groupFree.value / 2 / now.extentBytes, number > 1 ? 1 : 0) * now.extentBytes
        let store = ByteCount(min(most.value, half))
        guard store.value > 0, store.value <= now.groupFree.value else {
            throw TurntableError(
                .refused, "making a snapshot of \(origin.fullName)",
                "\(now.groupFree) are free in the volume group \(now.group), and two extents of \(ByteCount(now.extentBytes)) are needed",
                remedy: "add a physical volume with `vgextend`, or remove what is not needed")
        }
        let snapshot = try lvm.createSnapshot(of: now, named: name, store: store, chunkBytes: chunkBytes)
        let watch = store < most ? SnapshotWatch(snapshot, upTo: most, lvm: lvm, report: report) : nil
        return try open(snapshot, watch: watch)
    }

    private func open(_ snapshot: LogicalVolume, watch: SnapshotWatch?) throws(TurntableError) -> Frozen {
        do throws(TurntableError) {
            return Frozen(snapshot, try DirectFile(snapshot.devicePath), watch)
        } catch {
            try? lvm.remove(snapshot)
            throw error
        }
    }

    private func discard(_ old: Frozen) throws(TurntableError) {
        old.watch?.stop()
        old.file = nil
        try lvm.remove(old.snapshot)
    }

    /// A header, every chunk of the volume and a table entry for each: with that nothing can overflow. One extent more for the
    /// tables' rounding.
    private func largestStore(extentBytes: Int) -> ByteCount {
        let chunks = size.value / chunkBytes + 1
        let areas = chunks / (chunkBytes / 16) + 2
        let bytes = (chunks + areas + 1) * chunkBytes
        return ByteCount((bytes / extentBytes + 1) * extentBytes)
    }

    // MARK: - Changes

    private func wholeContent(_ frozen: Frozen) throws(TurntableError) -> ChunkSet {
        if origin.isThin { return try ThinPool(of: origin).mapped(frozen.snapshot) }
        let everything = ChunkSet(size: size, chunkBytes: chunkBytes)
        everything.insertAll()
        return everything
    }

    private func changes(from before: Frozen, to after: LogicalVolume) throws(TurntableError) -> BlockChanges {
        if origin.isThin { return BlockChanges(try ThinPool(of: origin).difference(before.snapshot, after)) }
        if let saved = try savedChunks(by: before.snapshot) { return BlockChanges(saved) }
        let everything = ChunkSet(size: size, chunkBytes: chunkBytes)
        everything.insertAll()
        return BlockChanges(everything, lossReason: overflow(of: before.snapshot))
    }

    private func loss(of frozen: Frozen) -> String? {
        guard !origin.isThin, case .invalid? = (try? DeviceMapper.snapshotStatus(of: frozen.snapshot.deviceName())) ?? nil else {
            return nil
        }
        return overflow(of: frozen.snapshot)
    }

    private func overflow(of snapshot: LogicalVolume) -> String { "the snapshot \(snapshot.fullName) overflowed" }

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
}

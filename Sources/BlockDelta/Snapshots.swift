internal import TurntableCore
internal import TurntableLinux

/// The snapshots that one copy makes of a volume: makes them, finds those of an earlier process again, removes them.
///
/// They are called turntable_COPY.1, turntable_COPY.2 and so on, and carry the tags `turntable`, their owner's, and at first
/// `turntable.untold` if what they hold was not told in terms of an older one.
///
/// A snapshot has a store as large as it could ever need, if the group has the room; else half of what is free, which is
/// extended while it fills (``SnapshotWatch``).
final class Snapshots {
    static let untoldTag = "\(LVM.tag).untold"

    /// A snapshot that can be read.
    final class Frozen {
        let volume: LogicalVolume
        let number: Int
        /// Nil when it is to be removed: a device that is open cannot be.
        fileprivate(set) var file: DirectFile?
        fileprivate let watch: SnapshotWatch?
        var isUntold: Bool

        fileprivate init(_ volume: LogicalVolume, number: Int, _ file: DirectFile, _ watch: SnapshotWatch?, isUntold: Bool) {
            self.volume = volume
            self.number = number
            self.file = file
            self.watch = watch
            self.isUntold = isUntold
        }
    }

    private let origin: LogicalVolume
    private let lvm: LVM
    private let prefix: String
    private let chunkBytes: Int
    private let report: (@Sendable (String) -> Void)?
    private var number = 0

    /// - Parameter copy: what is copied, and for whom; the same in a process that goes on with it.
    init(of origin: LogicalVolume, copy: String, lvm: LVM, chunkBytes: Int, report: (@Sendable (String) -> Void)?) {
        self.origin = origin
        self.lvm = lvm
        self.chunkBytes = chunkBytes
        self.report = report
        // A digest, because a volume's name may be as long as a name can be.
        prefix = "turntable_\(String(Digest.of(Array("\(copy) \(origin.fullName)".utf8)), radix: 16))."
    }

    /// - Parameter isUntold: what it holds is told as a whole, not by what differs from the one before.
    func make(isUntold: Bool) throws(TurntableError) -> Frozen {
        number += 1
        let name = prefix + "\(number)"
        let tags = [SnapshotOwner.own.tag] + (isUntold ? [Self.untoldTag] : [])
        // What is free may have changed since.
        let now = try lvm.volume(origin.fullName)
        let made: LogicalVolume
        var mayOverflow = false
        if origin.isThin {
            made = try lvm.createThinSnapshot(of: now, named: name, tags: tags)
        } else {
            let store = try store(now)
            mayOverflow = store < largestStore(extentBytes: now.extentBytes)
            made = try lvm.createSnapshot(of: now, named: name, store: store, chunkBytes: chunkBytes, tags: tags)
        }
        do throws(TurntableError) {
            return try open(made, number, mayOverflow: mayOverflow, isUntold: isUntold)
        } catch {
            try? lvm.remove(made)
            throw error
        }
    }

    func discard(_ old: Frozen) throws(TurntableError) {
        old.watch?.stop()
        old.file = nil
        try lvm.remove(old.volume)
    }

    func remove(_ volume: LogicalVolume) throws(TurntableError) { try lvm.remove(volume) }

    func markTold(_ frozen: Frozen) throws(TurntableError) {
        guard frozen.isUntold else { return }
        try lvm.retag(frozen.volume, remove: Self.untoldTag)
        frozen.isUntold = false
    }

    /// This copy's, whoever made them, in the order in which they were made. Refuses those of a process that runs.
    func existing() throws(TurntableError) -> [LogicalVolume] {
        let mine = try lvm.tagged().filter { $0.group == origin.group && number(of: $0) != nil }
        for volume in mine {
            guard let owner = SnapshotOwner(tags: volume.tags), owner != .own, owner.isRunning else { continue }
            throw TurntableError(
                .refused, "copying \(origin.fullName)", "process \(owner.process) copies it for the same machine",
                remedy: "wait until it has ended")
        }
        return mine.sorted { (number(of: $0) ?? 0) < (number(of: $1) ?? 0) }
    }

    /// Takes over a snapshot of an earlier process. Nil if it cannot be read any more, or if what it holds was not told.
    func adopt(_ volume: LogicalVolume) throws(TurntableError) -> Frozen? {
        guard !volume.tags.contains(Self.untoldTag), let found = number(of: volume), volume.isActive else { return nil }
        if let owner = SnapshotOwner(tags: volume.tags), owner != .own {
            try lvm.retag(volume, remove: owner.tag, add: SnapshotOwner.own.tag)
        }
        guard let frozen = try? open(volume, found, mayOverflow: !origin.isThin && volume.size < origin.size, isUntold: false) else { return nil }
        number = max(number, found)
        return frozen
    }

    /// Removes all of this copy, also what LVM made before its helper died.
    func removeAll() throws(TurntableError) {
        for leftover in try existing() { try lvm.remove(leftover) }
    }

    private func number(of volume: LogicalVolume) -> Int? {
        volume.name.hasPrefix(prefix) ? Int(volume.name.dropFirst(prefix.count)) : nil
    }

    private func open(_ volume: LogicalVolume, _ number: Int, mayOverflow: Bool, isUntold: Bool) throws(TurntableError) -> Frozen {
        let file = try DirectFile(volume.devicePath)
        let most = largestStore(extentBytes: volume.extentBytes)
        let watch = mayOverflow ? SnapshotWatch(volume, upTo: most, lvm: lvm, report: report) : nil
        return Frozen(volume, number: number, file, watch, isUntold: isUntold)
    }

    /// How large a store to make.
    private func store(_ now: LogicalVolume) throws(TurntableError) -> ByteCount {
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
        return store
    }

    /// A header, every chunk of the volume and a table entry for each: with that nothing can overflow. One extent more for the
    /// tables' rounding.
    private func largestStore(extentBytes: Int) -> ByteCount {
        let chunks = origin.size.value / chunkBytes + 1
        let areas = chunks / (chunkBytes / 16) + 2
        let bytes = (chunks + areas + 1) * chunkBytes
        return ByteCount((bytes / extentBytes + 1) * extentBytes)
    }
}

internal import TurntableCore
internal import TurntableLinux

/// Looks after a snapshot whose store could overflow: when it is half full it is extended, as far as the group has room.
///
/// A thread of its own, which shares LVM's helper with nobody: it has one too.
final class SnapshotWatch: @unchecked Sendable {
    private let isOver = Monitor(false)
    private let thread: WorkerThread

    /// - Parameters:
    ///   - most: what the store could ever need.
    ///   - report: told when it was extended, or could not be.
    init(_ snapshot: LogicalVolume, upTo most: ByteCount, lvm: LVM, report: (@Sendable (String) -> Void)?) {
        let isOver = self.isOver, command = lvm.helper.command
        thread = WorkerThread("snapshot-watch") {
            let lvm = LVM(helper: HelperProcess(command))
            var size = snapshot.size
            var isStuck = false
            while isOver.wait(atMost: Limits.snapshotWatchTime, until: { $0 ? true : nil }) == nil {
                guard case .used(let used, of: let total, table: _) = (try? DeviceMapper.snapshotStatus(of: snapshot.deviceName())) ?? nil else {
                    continue
                }
                size = max(size, total)
                guard used.value > size.value / 2, size < most else { continue }
                do throws(TurntableError) {
                    size = try Self.extend(snapshot, of: size, upTo: most, lvm: lvm)
                    isStuck = false
                    report?("the snapshot \(snapshot.fullName) was half full and has \(size) now")
                } catch {
                    if !isStuck { report?("\(error)") }
                    isStuck = true
                }
            }
        }
    }

    /// Twice the store, or as much of that as half of what the group has left allows.
    private static func extend(_ snapshot: LogicalVolume, of size: ByteCount, upTo most: ByteCount, lvm: LVM) throws(TurntableError)
        -> ByteCount
    {
        let free = try lvm.volume(snapshot.fullName).groupFree
        let extent = snapshot.extentBytes
        let more = min(size.value, most.value - size.value, max(free.value / 2, min(free.value, extent))) / extent * extent
        guard more > 0 else {
            throw TurntableError(
                .refused, "extending the snapshot \(snapshot.fullName), which fills", "\(free) are free in its group",
                remedy: "`vgextend` its group")
        }
        try lvm.extend(snapshot, to: ByteCount(size.value + more))
        return ByteCount(size.value + more)
    }

    /// Returns when it has let go of the snapshot.
    func stop() {
        isOver.update { $0 = true }
        thread.join()
    }
}

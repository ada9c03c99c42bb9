internal import Glibc
internal import TurntableCore
internal import TurntableLinux

/// The process that a snapshot was made by, as a tag of the snapshot says: turntable.PROCESS.STARTED.BOOT. With the time of its
/// start and the boot of the host no other process is taken for it.
struct SnapshotOwner: Hashable, Sendable {
    var process: Int32
    var startTime: UInt64
    /// The beginning of what the kernel calls the time since it was started.
    var boot: String

    static let own = SnapshotOwner(process: getpid(), startTime: ProcessTable.startTime(of: getpid()) ?? 0, boot: currentBoot)

    private init(process: Int32, startTime: UInt64, boot: String) {
        self.process = process
        self.startTime = startTime
        self.boot = boot
    }

    /// Of the tags of a snapshot; nil if none of them names an owner.
    init?(tags: [String]) {
        for tag in tags {
            let parts = tag.split(separator: ".", omittingEmptySubsequences: false)
            guard parts.count == 4, parts[0] == LVM.tag, let process = Int32(parts[1]), let startTime = UInt64(parts[2]) else { continue }
            self.init(process: process, startTime: startTime, boot: String(parts[3]))
            return
        }
        return nil
    }

    var tag: String { "\(LVM.tag).\(process).\(startTime).\(boot)" }

    var isRunning: Bool { boot == Self.currentBoot && ProcessTable.startTime(of: process) == startTime }

    private static let currentBoot = String((ProcessTable.readText("/proc/sys/kernel/random/boot_id") ?? "0").prefix(8))
}

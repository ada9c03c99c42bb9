internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// Fetches and clears the written pages of another process in one step: PAGEMAP_SCAN, Linux 6.7
/// (Documentation/admin-guide/mm/pagemap.rst). The process must have registered the range for asynchronous write
/// protection, which the preload does.
@safe public struct PagemapScanner: ~Copyable, @unchecked Sendable {
    private let pagemap: Descriptor
    // One result buffer a scanner, allocated once: a scanner belongs to one thread.
    private let regions: UnsafeMutablePointer<tt_page_region>

    public init(process: Int32) throws(TurntableError) {
        pagemap = try Descriptor.open("/proc/\(process)/pagemap", .read, what: "opening the page map of process \(process)")
        unsafe regions = UnsafeMutablePointer<tt_page_region>.allocate(capacity: Limits.scanRegions)
    }

    deinit { unsafe regions.deallocate() }

    /// Calls `body` with each run of pages written in the process's addresses `range` since the last clear.
    public borrowing func scan(
        _ range: Range<UInt64>, clear: Bool, _ body: (Range<UInt64>) -> Void
    ) throws(TurntableError) {
        var start = range.lowerBound
        while start < range.upperBound {
            var walked: UInt64 = 0
            let result = unsafe tt_scan_written(
                pagemap.rawValue, start, range.upperBound, clear ? 1 : 0, regions, Limits.scanRegions, &walked)
            // Its memory goes before its entry in /proc does.
            if result == -ESRCH { throw TurntableError(.hypervisor, "scanning written pages", "the machine is gone: its QEMU died") }
            let count = try checked(result, "scanning written pages")
            for index in 0..<Int(count) { unsafe body(regions[index].start..<regions[index].end) }
            start = walked
        }
    }

    /// Why this kernel cannot track written pages, or nil if it can.
    public static func missingSupport() -> TurntableError? {
        let result = tt_probe_async_write_protect()
        guard result < 0 else { return nil }
        let remedy =
            -result == EPERM
            ? "run as root, or set vm.unprivileged_userfaultfd=1"
            : "run Linux 6.7 or later with CONFIG_USERFAULTFD and CONFIG_PROC_PAGE_MONITOR, or an older one with CONFIG_MEM_SOFT_DIRTY"
        return TurntableError(
            .unsupported, "asking this kernel for a dirty log (userfaultfd WP_ASYNC and PAGEMAP_SCAN)", errorText(-result), remedy: remedy)
    }
}

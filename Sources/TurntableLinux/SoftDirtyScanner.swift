internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// Fetches and clears the written pages of another process in two steps: soft-dirty bits, for kernels before 6.7
/// (Documentation/admin-guide/mm/soft-dirty.rst). What is written between the steps is lost, so nothing may write then.
///
/// The bit lives in the page table. A page that the kernel takes out of the table, to swap it out or to put it into a huge
/// page, leaves without it. The kernel counts such events, though: see ``scan(_:countsAbsent:_:)`` and ``pageTableEvents()``.
/// Pages of hugetlbfs have no such bit at all.
@safe public struct SoftDirtyScanner: ~Copyable, @unchecked Sendable {
    private let process: Int32
    private let pagemap: Descriptor
    private let clearing: Descriptor
    // Allocated once: a scanner belongs to one thread.
    private let entries: UnsafeMutableBufferPointer<UInt64>

    // Documentation/admin-guide/mm/pagemap.rst
    private static let written: UInt64 = 1 << 55
    private static let present: UInt64 = 1 << 63 | 1 << 62

    public init(process: Int32) throws(TurntableError) {
        // Both first: an initialiser that throws half-way may own nothing yet.
        let pagemap = try Descriptor.open("/proc/\(process)/pagemap", .read, what: "opening the page map of process \(process)")
        let clearing = try Descriptor.open(
            "/proc/\(process)/clear_refs", .write, what: "opening the soft-dirty switch of process \(process)")
        self.process = process
        self.pagemap = pagemap
        self.clearing = clearing
        unsafe entries = .allocate(capacity: Limits.pagemapEntries)
    }

    deinit { unsafe entries.deallocate() }

    /// Calls `body` with each run of pages written in the process's addresses `range` since the last clear.
    /// - Parameter countsAbsent: pages that are not in the page table, whose bit may be lost, count as written.
    public borrowing func scan(_ range: Range<UInt64>, countsAbsent: Bool, _ body: (Range<UInt64>) -> Void) throws(TurntableError) {
        let page = UInt64(pageBytes)
        var next = range.lowerBound
        while next < range.upperBound {
            let count = min(Int((range.upperBound - next) / page), Limits.pagemapEntries)
            let bytes = count * MemoryLayout<UInt64>.size
            let offset = Int64(next / page) * Int64(MemoryLayout<UInt64>.size)
            let read = try checked(
                unsafe tt_read_at(pagemap.rawValue, entries.baseAddress, bytes, offset), "reading the page map of process \(process)")
            guard read == Int64(bytes) else {
                throw TurntableError(.hypervisor, "reading the page map of process \(process)", "it ended: the process is gone")
            }
            var first: Int?
            for index in 0..<count {
                let entry = unsafe entries[index]
                if entry & Self.written != 0 || countsAbsent && entry & Self.present == 0 {
                    if first == nil { first = index }
                } else if let start = first {
                    body(next + UInt64(start) * page..<next + UInt64(index) * page)
                    first = nil
                }
            }
            let end = next + UInt64(count) * page
            if let start = first { body(next + UInt64(start) * page..<end) }
            next = end
        }
    }

    /// Clears the marks of the whole process.
    public borrowing func clear() throws(TurntableError) {
        try checked(unsafe tt_write_text(clearing.rawValue, "4"), "clearing the soft-dirty bits of process \(process)")
    }

    /// How often, on this whole host, pages were taken out of page tables in a way that loses their mark. As long as two
    /// calls give the same, none was.
    public static func pageTableEvents() -> UInt64 {
        var counters: Set<String> = ["pgscan_anon", "pswpout"]
        // "never" and "deny" are the kernel's defaults; then shared memory is not in huge pages.
        let huge = ProcessTable.readText("/sys/kernel/mm/transparent_hugepage/shmem_enabled") ?? "[never]"
        if !huge.contains("[never]") && !huge.contains("[deny]") { counters.formUnion(["thp_collapse_alloc", "thp_split_pmd"]) }
        var sum: UInt64 = 0
        for line in (ProcessTable.readText("/proc/vmstat") ?? "").split(separator: "\n") {
            guard let space = line.firstIndex(of: " "), counters.contains(String(line[..<space])) else { continue }
            sum &+= UInt64(line[line.index(after: space)...]) ?? 0
        }
        return sum
    }

    /// Why this kernel keeps no soft-dirty bits, or nil if it does.
    public static func missingSupport() -> TurntableError? {
        let result = tt_probe_soft_dirty()
        guard result < 0 else { return nil }
        return TurntableError(
            .unsupported, "asking this kernel for a dirty log (soft-dirty bits)", errorText(-result),
            remedy: "run a kernel with CONFIG_MEM_SOFT_DIRTY, or Linux 6.7 or later")
    }
}

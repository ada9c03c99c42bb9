internal import Glibc
public import TurntableCore
internal import TurntableLinux

/// The RAM of a QEMU that `turntable run` started: its memory files, opened and mapped here as well.
@safe final class QEMUMemory: PageSource, PageSink, @unchecked Sendable {
    /// Owns one file; arrays hold no owners themselves.
    private final class Region {
        let file: MemoryFile
        init(_ file: consuming MemoryFile) { self.file = file }
    }

    let regions: [MemoryRegion]
    private let files: [Region]
    // Copies of the files' addresses, so that the page path follows no owner.
    private let bases: [UnsafeMutableRawPointer]

    /// Opens the memory files of a process.
    init(process: Int32) throws(TurntableError) {
        var regions: [MemoryRegion] = []
        var files: [Region] = []
        for open in try ProcessTable.memoryFiles(of: process) {
            let what = "opening region \(open.name) of process \(process)"
            let descriptor = try Descriptor.open("/proc/\(process)/fd/\(open.descriptor)", .readWrite, what: what)
            var status = stat()
            try checked(unsafe fstat(descriptor.rawValue, &status), what)
            let file = try MemoryFile(mapping: descriptor, bytes: Int(status.st_size), name: open.name)
            files.append(Region(file))
            regions.append(MemoryRegion(name: open.name, pages: PageCount(Int(status.st_size) / pageBytes)))
        }
        guard !regions.isEmpty else {
            throw TurntableError(
                .unsupported, "looking for the memory of process \(process)", "it has no memory files of turntable's",
                remedy: "start the machine with `turntable run`")
        }
        self.regions = regions
        self.files = files
        unsafe bases = files.map { unsafe $0.file.base }
    }

    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeRawPointer {
        unsafe UnsafeRawPointer(bases[region.value] + page.byteOffset)
    }
    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeMutableRawPointer { unsafe bases[region.value] + page.byteOffset }
    func file(of region: RegionIndex) -> Int32? { files[region.value].file.descriptor.rawValue }

    func forEachPopulatedRun(in region: RegionIndex, within pages: Range<Int>, _ body: (Range<Int>) -> Void) {
        files[region.value].file.forEachDataRange(in: pages.lowerBound * pageBytes..<pages.upperBound * pageBytes) { range in
            body(range.pagesOfBytes)
        }
    }

    func populate(_ pages: Range<Int>, in region: RegionIndex) throws(TurntableError) {
        try files[region.value].file.populate(pages.lowerBound * pageBytes..<pages.upperBound * pageBytes)
    }

    /// Where `process` maps each region.
    func bases(in process: Int32) throws(TurntableError) -> [UInt64] {
        let mappings = ProcessTable.memoryFileMappings(of: process)
        var bases: [UInt64] = []
        for region in regions {
            guard let base = mappings[region.name] else {
                throw TurntableError(.hypervisor, "looking for region \(region.name) in process \(process)", "it is not mapped there")
            }
            bases.append(base)
        }
        return bases
    }

    func isOfHugePages(_ region: RegionIndex) throws(TurntableError) -> Bool { try files[region.value].file.hasHugePages() }

    /// The name of a region of huge pages, if there is one.
    func regionOfHugePages() throws(TurntableError) -> String? {
        for (index, region) in regions.enumerated() where try isOfHugePages(RegionIndex(index)) { return region.name }
        return nil
    }
}

/// The pages that a QEMU's guest, and QEMU for it, wrote: PAGEMAP_SCAN over its mappings.
final class PagemapDirtyLog: DirtyLog, @unchecked Sendable {
    /// Owns one scanner; each stream has its own.
    private final class Scanner {
        let scanner: PagemapScanner
        init(_ process: Int32) throws(TurntableError) { scanner = try PagemapScanner(process: process) }
    }
    let summary = DirtyLogMethod.pagemapScan.rawValue
    private let scanners: [Scanner]
    private let bases: [UInt64]
    let isContinued: Bool

    /// Begins to log: all marks are cleared, so that everything written from now on is marked. Or goes on: the marks are the
    /// kernel's, in QEMU's page table, and outlive who reads them.
    init(process: Int32, memory: QEMUMemory, streams: Int, isContinued: Bool) throws(TurntableError) {
        self.isContinued = isContinued
        bases = try memory.bases(in: process)
        var scanners: [Scanner] = []
        for _ in 0..<streams { scanners.append(try Scanner(process)) }
        self.scanners = scanners
        if isContinued { return }
        for (index, region) in memory.regions.enumerated() {
            let end = bases[index] + UInt64(region.pages.bytes.value)
            try scanners[0].scanner.scan(bases[index]..<end, clear: true) { _ in }
        }
    }

    func drain(into bitmaps: [PageBitmap]) throws(TurntableError) {
        for (region, bitmap) in bitmaps.enumerated() { try refresh(0..<bitmap.pages, in: RegionIndex(region), into: bitmap, stream: 0) }
    }

    func refresh(_ pages: Range<Int>, in region: RegionIndex, into bitmap: PageBitmap, stream: Int) throws(TurntableError) {
        let base = bases[region.value]
        let page = UInt64(pageBytes)
        try scanners[stream].scanner.scan(base + UInt64(pages.lowerBound) * page..<base + UInt64(pages.upperBound) * page, clear: true) {
            written in
            bitmap.insert(Int((written.lowerBound - base) / page)..<Int((written.upperBound - base) / page))
        }
    }
}

/// How much of its memory a machine has ever used: the rest are holes in its memory files, which are zero.
public func usedMemory(of machine: MachineRecord) throws(TurntableError) -> ByteCount {
    var bytes = 0
    for open in try ProcessTable.memoryFiles(of: machine.process) {
        var status = stat()
        guard unsafe stat("/proc/\(machine.process)/fd/\(open.descriptor)", &status) == 0 else { continue }
        bytes += Int(status.st_blocks) * 512
    }
    return ByteCount(bytes)
}

internal import CTurntableXen
internal import Glibc
public import TurntableCore
internal import TurntableLinux

/// A domain's physical memory as one region: address space for all of its frames, in which those that have memory are
/// mapped, once and in large batches, and kept. What is not mapped reads as zero, and cannot be written: a source that sends
/// pages which its description does not have ends this process, and with it the move.
///
/// Mapping and unmapping cost a hypercall for each few hundred frames: 256 MiB take a quarter of a second on a slow host.
@safe public final class XenMemory: PageSource, PageSink, @unchecked Sendable {
    public let regions: [MemoryRegion]
    let domain: XenDomain
    private let isWritable: Bool
    /// Frames with memory behind them, in order.
    let runs: [Range<Int>]
    /// How many pages the domain had when they were mapped. More means frames that are not in ``runs``: those that it gives away meanwhile
    /// count until they are unmapped.
    private var pageCount = Int.max
    // Reserved in init, given back in deinit; the foreign mappings lie in it and go with it.
    private let base: UnsafeMutableRawPointer
    private let bytes: Int

    static let regionName = "physical memory"

    /// Reserves the address space; nothing is mapped yet.
    private init(_ domain: XenDomain, frames: Int, runs: [Range<Int>], isWritable: Bool) throws(TurntableError) {
        self.domain = domain
        self.runs = runs
        self.isWritable = isWritable
        regions = [MemoryRegion(name: Self.regionName, pages: PageCount(frames))]
        bytes = frames * pageBytes
        guard let reserved = unsafe tt_xen_reserve(bytes) else {
            throw TurntableError(.unsupported, "reserving \(ByteCount(bytes)) of address space", errorText(errno))
        }
        unsafe base = reserved
    }

    deinit { unsafe munmap(base, bytes) }

    /// All memory of a domain that runs, to read.
    static func source(_ domain: XenDomain) throws(TurntableError) -> XenMemory {
        let facts = try domain.facts()
        let memory = try XenMemory(domain, frames: facts.frames, runs: domain.presentRuns(in: 0..<facts.frames), isWritable: false)
        for run in memory.runs { try memory.map(run) }
        memory.pageCount = min(facts.pages, try domain.facts().pages)
        return memory
    }

    /// Throws if the domain has got memory since. Xen's log does not tell: the guest need not have written to it.
    func checkGrowth() throws(TurntableError) {
        let grown = try domain.facts().pages - pageCount
        guard grown > 0 else { return }
        throw TurntableError(
            .refused, "moving domain \(domain.number)", "the guest got \(PageCount(grown).bytes) of memory since the move began; it runs on here",
            remedy: "let its balloon rest, and move it again")
    }

    /// Memory for a domain that has none yet.
    /// - Parameter apart: frames that the domain gets, and that nothing of what is sent reaches.
    static func target(_ domain: XenDomain, _ description: XenDescription, apart: [Int]) throws(TurntableError) -> XenMemory {
        let memory = try XenMemory(domain, frames: description.frames, runs: description.runs, isWritable: true)
        // All at once: what the engine populates as it goes are stripes, which are larger than the holes between the runs.
        for run in memory.runs {
            for start in stride(from: run.lowerBound, to: run.upperBound, by: Limits.xenFramesAtOnce) {
                let piece = start..<min(start + Limits.xenFramesAtOnce, run.upperBound)
                try domain.populate(piece)
                var first = piece.lowerBound
                for frame in apart where piece.contains(frame) {
                    try memory.map(first..<frame)
                    try checked(unsafe tt_xen_cover(memory.base + frame * pageBytes), "setting frame \(frame) apart")
                    first = frame + 1
                }
                try memory.map(first..<piece.upperBound)
                // Pages of zeroes are not sent, and memory that Xen never gave away holds what was there at boot, unless it scrubs (bootscrub=).
                unsafe memset(memory.base + piece.lowerBound * pageBytes, 0, piece.count * pageBytes)
            }
        }
        return memory
    }

    private func map(_ frames: Range<Int>) throws(TurntableError) {
        guard !frames.isEmpty else { return }
        try unsafe domain.map(frames, to: base + frames.lowerBound * pageBytes, isWritable: isWritable)
    }

    public func address(of page: PageIndex, in region: RegionIndex) -> UnsafeRawPointer { unsafe UnsafeRawPointer(base + page.byteOffset) }
    public func address(of page: PageIndex, in region: RegionIndex) -> UnsafeMutableRawPointer { unsafe base + page.byteOffset }
    /// The kernel cannot send a foreign mapping by reference.
    public func file(of region: RegionIndex) -> Int32? { nil }
    public func forEachPopulatedRun(in region: RegionIndex, within pages: Range<Int>, _ body: (Range<Int>) -> Void) {
        for run in runs where run.overlaps(pages) { body(run.clamped(to: pages)) }
    }
    /// What is to have memory has it.
    public func populate(_ pages: Range<Int>, in region: RegionIndex) throws(TurntableError) {}
}

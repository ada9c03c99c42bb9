// What the page path needs from guest memory. A hypervisor adapter provides it; the engine and the transports use it.
// The bytes change while the guest runs. Nothing here promises a stable view: see DirtyLog.

/// A region of a machine's memory: its name and size are the same at both ends.
public struct MemoryRegion: Hashable, Sendable, Codable {
    public var name: String
    public var pages: PageCount
    public init(name: String, pages: PageCount) {
        self.name = name
        self.pages = pages
    }
}

/// Guest memory to send from.
public protocol PageSource: AnyObject, Sendable {
    var regions: [MemoryRegion] { get }
    /// The page's first byte; the pages up to the region's end follow it. Valid until the migration ends.
    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeRawPointer
    /// A file whose offset `page.byteOffset` holds the page, if the region has one that the kernel can send from.
    func file(of region: RegionIndex) -> Int32?
    /// Calls `body` with each run of those pages that may hold anything but zeroes.
    func forEachPopulatedRun(in region: RegionIndex, within pages: Range<Int>, _ body: (Range<Int>) -> Void)
}

extension PageSource {
    /// Of all pages of a region.
    public func forEachPopulatedRun(in region: RegionIndex, _ body: (Range<Int>) -> Void) {
        forEachPopulatedRun(in: region, within: 0..<regions[region.value].pages.value, body)
    }
}

/// Guest memory to receive into. Every page reads as zero at first.
public protocol PageSink: AnyObject, Sendable {
    var regions: [MemoryRegion] { get }
    /// The page's first byte; the pages up to the region's end follow it. Valid until the migration ends.
    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeMutableRawPointer
    /// Backs these pages with memory before their bytes arrive.
    func populate(_ pages: Range<Int>, in region: RegionIndex) throws(TurntableError)
}

/// Which pages the guest wrote.
///
/// **Dirty rule.** A drain fetches marks and clears them; only then are the pages read. A page written while it is read
/// is sent torn, which is legal: its mark is set again, and it will be sent again. Only what is read after the pause, and
/// after a last drain, is final.
public protocol DirtyLog: AnyObject, Sendable {
    /// Fetches and clears all marks, adding them to the regions' bitmaps. No stream sends meanwhile.
    func drain(into bitmaps: [PageBitmap]) throws(TurntableError)
    /// Fetches and clears the marks of `pages` if that can be done for a part of memory, else does nothing: called just
    /// before they are read, so that what was written since the last drain goes once. Different streams refresh
    /// different stripes at the same time; one stream's calls come from one thread.
    func refresh(_ pages: Range<Int>, in region: RegionIndex, into bitmap: PageBitmap, stream: Int) throws(TurntableError)
    /// Whether it holds what was written since an earlier process of the same migration began to log.
    var isContinued: Bool { get }
    /// What it is and what it costs the machine, for people; empty if there is nothing to tell.
    var summary: String { get }
    /// How long the last drain kept a running machine still, or how long one will as far as is known before the first.
    var standstill: Nanoseconds { get }
}

extension DirtyLog {
    public var isContinued: Bool { false }
    public var summary: String { "" }
    /// Most logs are drained while the machine runs.
    public var standstill: Nanoseconds { .zero }
}

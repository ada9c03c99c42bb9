// Memory for the pages of a stream that are on their way, the same at both ends. The pages that travel are counted from 0; the stripe that
// page n lies in, n / Limits.stripePages, belongs to data stream stripe % streams, and is the window's stripe stripe % stripes. So a page
// goes on the stream that the frame format wants it on, pages next to each other in the stream go as one extent, and nothing is said
// twice: a stripe is filled and emptied in order, and filled again when it has been emptied.
//
// At the source one thread fills it from what Xen's helper says and each data stream's empties that stream's stripes; at the target it is
// the other way round.

internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

@safe final class PageWindow: PageSource {
    let streams: Int
    /// What the window is to the frames: one region.
    let layout: MemoryLayoutTable
    let regions: [MemoryRegion]
    private let memory: AlignedBuffer
    private let state: Monitor<State>

    private struct State {
        /// Of each stream: the page after the last one that was filled, and emptied.
        var filled: [Int]
        var emptied: [Int]
        /// Nothing more is filled.
        var isFinished = false
        /// The move is over, or has failed.
        var isClosed = false
    }

    init(streams: Int) {
        self.streams = streams
        let pages = Self.stripes(for: streams) * Limits.stripePages
        layout = MemoryLayoutTable(regionPages: [pages], streams: streams)
        regions = [MemoryRegion(name: "window", pages: PageCount(pages))]
        memory = AlignedBuffer(bytes: pages * pageBytes)
        state = Monitor(State(filled: [Int](repeating: 0, count: streams), emptied: [Int](repeating: 0, count: streams)))
    }

    /// As many for each stream, so that the same stream always has the same ones.
    static func stripes(for streams: Int) -> Int { (Limits.libxcStripes + streams - 1) / streams * streams }

    // MARK: - Where pages lie

    func index(of page: Int) -> Int { page % regions[0].pages.value }
    func address(of page: Int) -> UnsafeMutableRawPointer { unsafe memory.bytes.baseAddress! + index(of: page) * pageBytes }
    /// The page after the last of the stripe that `page` lies in.
    static func stripeEnd(_ page: Int) -> Int { (page / Limits.stripePages + 1) * Limits.stripePages }
    private func stream(of page: Int) -> Int { page / Limits.stripePages % streams }
    /// The page of the same stream that follows `page`, where pages of others may lie between them.
    func successor(of page: Int) -> Int {
        (page + 1) % Limits.stripePages == 0 ? page + 1 + (streams - 1) * Limits.stripePages : page + 1
    }

    // MARK: - Filling

    /// Waits until `page` and those after it in its stripe may be filled.
    func awaitRoom(at page: Int) throws(TurntableError) {
        let needed = Self.stripeEnd(page) - regions[0].pages.value
        _ = try wait { $0.emptied[self.stream(of: page)] >= needed ? true : nil }
    }

    /// The pages before `end` in its stripe are there.
    func fill(to end: Int) { state.update { $0.filled[self.stream(of: end - 1)] = end } }

    func finish() { state.update { $0.isFinished = true } }

    // MARK: - Emptying

    /// Waits until `page` is there, and gives the end of what is there with it in its stripe; nil if it will not come.
    func awaitPages(from page: Int) throws(TurntableError) -> Int? {
        let end = try wait { state -> Int? in
            let filled = state.filled[self.stream(of: page)]
            return filled > page ? min(filled, Self.stripeEnd(page)) : state.isFinished ? page : nil
        }
        return end > page ? end : nil
    }

    /// The pages before `end` in its stripe are not needed any more.
    func empty(to end: Int) { state.update { $0.emptied[self.stream(of: end - 1)] = end } }

    // MARK: - The end

    /// Whoever waits, or is about to, gets an error.
    func close() { state.update { $0.isClosed = true } }

    private func wait<Value>(until body: (State) -> Value?) throws(TurntableError) -> Value {
        let found = state.wait(atMost: .forever) { state -> Value?? in state.isClosed ? .some(nil) : body(state).map { .some($0) } }
        guard let value = found ?? nil else { throw TurntableError(.cancelled, "moving pages", "the move has ended") }
        return value
    }

    // MARK: - For the frames

    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeRawPointer {
        unsafe UnsafeRawPointer(memory.bytes.baseAddress! + page.byteOffset)
    }
    func file(of region: RegionIndex) -> Int32? { nil }
    func forEachPopulatedRun(in region: RegionIndex, within pages: Range<Int>, _ body: (Range<Int>) -> Void) { body(pages) }
}

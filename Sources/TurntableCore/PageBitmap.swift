/// One bit for each page of a region.
///
/// Not locked: a stripe of ``Limits/stripePages`` pages covers whole words, so threads that own different stripes never
/// touch the same word; everything else happens while the streams rest.
@safe public final class PageBitmap: @unchecked Sendable {
    public let pages: Int
    // Allocated once. Unsafe because Array would add uniqueness checks to every bit of the page path.
    private let words: UnsafeMutableBufferPointer<UInt64>
    /// Of words that were not allocated here.
    private let owner: AnyObject?

    public init(pages: PageCount) {
        self.pages = pages.value
        owner = nil
        unsafe words = .allocate(capacity: (pages.value + 63) / 64)
        unsafe words.initialize(repeating: 0)
    }

    /// Over words that live as long as `owner`, one for each 64 pages begun.
    public init(pages: PageCount, words: UnsafeMutablePointer<UInt64>, of owner: AnyObject) {
        self.pages = pages.value
        self.owner = owner
        unsafe self.words = UnsafeMutableBufferPointer(start: words, count: (pages.value + 63) / 64)
    }

    deinit { if owner == nil { unsafe words.deallocate() } }

    public func contains(_ page: Int) -> Bool {
        precondition(page >= 0 && page < pages)
        return unsafe words[page >> 6] & (1 << UInt64(page & 63)) != 0
    }

    public func insert(_ range: Range<Int>) { apply(range) { word, mask in word |= mask } }
    public func remove(_ range: Range<Int>) { apply(range) { word, mask in word &= ~mask } }

    /// The number of marked pages in `range`.
    public func count(in range: Range<Int>) -> Int {
        var total = 0
        apply(range) { word, mask in total += (word & mask).nonzeroBitCount }
        return total
    }
    public var count: Int { count(in: 0..<pages) }

    /// The first run of marked pages at or after `start`, not beyond `end`; nil if there is none.
    public func nextRun(from start: Int, to end: Int) -> Range<Int>? {
        precondition(start >= 0 && end <= pages)
        guard let first = next(marked: true, from: start, to: end) else { return nil }
        return first..<(next(marked: false, from: first, to: end) ?? end)
    }

    /// Calls `body` with each run of marked pages, which it may unmark.
    public func forEachRun<Failure>(in range: Range<Int>, _ body: (Range<Int>) throws(Failure) -> Void) throws(Failure) {
        var next = range.lowerBound
        while let run = nextRun(from: next, to: range.upperBound) {
            try body(run)
            next = run.upperBound
        }
    }
    public func forEachRun<Failure>(_ body: (Range<Int>) throws(Failure) -> Void) throws(Failure) { try forEachRun(in: 0..<pages, body) }

    /// The runs of marked pages within `range`.
    public func runs(in range: Range<Int>) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        forEachRun(in: range) { runs.append($0) }
        return runs
    }

    private func next(marked: Bool, from start: Int, to end: Int) -> Int? {
        guard start < end else { return nil }
        let flip: UInt64 = marked ? 0 : ~0
        var index = start >> 6
        var word = unsafe (words[index] ^ flip) & (~0 << UInt64(start & 63))
        while word == 0 {
            index += 1
            if (index << 6) >= end { return nil }
            word = unsafe words[index] ^ flip
        }
        let found = (index << 6) + word.trailingZeroBitCount
        return found < end ? found : nil
    }

    private func apply(_ range: Range<Int>, _ change: (inout UInt64, UInt64) -> Void) {
        precondition(range.lowerBound >= 0 && range.upperBound <= pages)
        guard !range.isEmpty else { return }
        let first = range.lowerBound >> 6, last = (range.upperBound - 1) >> 6
        let head: UInt64 = ~0 << UInt64(range.lowerBound & 63)
        let tail: UInt64 = ~0 >> UInt64(63 - ((range.upperBound - 1) & 63))
        if first == last { return unsafe change(&words[first], head & tail) }
        unsafe change(&words[first], head)
        for index in (first + 1)..<last { unsafe change(&words[index], ~0) }
        unsafe change(&words[last], tail)
    }
}

extension Range<Int> {
    /// The pages that a range of bytes lies in.
    public var pagesOfBytes: Range<Int> { lowerBound / pageBytes..<(upperBound + pageBytes - 1) / pageBytes }

    /// Calls `body` with the parts of this range that are in `runs`, which lie in it in order, and those that are not.
    public func split<Failure>(by runs: [Range<Int>], _ body: (Range<Int>, _ isIn: Bool) throws(Failure) -> Void) throws(Failure) {
        var next = lowerBound
        for run in runs {
            if next < run.lowerBound { try body(next..<run.lowerBound, false) }
            try body(run, true)
            next = run.upperBound
        }
        if next < upperBound { try body(next..<upperBound, false) }
    }
}

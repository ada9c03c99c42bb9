internal import TestSupport
internal import Testing
internal import TurntableCore

/// Against a set of page numbers, which is slow and cannot be wrong.
struct PageBitmapTests {
    @Test(arguments: UInt64(0)..<8, [1, 63, 64, 65, 128, 1000])
    func itDoesWhatASetDoes(seed: UInt64, pages: Int) {
        var generator = SeededGenerator(seed: seed)
        let bitmap = PageBitmap(pages: PageCount(pages))
        var model: Set<Int> = []
        for _ in 0..<150 {
            let range = randomRange(pages, &generator)
            switch generator.next() % 3 {
            case 0, 1:
                bitmap.insert(range)
                model.formUnion(range)
            default:
                bitmap.remove(range)
                model.subtract(range)
            }
            let asked = randomRange(pages, &generator)
            #expect(bitmap.count == model.count, "seed \(seed)")
            #expect(bitmap.count(in: asked) == model.filter(asked.contains).count, "seed \(seed), \(asked)")
            #expect(bitmap.nextRun(from: asked.lowerBound, to: asked.upperBound) == run(model, asked), "seed \(seed), \(asked)")
        }
        #expect((0..<pages).filter(bitmap.contains) == model.sorted(), "seed \(seed)")
    }

    /// Walking from run to run meets every page once.
    @Test(arguments: UInt64(0)..<8)
    func runsCoverWhatIsMarked(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let bitmap = PageBitmap(pages: PageCount(777))
        for _ in 0..<40 { bitmap.insert(randomRange(777, &generator, longest: 20)) }
        var seen: [Int] = []
        var next = 0
        while let run = bitmap.nextRun(from: next, to: 777) {
            #expect(!run.isEmpty && (run.lowerBound == 0 || !bitmap.contains(run.lowerBound - 1) || run.lowerBound == next))
            seen += run
            next = run.upperBound
        }
        #expect(seen == (0..<777).filter(bitmap.contains), "seed \(seed)")
    }

    /// Streams own stripes and write without a lock: no stripe may share a word with another.
    @Test func aStripeIsWholeWords() {
        #expect(Limits.stripePages % 64 == 0)
    }

    /// Positions near the edges of words come as often as any other.
    private func randomRange(_ pages: Int, _ generator: inout SeededGenerator, longest: Int = 1000) -> Range<Int> {
        func position(_ generator: inout SeededGenerator) -> Int {
            let value =
                generator.next() % 2 == 0
                ? Int.random(in: 0...pages, using: &generator)
                : Int.random(in: 0...pages / 64, using: &generator) * 64 + Int.random(in: -1...1, using: &generator)
            return min(max(value, 0), pages)
        }
        let ends = [position(&generator), position(&generator)].sorted()
        return ends[0]..<min(ends[1], ends[0] + longest)
    }

    private func run(_ model: Set<Int>, _ range: Range<Int>) -> Range<Int>? {
        guard let first = range.first(where: model.contains) else { return nil }
        return first..<((first..<range.upperBound).first { !model.contains($0) } ?? range.upperBound)
    }
}

// The source's side of the comparison: what its memory is at the end, stripe by stripe. The machine stands still, so
// memory is read where it is.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

extension SourceMigration {
    /// What a comparison before the hand-off adds to the blackout.
    var verificationTime: Nanoseconds {
        guard options.verification == .before else { return .zero }
        let bytes = machine.pages.regions.reduce(0) { $0 + $1.pages.bytes.value }
        return Self.digestRate.time(for: ByteCount(bytes))
    }
    /// One core's, from memory.
    private static let digestRate = BitRate(bitsPerSecond: 64e9)

    /// States the digests of the whole memory.
    func sendDigests() throws(TurntableError) {
        guard let control = state.read({ $0.control }) else { return }
        let pages = machine.pages
        for (region, memory) in pages.regions.enumerated() {
            let populated = PageBitmap(pages: memory.pages)
            pages.forEachPopulatedRun(in: RegionIndex(region)) { populated.insert($0) }
            let stripes = (memory.pages.value + Limits.stripePages - 1) / Limits.stripePages
            var stripe = 0
            repeat {
                let end = min(stripe + Digests.maximumStripes, stripes)
                let digests = (stripe..<end).map { stripe in
                    let range = stripe * Limits.stripePages..<min((stripe + 1) * Limits.stripePages, memory.pages.value)
                    return unsafe StripeDigest.of(range, populated: populated) { first in
                        unsafe pages.address(of: PageIndex(first), in: RegionIndex(region))
                    }
                }
                let isLast = region == pages.regions.count - 1 && end == stripes
                try control.send(
                    .digests(Digests(region: UInt16(region), firstStripe: UInt32(stripe), stripes: digests, isLast: isLast)))
                stripe = end
            } while stripe < stripes
        }
    }

    /// The target's comparison; nil, with a note, if it could not be had.
    func verify(_ session: SourceSession) -> Verified? {
        do throws(TurntableError) {
            if options.verification == .after { try sendDigests() }
            let deadline = Clock.now + options.waits.stall
            while Clock.now < deadline {
                heartbeat()
                let heard = state.wait(atMost: Limits.pollTime) { state -> Result<Verified, TurntableError>? in
                    if let verified = state.verified { return .success(verified) }
                    if case .lost(let error) = state.answer { return .failure(error) }
                    return nil
                }
                if let heard { return try heard.get() }
            }
            throw TurntableError(.line, "the target", "it said nothing for \(options.waits.stall)")
        } catch {
            report(.note("the machine runs at the target; its memory was not compared: \(error)"))
            return nil
        }
    }
}

/// Digests of pages, put together for a stripe. A page that is all zero counts as such whether it was ever written or not.
enum StripeDigest {
    static let zeroPage: UInt64 = {
        let zeroes = [UInt8](repeating: 0, count: pageBytes)
        return Digest.of(zeroes)
    }()
    private static let zeroStripe = combine([UInt64](repeating: zeroPage, count: Limits.stripePages))

    /// Of memory that nobody writes meanwhile.
    static func of(_ pages: Range<Int>, populated: PageBitmap, address: (Int) -> UnsafeRawPointer) -> UInt64 {
        if pages.count == Limits.stripePages, populated.nextRun(from: pages.lowerBound, to: pages.upperBound) == nil { return zeroStripe }
        var digests = [UInt64](repeating: zeroPage, count: pages.count)
        var next = pages.lowerBound
        while let run = populated.nextRun(from: next, to: pages.upperBound) {
            unsafe digests.withUnsafeMutableBufferPointer { digests in
                unsafe Digest.of(
                    address(run.lowerBound), units: run.count, of: pageBytes,
                    into: digests.baseAddress! + (run.lowerBound - pages.lowerBound))
            }
            next = run.upperBound
        }
        return combine(digests)
    }

    static func combine(_ digests: [UInt64]) -> UInt64 {
        unsafe digests.withUnsafeBytes { unsafe Digest.of($0.baseAddress!, bytes: $0.count) }
    }
}

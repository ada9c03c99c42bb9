// An older copy that the target has of a region: of a disk that was here before, or of memory that was kept of the machine's last stay
// (VeCycle, Knauth and Fetzer 2015). It tells digests of its pages; pages that are still the same are not sent.
//
// A digest stands for a page only until something else was sent in its place: from then on the target holds that.

internal import Glibc
internal import Protection
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// Of all regions that the target has an older copy of.
final class OlderCopies: Sendable {
    private let copies = Monitor<[OlderCopy?]>([])

    subscript(region: RegionIndex) -> OlderCopy? { copies.read { region.value < $0.count ? $0[region.value] : nil } }

    /// The target says what its regions hold before anything is sent.
    func begin(_ contents: [TargetContent], _ regions: [MemoryRegion], session: SessionID) throws(TurntableError) {
        guard contents.count == regions.count else {
            throw TurntableError(.protocol, "the target", "it tells what \(contents.count) regions hold; the machine has \(regions.count)")
        }
        var made: [OlderCopy?] = []
        for (content, region) in zip(contents, regions) {
            made.append(content == .older ? try OlderCopy(pages: region.pages, session: session) : nil)
        }
        end()
        copies.update { $0 = made }
    }

    func take(_ message: OlderPages) throws(TurntableError) {
        guard let copy = self[RegionIndex(Int(message.region))] else {
            throw TurntableError(.protocol, "the target", "it told digests of region \(message.region), of which it has no older copy")
        }
        try copy.take(message)
    }

    /// No more comes: what is not told by now is sent.
    func end() { for copy in copies.read({ $0 }) { copy?.end() } }
}

@safe final class OlderCopy: @unchecked Sendable {
    private struct Told {
        var pages = 0
        var isOver = false
    }
    private let pages: Int
    private let digest: ContentDigest
    /// Of each page, zeroes at first; only what is told takes memory. Written by the control stream's thread, and read by others beyond
    /// `told` never.
    private let digests: UnsafeMutablePointer<UInt8>
    private let memory: SharedMemory
    /// Pages that the target holds as they were. A stream changes its own stripes only.
    private let untouched: PageBitmap
    private let told = Monitor(Told())

    init(pages: PageCount, session: SessionID) throws(TurntableError) {
        self.pages = pages.value
        digest = ContentDigest(of: session)
        memory = try SharedMemory(bytes: pages.value * OlderPages.digestBytes)
        unsafe digests = memory.base.assumingMemoryBound(to: UInt8.self)
        untouched = PageBitmap(pages: pages)
        untouched.insert(0..<pages.value)
    }

    /// Takes what the target tells, in order.
    func take(_ message: OlderPages) throws(TurntableError) {
        let first = told.read { $0.pages }
        guard message.firstPage == UInt64(first), message.pages > 0, message.pages <= pages - first else {
            throw TurntableError(
                .protocol, "the target", "it told \(message.pages) digests from page \(message.firstPage) on; page \(first) of \(pages) comes next")
        }
        for (index, byte) in message.digests.enumerated() where byte != 0 {
            unsafe digests[first * OlderPages.digestBytes + index] = byte
        }
        told.update { $0.pages += message.pages }
    }

    /// No more comes.
    func end() { told.update { $0.isOver = true } }

    /// Waits until what the target holds of `run` is known, or will never be. False if it is not yet after `limit`.
    func isKnown(_ run: Range<Int>, within limit: Nanoseconds) -> Bool {
        told.wait(atMost: limit) { $0.isOver || $0.pages >= run.upperBound ? true : nil } ?? false
    }

    /// Whether the target holds just these bytes as `page`. After ``isKnown(_:within:)``.
    func holds(_ bytes: UnsafeRawPointer, as page: Int) -> Bool {
        guard isTold(page) else { return false }
        return unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: OlderPages.digestBytes) { own in
            unsafe digest.of(bytes, into: own.baseAddress!)
            return unsafe memcmp(own.baseAddress!, digests + page * OlderPages.digestBytes, OlderPages.digestBytes) == 0
        }
    }

    /// Whether the target holds zeroes as `page`.
    func holdsZero(as page: Int) -> Bool {
        guard isTold(page) else { return false }
        let digest = unsafe digests + page * OlderPages.digestBytes
        return (0..<OlderPages.digestBytes).allSatisfy { unsafe digest[$0] == 0 }
    }

    private func isTold(_ page: Int) -> Bool { untouched.contains(page) && page < told.read { $0.pages } }

    /// Something else is sent there.
    func replace(_ run: Range<Int>) { untouched.remove(run) }
}

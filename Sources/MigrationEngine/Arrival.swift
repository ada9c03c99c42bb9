internal import Glibc
internal import Synchronization
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What has arrived of a session at a target, over all its attachments: where its streams put pages and device state, how
/// many frames of each stream are here, and the digest of every page. Counts and digests outlive this process.
///
///   session memory = frames of each stream u64 | digest of each page u64, 0 where nothing arrived
///
/// Streams own different stripes, so their writes never meet; device state comes on one stream.
@safe final class Arrival: @unchecked Sendable {
    let layout: MemoryLayoutTable
    let isDigesting: Bool
    fileprivate let pages: any PageSink
    private let memory: SharedMemory
    private let firstDigests: [Int]
    // Only what is written takes memory.
    private let state: UnsafeMutableRawBufferPointer

    static func sessionBytes(_ regions: [MemoryRegion]) -> Int {
        (Limits.streams + regions.reduce(0) { $0 + $1.pages.value }) * MemoryLayout<UInt64>.stride
    }

    init(pages: any PageSink, streams: Int, memory: SharedMemory, isDigesting: Bool) {
        self.pages = pages
        self.memory = memory
        self.isDigesting = isDigesting
        layout = MemoryLayoutTable(regionPages: pages.regions.map(\.pages.value), streams: streams)
        var next = Limits.streams
        firstDigests = pages.regions.map { region in
            defer { next += region.pages.value }
            return next
        }
        precondition(memory.bytes >= next * 8)
        unsafe state = .allocate(byteCount: Limits.deviceStateBytes, alignment: pageBytes)
    }

    deinit { unsafe state.deallocate() }

    private var words: UnsafeMutablePointer<UInt64> { unsafe memory.base.assumingMemoryBound(to: UInt64.self) }

    /// Frames of each stream that are here whole.
    var received: [UInt64] { (0..<layout.streams).map { unsafe words[$0] } }
    func received(_ stream: Int) -> UInt64 { unsafe words[stream] }

    /// A frame is here whole: only now it counts.
    fileprivate func count(on stream: Int) {
        atomicMemoryFence(ordering: .acquiringAndReleasing)
        unsafe words[stream] += 1
    }

    fileprivate func digest(_ extent: Extent) {
        let digests = unsafe words + firstDigests[extent.region.value] + extent.firstPage.value
        switch extent.encoding {
        case .raw:
            unsafe Digest.of(
                pages.address(of: extent.firstPage, in: extent.region), units: extent.pageCount.value, of: pageBytes, into: digests)
        case .zero: for page in 0..<extent.pageCount.value { unsafe digests[page] = StripeDigest.zeroPage }
        }
    }

    /// Of a stripe as it arrived.
    func stripeDigest(_ stripe: Int, in region: Int) -> UInt64 {
        let first = stripe * Limits.stripePages
        let count = min(Limits.stripePages, layout.pages(in: region) - first)
        return StripeDigest.combine(
            (0..<count).map { page in
                let digest = unsafe words[firstDigests[region] + first + page]
                return digest == 0 ? StripeDigest.zeroPage : digest
            })
    }

    fileprivate func deviceStateDestination(offset: Int, count: Int) throws(TurntableError) -> UnsafeMutableRawPointer {
        guard offset + count <= Limits.deviceStateBytes else {
            throw TurntableError(.protocol, "device state", "it reaches to byte \(offset + count), the limit is \(Limits.deviceStateBytes)")
        }
        return unsafe state.baseAddress! + offset
    }

    /// The device state, when every stream has delivered.
    func deviceState(bytes: Int) -> UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: state[..<bytes]) }
}

/// One stream's way into an ``Arrival``: remembers the extents of the frame that is coming, to digest them when it is here.
@safe final class StreamArrival: FrameSink, @unchecked Sendable {
    let arrival: Arrival
    private let stream: Int
    private var extents: [Extent] = []
    var layout: MemoryLayoutTable { arrival.layout }

    init(_ arrival: Arrival, stream: Int) {
        self.arrival = arrival
        self.stream = stream
        extents.reserveCapacity(Limits.frameExtents)
    }

    func destination(of extent: Extent) -> UnsafeMutableRawPointer {
        if arrival.isDigesting { extents.append(extent) }
        return unsafe arrival.pages.address(of: extent.firstPage, in: extent.region)
    }

    func zero(_ extent: Extent) {
        if arrival.isDigesting { extents.append(extent) }
        unsafe memset(arrival.pages.address(of: extent.firstPage, in: extent.region), 0, extent.pageCount.bytes.value)
    }

    func deviceStateDestination(offset: Int, count: Int) throws(TurntableError) -> UnsafeMutableRawPointer {
        unsafe try arrival.deviceStateDestination(offset: offset, count: count)
    }

    func writable(_ pages: Range<Int>, in region: RegionIndex) -> UnsafeMutableRawPointer? {
        unsafe arrival.pages.address(of: PageIndex(pages.lowerBound), in: region)
    }

    /// The frame is here whole.
    func finish(_ header: FrameHeader) {
        for extent in extents { arrival.digest(extent) }
        extents.removeAll(keepingCapacity: true)
        // Warm-up frames carry nothing that could be missed.
        if header.kind != .warmUp { arrival.count(on: stream) }
    }
}

internal import Glibc
internal import Synchronization
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What has arrived of a session at a target, over all its attachments: where its streams put pages, blocks and device state, how
/// many frames of each stream are here, and the digest of every page of memory. Counts and digests outlive this process.
///
///   session memory = frames of each stream u64 | digest of each page u64, 0 where nothing arrived or was before
///
/// Streams own different stripes, so their writes never meet; device state comes on one stream. Blocks are written by the disks' own
/// threads: a frame counts when it and all before it on its stream are written.
@safe final class Arrival: @unchecked Sendable {
    let layout: MemoryLayoutTable
    let isDigesting: Bool
    fileprivate let pages: any PageSink
    fileprivate let disks: [any BlockSink]
    private let progress: [Monitor<StreamProgress>]
    private let memory: SharedMemory
    private let firstDigests: [Int]
    // Only what is written takes memory.
    private let state: UnsafeMutableRawBufferPointer

    static func sessionBytes(_ regions: [MemoryRegion]) -> Int {
        (Limits.streams + regions.reduce(0) { $0 + $1.pages.value }) * MemoryLayout<UInt64>.stride
    }

    /// A stream's frames that are here, and those of them whose blocks are still being written.
    private struct StreamProgress {
        var here: UInt64
        var writing: [UInt64] = []
        var failure: TurntableError?
        var written: UInt64 { writing.first ?? here }
    }

    init(pages: any PageSink, disks: [any BlockSink], streams: Int, memory: SharedMemory, isDigesting: Bool) {
        self.pages = pages
        self.disks = disks
        self.memory = memory
        self.isDigesting = isDigesting
        layout = MemoryLayoutTable(
            regionPages: pages.regions.map(\.pages.value), disks: disks.map { PageCount(covering: $0.size).value }, streams: streams)
        progress = (0..<streams).map { stream in
            Monitor(StreamProgress(here: unsafe memory.base.assumingMemoryBound(to: UInt64.self)[stream]))
        }
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
        progress[stream].update { state in
            state.here += 1
            publish(state.written, on: stream)
        }
    }

    /// A frame is here whole, and its blocks are about to be written. The frame's number.
    fileprivate func countWriting(on stream: Int) -> UInt64 {
        progress[stream].update { state in
            state.writing.append(state.here)
            state.here += 1
            return state.here - 1
        }
    }

    fileprivate func wrote(_ frame: UInt64, on stream: Int, _ failure: TurntableError?) {
        progress[stream].update { state in
            state.failure = state.failure ?? failure
            // What failed never counts.
            guard failure == nil, let index = state.writing.firstIndex(of: frame) else { return }
            state.writing.remove(at: index)
            publish(state.written, on: stream)
        }
    }

    private func publish(_ count: UInt64, on stream: Int) {
        atomicMemoryFence(ordering: .acquiringAndReleasing)
        unsafe words[stream] = count
    }

    /// Waits for the blocks that are being written, while nothing arrives.
    func settle() throws(TurntableError) {
        for progress in progress {
            let result = progress.wait(atMost: Limits.blockTime) { state -> Result<Void, TurntableError>? in
                state.failure.map { .failure($0) } ?? (state.writing.isEmpty ? .success(()) : nil)
            }
            guard let result else {
                throw TurntableError(.unsupported, "writing the disks", "they took nothing for \(Limits.blockTime)", remedy: "look at the device")
            }
            try result.get()
        }
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

    /// Pages of an older copy, which stay what they are if nothing arrives for them. Before the source is told of them: it sends nothing of
    /// a page earlier.
    func digestOlder(_ pages: Range<Int>, in region: RegionIndex) {
        guard isDigesting else { return }
        digest(
            Extent(region: region, firstPage: PageIndex(pages.lowerBound), pageCount: PageCount(pages.count), encoding: .raw))
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

/// One stream's way into an ``Arrival``: remembers the extents of the frame that is coming, to digest them when it is here, or
/// to have them written.
@safe final class StreamArrival: FrameSink, @unchecked Sendable {
    let arrival: Arrival
    private let stream: Int
    private var extents: [Extent] = []
    /// The stripe of a disk that the frame is of.
    private var blocks: (sink: any BlockSink, buffer: BlockBuffer)?
    private var parts: [BlockPart] = []
    /// Told when blocks were written, or could not be.
    private let written: @Sendable (TurntableError?) -> Void
    var layout: MemoryLayoutTable { arrival.layout }

    init(_ arrival: Arrival, stream: Int, written: @escaping @Sendable (TurntableError?) -> Void) {
        self.arrival = arrival
        self.stream = stream
        self.written = written
        extents.reserveCapacity(Limits.frameExtents)
    }

    func destination(of extent: Extent) throws(TurntableError) -> UnsafeMutableRawPointer {
        if layout.isDisk(extent.region.value) { return unsafe try addBlocks(extent) }
        if arrival.isDigesting { extents.append(extent) }
        return unsafe arrival.pages.address(of: extent.firstPage, in: extent.region)
    }

    func zero(_ extent: Extent) throws(TurntableError) {
        if layout.isDisk(extent.region.value) {
            _ = unsafe try addBlocks(extent)
            return
        }
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
        if let blocks { return write(blocks.buffer, to: blocks.sink) }
        for extent in extents { arrival.digest(extent) }
        extents.removeAll(keepingCapacity: true)
        // Warm-up frames carry nothing that could be missed.
        if header.kind != .warmUp { arrival.count(on: stream) }
    }

    /// The frame does not come.
    func abandon() {
        if let blocks { blocks.sink.abandon(blocks.buffer) }
        blocks = nil
    }

    /// Where blocks go on their way to the disk: all of a frame are of one stripe.
    private func addBlocks(_ extent: Extent) throws(TurntableError) -> UnsafeMutableRawPointer {
        let sink = arrival.disks[extent.region.value - layout.memoryRegions]
        let range = extent.firstPage.byteOffset..<(extent.firstPage + extent.pageCount).byteOffset
        let stripe = extent.firstPage.value / Limits.stripePages * Limits.stripePages * pageBytes
        if blocks == nil {
            parts.removeAll(keepingCapacity: true)
            let claimed = stripe..<min(stripe + Limits.stripePages * pageBytes, sink.size.value)
            blocks = (sink, try sink.claim(claimed))
        }
        guard let blocks, blocks.sink === sink, blocks.buffer.range.lowerBound == stripe else {
            throw TurntableError(.protocol, "a frame of blocks on data stream \(stream)", "it is of more than one stripe")
        }
        // The last page may reach beyond the disk's end, but not beyond the buffer's.
        parts.append(BlockPart(range.lowerBound..<min(range.upperBound, sink.size.value), isZero: extent.encoding == .zero))
        return unsafe blocks.buffer.address + (range.lowerBound - stripe)
    }

    private func write(_ buffer: BlockBuffer, to sink: any BlockSink) {
        blocks = nil
        let frame = arrival.countWriting(on: stream)
        sink.submit(buffer, parts) { [arrival, stream, written] failure in
            arrival.wrote(frame, on: stream, failure)
            written(failure)
        }
    }
}

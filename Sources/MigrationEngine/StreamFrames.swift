// One stream's frames: pages are sorted by what the target has to be told of them, and travel in extents of neighbours.
//
//   raw    as they lie in memory, or were read from a disk
//   zero   all zero, where the target may hold something else
//   older  what the target holds in an older copy: not sent at all

internal import Synchronization
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// The sending thread's alone, but for ``counts``.
@safe final class StreamFrames: @unchecked Sendable {
    private enum Sort { case raw, zero, older }

    private let stream: Int
    private let sender: any FrameSender
    private let shared: SendState
    private let draft: FrameDraft
    private let sum = Monitor(StripeSender.Counts())
    /// A stripe of a disk, and its first page, while it is being sent.
    private var blocks: (memory: UnsafeRawPointer, firstPage: Int)?

    init(stream: Int, sender: any FrameSender, shared: SendState) {
        self.stream = stream
        self.sender = sender
        self.shared = shared
        draft = FrameDraft(limits: sender.limits)
    }

    var counts: StripeSender.Counts { sum.read { $0 } }
    func count(refreshed pages: Int) { sum.update { $0.refreshedPages += pages } }

    func beginRound(_ round: UInt32) { draft.round = round }

    /// Adds pages of guest memory.
    func add(_ run: Range<Int>, of region: RegionIndex) throws(TurntableError) {
        try unsafe add(run, of: region, from: shared.pages.address(of: PageIndex(run.lowerBound), in: region))
    }

    /// Adds pages that are known to be zero, without a look at them.
    func addZeroes(_ run: Range<Int>, of region: RegionIndex) throws(TurntableError) { try unsafe add(run, of: region, from: nil) }

    /// From here to ``endBlocks()`` what is added is of one stripe of a disk, which was read into `memory`.
    func beginBlocks(_ stripe: Range<Int>, in memory: UnsafeRawPointer) throws(TurntableError) {
        try flush()
        unsafe blocks = (memory, stripe.lowerBound)
        unsafe draft.setBlocks(memory, firstPage: stripe.lowerBound)
    }

    func addBlocks(_ run: Range<Int>, of region: RegionIndex) throws(TurntableError) {
        guard let blocks = unsafe blocks else { preconditionFailure("a stripe was begun") }
        try unsafe add(run, of: region, from: blocks.memory + (run.lowerBound - blocks.firstPage) * pageBytes)
    }

    func endBlocks() throws(TurntableError) {
        unsafe blocks = nil
        if draft.isEmpty { draft.clear() } else { try send() }
    }

    /// Sends what was added and not yet sent.
    func flush() throws(TurntableError) { if !draft.isEmpty { try send() } }

    func sendDeviceState(_ bytes: [UInt8]) throws(TurntableError) {
        var offset = 0
        while offset < bytes.count {
            let end = min(offset + sender.limits.payloadBytes, bytes.count)
            draft.setDeviceState(Array(bytes[offset..<end]), offset: offset)
            try send()
            offset = end
        }
    }

    func sendNothing(_ bytes: [UInt8]) throws(TurntableError) {
        draft.setWarmUp(bytes)
        try send()
    }

    /// Splits a run where what the target has to be told changes. A zero page that the target never got otherwise is zero
    /// there already.
    private func add(_ run: Range<Int>, of region: RegionIndex, from bytes: UnsafeRawPointer?) throws(TurntableError) {
        let held = shared.ledger.held[region.value]
        let older = shared.older[region]
        func sort(_ page: Int) -> Sort {
            guard let bytes = unsafe bytes else { return older?.holdsZero(as: page) == true ? .older : .zero }
            let address = unsafe bytes + (page - run.lowerBound) * pageBytes
            if let older, unsafe older.holds(address, as: page) { return .older }
            return unsafe isZero(address, bytes: pageBytes) ? .zero : .raw
        }
        var start = run.lowerBound
        var sorted = sort(start)
        while start < run.upperBound {
            var end = start + 1
            var next = sorted
            while end < run.upperBound {
                next = sort(end)
                if next != sorted { break }
                end += 1
            }
            switch sorted {
            case .raw:
                held.insert(start..<end)
                older?.replace(start..<end)
                try append(start..<end, of: region, .raw)
            case .zero:
                var rest = start
                while let stale = held.nextRun(from: rest, to: end) {
                    try append(stale, of: region, .zero)
                    held.remove(stale)
                    rest = stale.upperBound
                }
                older?.replace(start..<end)
            case .older: sum.update { $0.olderPages += end - start }
            }
            (start, sorted) = (end, next)
        }
    }

    private func append(_ pages: Range<Int>, of region: RegionIndex, _ encoding: Encoding) throws(TurntableError) {
        let extent = Extent(region: region, firstPage: PageIndex(pages.lowerBound), pageCount: PageCount(pages.count), encoding: encoding)
        if !draft.append(extent) {
            try send()
            if let blocks = unsafe blocks { unsafe draft.setBlocks(blocks.memory, firstPage: blocks.firstPage) }
            let fits = draft.append(extent)
            precondition(fits, "an extent of a stripe fits in an empty frame")
        }
        shared.ledger.note(extent, in: shared.ledger.started(stream), on: stream)
    }

    private func send() throws(TurntableError) {
        // Warm-up frames carry nothing that could be missed.
        if draft.kind != .warmUp { shared.ledger.willSend(on: stream) }
        try sender.send(draft)
        var raw = 0, zero = 0
        for extent in draft.extents {
            if extent.encoding == .raw { raw += extent.pageCount.value } else { zero += extent.pageCount.value }
        }
        let isDisk = draft.kind == .blocks
        let bytes = draft.headBytes + draft.payloadBytes
        sum.update {
            if isDisk { $0.blocks += raw } else { $0.pages += raw }
            $0.zeroPages += zero
            $0.bytesOnWire += bytes
        }
        draft.startNext()
    }
}

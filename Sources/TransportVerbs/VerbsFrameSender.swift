// The sending end of a data stream over RDMA; VerbsWire.swift says what is written where. A frame's payload goes from guest
// memory straight into guest memory, if its stripes are granted and its runs are long enough to be worth a write each. Else
// it goes by the bounce buffers at both ends: gathered, or sealed, at this one and put in place by the target's processor.

internal import CTurntableVerbs
internal import Glibc
internal import Protection
internal import Synchronization
public import Transport
public import TurntableCore
internal import TurntableLinux
internal import WireFormat

@safe public final class VerbsFrameSender: FrameSender, @unchecked Sendable {
    public let limits = TransportLimits()
    private let pairs: QueuePairs
    private let pages: any PageSource
    private let cipher: FrameCipher?
    private let line: String
    private let roundTrip: Nanoseconds
    private let frames: Int
    private let streams: Int
    private let ring: (address: UInt64, key: UInt32)
    private let bounce: PinnedBuffer
    private let credits: PinnedBuffer
    private let budget: PinBudget

    // The sending thread's alone, allocated here once.
    private var windows: WindowTable?
    private var registrations: [Registration?]
    private var populated: [PageBitmap]
    private var writes: WriteList
    /// Signals that are due for the frame in each place, and the bytes of it.
    private var signalsDue: [Int]
    private var frameBytes: [Int]
    private var next: UInt64 = 0
    private var taken: UInt64 = 0

    private let acknowledged = Atomic(0)
    private let outstanding = Atomic(0)
    private let directFrames = Atomic(0)
    private let bouncedFrames = Atomic(0)
    private let rate = RateMeter()
    private let pacingRate: Monitor<BitRate?>
    /// When the line has carried all that was sent, at the stated rate.
    private var lineIsFree = Nanoseconds.zero

    /// A page run shorter than this costs less by the bounce buffer than as a write of its own.
    static let smallestDirectBytes = 16 << 10
    /// With several lanes memory belongs to them in blocks of this size, so that two versions of a page keep their order.
    static let blockBytes = 64 << 10
    /// Buffers for credits: one for each frame that was not taken yet, and one more.
    static func creditBuffers(_ frames: Int) -> Int { frames + 1 }

    struct Parts {
        var pairs: QueuePairs
        var bounce: PinnedBuffer
        var credits: PinnedBuffer
        var budget: PinBudget
        var ring: (address: UInt64, key: UInt32)
        var frames: Int
        var streams: Int
        var windows: Int
        var line: String
        var roundTrip: Nanoseconds
        var pacingRate: BitRate?
    }

    init(_ parts: Parts, pages: any PageSource, cipher: FrameCipher?) {
        pairs = parts.pairs
        bounce = parts.bounce
        credits = parts.credits
        budget = parts.budget
        ring = parts.ring
        frames = parts.frames
        streams = parts.streams
        line = parts.line
        roundTrip = parts.roundTrip
        pacingRate = Monitor(parts.pacingRate)
        self.pages = pages
        self.cipher = cipher
        let stripes = pages.regions.map { ($0.pages.value + Limits.stripePages - 1) / Limits.stripePages }
        windows = cipher == nil && parts.windows > 0 ? WindowTable(stripes: stripes, capacity: parts.windows) : nil
        registrations = Array(repeating: nil, count: max(1, parts.windows))
        populated = stripes.map { PageBitmap(pages: PageCount($0)) }
        for region in stripes.indices {
            pages.forEachPopulatedRun(in: RegionIndex(region)) { [populated] run in
                populated[region].insert(run.lowerBound / Limits.stripePages..<(run.upperBound + Limits.stripePages - 1) / Limits.stripePages)
            }
        }
        writes = WriteList(lanes: parts.pairs.lanes.count)
        signalsDue = Array(repeating: 0, count: parts.frames)
        frameBytes = Array(repeating: 0, count: parts.frames)
    }

    public func send(_ frame: FrameDraft) throws(TurntableError) {
        precondition(frame.sequence == next)
        try pairs.hear()
        guard !pairs.isPeerGone else { throw pairs.failure("sending on", "") }
        try awaitRoom()
        let place = Int(next % UInt64(frames))
        var prefix = PlacePrefix(headBytes: frame.headBytes + (cipher == nil ? 0 : FrameCipher.tagBytes))
        writes.begin()
        if let direct = stageDirect(frame) {
            (prefix.isDirect, prefix.payloadBytes) = (true, direct)
            directFrames.add(1, ordering: .relaxed)
        } else {
            prefix.payloadBytes = try stageBounced(frame, place)
            if prefix.payloadBytes > 0 { bouncedFrames.add(1, ordering: .relaxed) }
        }
        noteTouched(frame, isDirect: prefix.isDirect)
        askAhead(frame)
        prefix.windows = windows?.requests.count ?? 0
        prefix.others = writes.others
        stageHead(frame, prefix, place)
        windows?.clearRequests()
        frameBytes[place] = frame.headBytes + prefix.payloadBytes
        outstanding.add(frameBytes[place], ordering: .relaxed)
        try pace(frameBytes[place])
        try post(place)
        next += 1
    }

    public func flush() throws(TurntableError) {
        try waitUntil("waiting for the line to let go of pages of") { signalsDue.allSatisfy { $0 == 0 } }
    }

    public var status: LineStatus {
        var status = LineStatus()
        let (held, done) = (outstanding.load(ordering: .relaxed), acknowledged.load(ordering: .relaxed))
        let onLine = rate.bytes(within: roundTrip, at: done)
        status.roundTrip = roundTrip
        status.acknowledgedBytes = ByteCount(done)
        status.inFlightBytes = ByteCount(min(held, onLine))
        status.unsentBytes = ByteCount(max(0, held - onLine))
        status.windowBytes = ByteCount(frames * Limits.framePayloadBytes)
        return status
    }

    public var summary: String {
        let (direct, bounced) = (directFrames.load(ordering: .relaxed), bouncedFrames.load(ordering: .relaxed))
        let how = cipher == nil ? "\(direct) frames from memory to memory, \(bounced) by bounce buffers" : "pages sealed with AES-256-GCM"
        return "\(line), \(how), \(budget.peak) pinned at most"
    }

    public func shutDown() { pairs.shutDown() }

    // MARK: - Waiting

    /// The next place is free when the target has taken the frame in it, and the device needs this end's copy no more.
    private func awaitRoom() throws(TurntableError) {
        let place = Int(next % UInt64(frames))
        try waitUntil("sending on") {
            next < taken + UInt64(frames) && signalsDue[place] == 0 && pairs.lanes.allSatisfy { $0.posted - $0.done <= Limits.queuedWrites / 2 }
        }
    }

    private func waitUntil(_ what: StaticString, _ isReady: () -> Bool) throws(TurntableError) {
        _ = try takeCompletions(what)
        var deadline = Clock.now + Limits.stallTime
        while !isReady() {
            let before = (taken, acknowledged.load(ordering: .relaxed))
            try pairs.wait(atMost: Limits.pollTime) { () throws(TurntableError) in
                _ = try takeCompletions(what)
                return isReady()
            }
            _ = try takeCompletions(what)
            if before != (taken, acknowledged.load(ordering: .relaxed)) { deadline = Clock.now + Limits.stallTime }
            guard !pairs.hasEnded, !pairs.isPeerGone else { throw pairs.failure(what, "") }
            guard Clock.now < deadline else {
                throw pairs.failure(what, "nothing moved for \(Limits.stallTime)", remedy: "check the line and the other end")
            }
        }
        guard !pairs.hasEnded else { throw pairs.failure(what, "") }
    }

    private func takeCompletions(_ what: StaticString) throws(TurntableError) -> Int {
        var sum = 0
        while true {
            let count = try pairs.take { (completion) throws(TurntableError) in
                guard completion.status == 0 else { throw pairs.failure(what, of: completion) }
                if completion.kind == tt_received_message { return try takeCredit(completion) }
                let work = WriteList.Work(completion.work)
                pairs.lanes[work.lane].done += work.writes
                signalsDue[work.place] -= 1
                if signalsDue[work.place] == 0 {
                    let done = acknowledged.add(frameBytes[work.place], ordering: .relaxed).newValue
                    outstanding.subtract(frameBytes[work.place], ordering: .relaxed)
                    rate.saw(done)
                }
            }
            sum += count
            if count < CompletionQueue.takenAtOnce { return sum }
        }
    }

    private func takeCredit(_ completion: tt_completion) throws(TurntableError) {
        let index = Int(completion.work)
        let bytes = unsafe RawSpan(
            _unsafeBytes: UnsafeRawBufferPointer(start: credits.base + index * Credit.bytes, count: min(Int(completion.bytes), Credit.bytes)))
        do throws(WireError) {
            let (taken, grants) = try Credit.decode(bytes)
            guard taken > self.taken, taken <= next else { throw WireError(.outOfSequence, value: taken, limit: next, offset: 0) }
            self.taken = taken
            for grant in 0..<grants {
                let grant = Grant.decode(bytes, index: grant)
                guard windows?.take(grant) == true else { throw WireError(.foreignStripe, value: UInt64(grant.stripe), limit: 0, offset: 8) }
            }
        } catch {
            throw TurntableError(.protocol, "a credit of data stream \(pairs.stream)", error.description)
        }
        try unsafe pairs.receive(
            into: credits.base + index * Credit.bytes, bytes: Credit.bytes, key: credits.localKey, on: 0, work: UInt64(index))
    }

    public func pace(at share: BitRate) { pacingRate.update { $0 = share } }

    /// Keeps a stated rate: no more than a few milliseconds of it wait at the device.
    private func pace(_ bytes: Int) throws(TurntableError) {
        guard let pacingRate = pacingRate.read({ $0 }) else { return }
        while lineIsFree - Clock.now > Self.queuedTime {
            guard !pairs.hasEnded else { throw pairs.failure("sending on", "") }
            Clock.sleep(min(lineIsFree - Clock.now - Self.queuedTime, Limits.pollTime))
        }
        lineIsFree = max(lineIsFree, Clock.now) + pacingRate.time(for: ByteCount(bytes))
    }
    private static let queuedTime = Nanoseconds.milliseconds(4)

    // MARK: - From memory to memory

    /// The payload's writes, if all of it can go so: its bytes.
    private func stageDirect(_ frame: FrameDraft) -> Int? {
        guard windows != nil, frame.kind == .pages, frame.payloadBytes > 0 else { return nil }
        var runs = 0
        for extent in frame.extents where extent.encoding == .raw {
            runs += 1
            guard windows!.isOpen(stripe(of: extent), in: extent.region.value, taken: taken) else { return nil }
        }
        guard frame.payloadBytes >= runs * Self.smallestDirectBytes else { return nil }
        for extent in frame.extents where extent.encoding == .raw {
            guard let place = windows!.place(of: stripe(of: extent), in: extent.region.value), isRegistered(place) else { return nil }
        }
        for extent in frame.extents where extent.encoding == .raw { stageWrites(of: extent) }
        return frame.payloadBytes
    }

    private func stageWrites(of extent: Extent) {
        let stripe = stripe(of: extent)
        guard let place = windows!.place(of: stripe, in: extent.region.value), let grant = windows!.granted(place),
            let registration = registrations[place]
        else { preconditionFailure("an open window is granted and registered") }
        windows!.use(place, by: next)
        let start = (extent.firstPage.value - stripe * Limits.stripePages) * pageBytes
        let local = unsafe UInt64(UInt(bitPattern: pages.address(of: extent.firstPage, in: extent.region)))
        let lanes = pairs.lanes.count
        var offset = 0
        while offset < extent.payloadBytes {
            let position = start + offset
            let piece = lanes == 1 ? extent.payloadBytes : min(extent.payloadBytes - offset, Self.blockBytes - position % Self.blockBytes)
            let block = stripe / streams * (Limits.framePayloadBytes / Self.blockBytes) + position / Self.blockBytes
            writes.add(
                tt_write(
                    local: local + UInt64(offset), remote: grant.address + UInt64(position), work: 0, bytes: UInt32(piece),
                    local_key: registration.localKey, remote_key: grant.key, immediate: 0, has_immediate: 0, is_signaled: 0),
                lane: block % lanes)
            offset += piece
        }
    }

    private func stripe(of extent: Extent) -> Int { extent.firstPage.value / Limits.stripePages }

    /// Registers the stripe of a window at this end, unless it is. What cannot be goes by the bounce buffer.
    private func isRegistered(_ place: Int) -> Bool {
        if registrations[place] != nil { return true }
        guard let window = windows!.windows[place] else { return false }
        let first = window.stripe * Limits.stripePages
        let count = min(Limits.stripePages, pages.regions[window.region].pages.value - first)
        let address = unsafe UnsafeMutableRawPointer(mutating: pages.address(of: PageIndex(first), in: RegionIndex(window.region)))
        registrations[place] = try? unsafe Registration(address, count * pageBytes, .local, pairs.domain, budget, what: "a stripe")
        return registrations[place] != nil
    }

    /// Asks for the stripes of long runs, and, while whole stripes go one after the other, for those that come next.
    private func askAhead(_ frame: FrameDraft) {
        guard windows != nil, frame.kind == .pages else { return }
        var last: (region: Int, stripe: Int)?
        for extent in frame.extents where extent.encoding == .raw && extent.payloadBytes >= Self.smallestDirectBytes {
            last = (extent.region.value, stripe(of: extent))
            guard ask(last!, by: next) else { return }
        }
        guard var at = last, frame.payloadBytes >= Limits.framePayloadBytes / 2 else { return }
        for distance in 1...max(1, min(frames, windows!.windows.count / 2)) {
            guard let following = following(at) else { return }
            at = following
            guard ask(at, by: next + UInt64(distance)) else { return }
        }
    }

    private func ask(_ stripe: (region: Int, stripe: Int), by frame: UInt64) -> Bool {
        windows!.want(
            stripe.stripe, in: stripe.region, by: frame,
            isFree: { last in
                last < taken && (last + UInt64(frames) <= next || signalsDue[Int(last % UInt64(frames))] == 0)
            },
            evicted: { registrations[$0] = nil })
    }

    /// The next stripe of this stream that holds anything.
    private func following(_ at: (region: Int, stripe: Int)) -> (region: Int, stripe: Int)? {
        var (region, stripe) = (at.region, at.stripe + streams)
        while region < populated.count {
            while stripe < populated[region].pages {
                if populated[region].nextRun(from: stripe, to: stripe + 1) != nil { return (region, stripe) }
                stripe += streams
            }
            region += 1
            stripe = ((pairs.stream - region) % streams + streams) % streams
        }
        return nil
    }

    private func noteTouched(_ frame: FrameDraft, isDirect: Bool) {
        guard windows != nil, frame.kind == .pages else { return }
        for extent in frame.extents where !isDirect || extent.encoding == .zero {
            windows!.touch(stripe(of: extent), in: extent.region.value, by: next)
        }
    }

    // MARK: - By the bounce buffers

    /// Puts the payload, sealed on a protected line, into this end's buffer; its bytes.
    private func stageBounced(_ frame: FrameDraft, _ place: Int) throws(TurntableError) -> Int {
        guard frame.payloadBytes > 0 else { return 0 }
        let start = unsafe bounce.base + place * Place.bytes + Place.headBytes
        var filled = 0
        cipher?.beginPayload(of: next)
        func put(_ source: UnsafeRawPointer, _ bytes: Int) {
            // Read while the guest may write: torn pages are legal, see DirtyLog.
            if let cipher {
                unsafe cipher.payload(source, into: start + filled, bytes: bytes)
            } else {
                unsafe memcpy(start + filled, source, bytes)
            }
            filled += bytes
        }
        if frame.inlinePayload.isEmpty {
            for extent in frame.extents where extent.encoding == .raw {
                unsafe put(frame.address(of: extent, in: pages), extent.payloadBytes)
            }
        } else {
            unsafe frame.inlinePayload.withUnsafeBytes { unsafe put($0.baseAddress!, $0.count) }
        }
        if let cipher {
            _ = unsafe cipher.endPayload(tag: start + filled)
            filled += FrameCipher.tagBytes
        }
        stageRing(place, from: Place.headBytes, bytes: filled)
        return filled
    }

    /// Writes of a part of this end's copy of a place to the target's.
    private func stageRing(_ place: Int, from start: Int, bytes: Int) {
        let lanes = pairs.lanes.count
        let local = unsafe UInt64(UInt(bitPattern: bounce.base))
        var offset = 0
        while offset < bytes {
            let piece = lanes == 1 ? bytes : min(bytes - offset, Self.blockBytes)
            let position = UInt64(place * Place.bytes + start + offset)
            let lane = start == 0 ? 0 : (place * (Limits.framePayloadBytes / Self.blockBytes) + offset / Self.blockBytes) % lanes
            writes.add(
                tt_write(
                    local: local + position, remote: ring.address + position, work: 0, bytes: UInt32(piece),
                    local_key: bounce.localKey, remote_key: ring.key, immediate: 0, has_immediate: 0, is_signaled: 0),
                lane: lane)
            offset += piece
        }
    }

    private func stageHead(_ frame: FrameDraft, _ prefix: PlacePrefix, _ place: Int) {
        let buffer = unsafe UnsafeMutableRawBufferPointer(start: bounce.base + place * Place.bytes, count: Place.headBytes)
        var output = unsafe MutableRawSpan(_unsafeBytes: buffer)
        prefix.encode(into: &output)
        if let windows { for (index, request) in windows.requests.enumerated() { request.encode(into: &output, index: index) } }
        let head = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[prefix.bytes..<prefix.bytes + frame.headBytes])
        var headOutput = unsafe MutableRawSpan(_unsafeBytes: head)
        frame.encodeHead(into: &headOutput)
        if let cipher { _ = unsafe cipher.head(of: next, head, headerBytes: FrameHeader.bytes, tag: head.baseAddress! + head.count) }
        stageRing(place, from: 0, bytes: prefix.bytes + prefix.headBytes)
    }

    private func post(_ place: Int) throws(TurntableError) {
        signalsDue[place] = writes.usedLanes
        try unsafe writes.forEachLane(frame: next, place: place) { (lane, writes, count) throws(TurntableError) in
            try unsafe pairs.post(writes, count, on: lane)
        }
    }
}

// The receiving end of a data stream over RDMA; VerbsWire.swift says what is written where. A frame that is here whole is
// taken in its turn. What lies in the ring can be written by the source at any time, so it is copied before it is looked at.

internal import CTurntableVerbs
internal import Glibc
internal import Protection
public import Transport
public import TurntableCore
internal import TurntableLinux
public import WireFormat

@safe public final class VerbsFrameReceiver: FrameReceiver, @unchecked Sendable {
    private let pairs: QueuePairs
    private let cipher: FrameCipher?
    private let frames: Int
    private let ring: PinnedBuffer
    private let credits: PinnedBuffer
    private let budget: PinBudget

    // The receiving thread's alone, allocated here once.
    private let head: UnsafeMutableRawBufferPointer
    private var extents: [Extent] = []
    private var requests: [WindowRequest] = []
    private var grants: [Grant] = []
    private var others: [Int]
    private var hasHead: [Bool]
    private var sequence: UInt64 = 0
    private var failure: TurntableError?

    /// Stripes that the source may write; nil once that has ended.
    private let granted = Monitor<[StripeName: Registration]?>([:])
    private struct StripeName: Hashable {
        var region: Int
        var stripe: Int
    }

    /// Bytes that are copied, and opened, at once: they are still in the cache then.
    private static let pieceBytes = 32 << 10
    /// Receives of each lane: a head or a part of each frame, and one more.
    static func receives(_ frames: Int) -> Int { frames + 1 }

    init(_ pairs: QueuePairs, ring: PinnedBuffer, credits: PinnedBuffer, frames: Int, budget: PinBudget, cipher: FrameCipher?) {
        self.pairs = pairs
        self.ring = ring
        self.credits = credits
        self.frames = frames
        self.budget = budget
        self.cipher = cipher
        unsafe head = .allocate(byteCount: Place.headBytes, alignment: 64)
        others = Array(repeating: 0, count: frames)
        hasHead = Array(repeating: false, count: frames)
        extents.reserveCapacity(Limits.frameExtents)
        requests.reserveCapacity(Limits.grantsPerFrame)
        grants.reserveCapacity(Limits.grantsPerFrame)
    }

    deinit { unsafe head.deallocate() }

    public func receive(into sink: any FrameSink) throws(TurntableError) -> FrameHeader? {
        let deadline = Clock.now + Limits.pollTime
        while true {
            try takeCompletions()
            if let prefix = try whole() { return try take(prefix, into: sink) }
            // Frames that were here before the end were taken.
            if let failure { throw failure }
            guard !pairs.hasEnded, !pairs.isPeerGone else { throw pairs.failure("receiving on", "") }
            let left = deadline - Clock.now
            guard left > .zero else { return nil }
            try pairs.wait(atMost: left) { () throws(TurntableError) in
                try takeCompletions()
                if failure != nil { return true }
                return try whole() != nil
            }
        }
    }

    public func endAccess() { granted.update { $0 = nil } }

    public func shutDown() { pairs.shutDown() }

    func peerLeft() { pairs.peerLeft() }

    // MARK: - What has come

    private func takeCompletions() throws(TurntableError) {
        while true {
            let count = try pairs.take { (completion) throws(TurntableError) in
                guard completion.status == 0 else {
                    failure = failure ?? pairs.failure("receiving on", of: completion)
                    return
                }
                switch completion.kind {
                case tt_received_immediate: try note(completion.immediate, lane: Int(completion.work))
                case tt_completed_send: pairs.lanes[0].done += 1
                default: throw protocolError("a message came where none is sent")
                }
            }
            if count < CompletionQueue.takenAtOnce { return }
        }
    }

    private func note(_ immediate: UInt32, lane: Int) throws(TurntableError) {
        let isHead = immediate & WriteList.headBit != 0
        let ahead = (immediate &- UInt32(truncatingIfNeeded: sequence)) & ~WriteList.headBit
        let place = Int((sequence + UInt64(ahead)) % UInt64(frames))
        guard ahead < frames, isHead == (lane == 0), !isHead || !hasHead[place] else {
            throw protocolError("frame \(immediate & ~WriteList.headBit) came on queue pair \(lane) when \(sequence) was due")
        }
        if isHead { hasHead[place] = true } else { others[place] += 1 }
        try unsafe pairs.receive(on: lane, work: UInt64(lane))
    }

    /// The prefix of the frame that is due, if all of it is here.
    private func whole() throws(TurntableError) -> PlacePrefix? {
        let place = Int(sequence % UInt64(frames))
        guard hasHead[place] else { return nil }
        unsafe memcpy(head.baseAddress!, ring.base + place * Place.bytes, Place.prefixBytes)
        let prefix = try wire { () throws(WireError) in
            try PlacePrefix.decode(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(head)), lanes: pairs.lanes.count)
        }
        return others[place] >= prefix.others ? prefix : nil
    }

    private func take(_ prefix: PlacePrefix, into sink: any FrameSink) throws(TurntableError) -> FrameHeader {
        let place = Int(sequence % UInt64(frames))
        let start = unsafe ring.base + place * Place.bytes
        // What was read of the prefix stands, whatever the place holds now.
        unsafe memcpy(head.baseAddress! + Place.prefixBytes, start + Place.prefixBytes, prefix.bytes - Place.prefixBytes + prefix.headBytes)
        try readRequests(prefix, sink.layout)
        let header = try readHead(prefix)
        let payload = unsafe start + Place.headBytes
        switch header.kind {
        case .pages, .blocks: try unsafe takePages(header, prefix, payload, into: sink)
        case .deviceState:
            let destination = unsafe try sink.deviceStateDestination(offset: Int(header.offset), count: header.payloadBytes)
            try checkBounced(header, prefix)
            beginPayload()
            unsafe put(payload, destination, header.payloadBytes)
            try unsafe endPayload(payload, header)
        case .warmUp: try checkBounced(header, prefix)
        }
        answerRequests(sink)
        (hasHead[place], others[place]) = (false, 0)
        sequence += 1
        try sendCredit()
        return header
    }

    private func readHead(_ prefix: PlacePrefix) throws(TurntableError) -> FrameHeader {
        let bytes = prefix.headBytes - (cipher == nil ? 0 : FrameCipher.tagBytes)
        guard bytes >= FrameHeader.bytes else { throw protocolError("its head has \(prefix.headBytes) bytes") }
        let start = prefix.bytes
        let header = try wire { () throws(WireError) in
            try FrameHeader.decode(
                unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(rebasing: head[start..<start + bytes])), expectedSequence: sequence)
        }
        guard bytes == FrameHeader.bytes + header.extentCount * Extent.bytes else { throw protocolError("its head has \(prefix.headBytes) bytes") }
        if let cipher {
            let isGenuine = unsafe cipher.head(
                of: sequence, UnsafeMutableRawBufferPointer(rebasing: head[start..<start + bytes]), headerBytes: FrameHeader.bytes,
                tag: head.baseAddress! + start + bytes)
            guard isGenuine else { throw notGenuine() }
        }
        return header
    }

    private func takePages(
        _ header: FrameHeader, _ prefix: PlacePrefix, _ payload: UnsafeMutableRawPointer, into sink: any FrameSink
    ) throws(TurntableError) {
        let layout = sink.layout
        extents.removeAll(keepingCapacity: true)
        var bytes = 0
        for index in 0..<header.extentCount {
            let position = prefix.bytes + FrameHeader.bytes + index * Extent.bytes
            let extent = try wire { () throws(WireError) in
                try Extent.decode(
                    unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(head)), at: position, of: header.kind, layout: layout, stream: pairs.stream)
            }
            bytes += extent.payloadBytes
            extents.append(extent)
        }
        guard bytes == header.payloadBytes else {
            throw wireError(WireError(.badPayload, value: UInt64(header.payloadBytes), limit: UInt64(bytes), offset: 16))
        }
        if prefix.isDirect { try checkDirect(prefix, bytes) } else { try checkBounced(header, prefix) }
        if !prefix.isDirect, bytes > 0 { beginPayload() }
        var offset = 0
        for extent in extents {
            guard extent.encoding == .raw else {
                try sink.zero(extent)
                continue
            }
            let destination = unsafe try sink.destination(of: extent)
            if !prefix.isDirect { unsafe put(payload + offset, destination, extent.payloadBytes) }
            offset += extent.payloadBytes
        }
        if !prefix.isDirect { try unsafe endPayload(payload, header) }
    }

    /// Its pages were written by the device, where it was let.
    private func checkDirect(_ prefix: PlacePrefix, _ bytes: Int) throws(TurntableError) {
        guard cipher == nil, prefix.payloadBytes == bytes else { throw protocolError("its payload did not come through the cipher") }
        let isLet = granted.read { granted in
            extents.allSatisfy { extent in
                extent.encoding == .zero
                    || granted?[StripeName(region: extent.region.value, stripe: extent.firstPage.value / Limits.stripePages)] != nil
            }
        }
        guard isLet else { throw protocolError("it is of stripes that the source was not let write") }
    }

    private func checkBounced(_ header: FrameHeader, _ prefix: PlacePrefix) throws(TurntableError) {
        let tag = cipher == nil || header.payloadBytes == 0 ? 0 : FrameCipher.tagBytes
        guard !prefix.isDirect, prefix.payloadBytes == header.payloadBytes + tag else {
            throw protocolError("its payload has \(prefix.payloadBytes) bytes in the ring, \(header.payloadBytes) in its head")
        }
    }

    // MARK: - Payload in the ring

    private func beginPayload() { cipher?.beginPayload(of: sequence) }

    /// Copies what the source can still write, and opens the copy.
    private func put(_ source: UnsafeMutableRawPointer, _ destination: UnsafeMutableRawPointer, _ bytes: Int) {
        guard let cipher else {
            unsafe memcpy(destination, source, bytes)
            return
        }
        var done = 0
        while done < bytes {
            let piece = min(bytes - done, Self.pieceBytes)
            unsafe memcpy(destination + done, source + done, piece)
            unsafe cipher.payload(destination + done, into: destination + done, bytes: piece)
            done += piece
        }
    }

    /// If it is not genuine the frame never counts: its pages, which no machine runs on, are sent again.
    private func endPayload(_ payload: UnsafeMutableRawPointer, _ header: FrameHeader) throws(TurntableError) {
        guard let cipher, header.payloadBytes > 0 else { return }
        let tag = unsafe head.baseAddress!
        unsafe memcpy(tag, payload + header.payloadBytes, FrameCipher.tagBytes)
        guard unsafe cipher.endPayload(tag: tag) else { throw notGenuine() }
    }

    // MARK: - Grants and credits

    private func readRequests(_ prefix: PlacePrefix, _ layout: MemoryLayoutTable) throws(TurntableError) {
        requests.removeAll(keepingCapacity: true)
        guard prefix.windows == 0 || cipher == nil else { throw protocolError("it asks for memory on a protected line") }
        for index in 0..<prefix.windows {
            let request = try wire { () throws(WireError) in
                try WindowRequest.decode(
                    unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(head)), index: index, layout: layout, stream: pairs.stream)
            }
            requests.append(request)
        }
    }

    /// In order: what is given back makes room for what is asked for.
    private func answerRequests(_ sink: any FrameSink) {
        grants.removeAll(keepingCapacity: true)
        for request in requests {
            let name = StripeName(region: request.region, stripe: request.stripe)
            guard request.isWanted else {
                granted.update { $0?[name] = nil }
                continue
            }
            grants.append(grant(name, sink))
        }
    }

    private func grant(_ name: StripeName, _ sink: any FrameSink) -> Grant {
        var grant = Grant(region: name.region, stripe: name.stripe, isGranted: false)
        let first = name.stripe * Limits.stripePages
        let pages = first..<min(first + Limits.stripePages, sink.layout.pages(in: name.region))
        guard let address = unsafe sink.writable(pages, in: RegionIndex(name.region)) else { return grant }
        // Within the lock, so that none is granted after the end of all.
        granted.update { granted in
            guard granted != nil, granted![name] == nil,
                let registration = try? unsafe Registration(
                    address, pages.count * pageBytes, .remoteWrite, pairs.domain, budget, what: "a stripe")
            else { return }
            granted![name] = registration
            grant.isGranted = true
            grant.address = UInt64(UInt(bitPattern: address))
            grant.key = registration.remoteKey
        }
        return grant
    }

    private func sendCredit() throws(TurntableError) {
        // The one before in this place has arrived: the source has sent a frame since that needed it.
        let place = Int(sequence % UInt64(frames))
        let buffer = unsafe UnsafeMutableRawBufferPointer(start: credits.base + place * Credit.bytes, count: Credit.bytes)
        var output = unsafe MutableRawSpan(_unsafeBytes: buffer)
        Credit.encode(taken: sequence, grants: grants.count, into: &output)
        for (index, grant) in grants.enumerated() { grant.encode(into: &output, index: index) }
        let bytes = Credit.headerBytes + grants.count * Credit.grantBytes
        let result = unsafe tt_post_send(pairs.lanes[0].id.raw, buffer.baseAddress!, UInt32(bytes), credits.localKey, 0)
        // The frame is here all the same; a line that has ended is seen when the next is waited for.
        if result != 0 { failure = failure ?? pairs.failure("answering on", errorText(-result)) }
    }

    // MARK: - Errors

    private func wire<Value>(_ body: () throws(WireError) -> Value) throws(TurntableError) -> Value {
        do { return try body() } catch { throw wireError(error) }
    }
    private func wireError(_ error: WireError) -> TurntableError { protocolError(error.description) }
    private func protocolError(_ why: String) -> TurntableError {
        TurntableError(.protocol, "frame \(sequence) of data stream \(pairs.stream)", why)
    }
    private func notGenuine() -> TurntableError {
        TurntableError(
            .line, "frame \(sequence) of data stream \(pairs.stream)",
            "it is not what the source sealed: the line damages bytes, or somebody does")
    }
}

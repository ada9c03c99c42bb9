// The streams of a Loopback: the wire format over its queues.

package import TurntableCore
internal import TurntableLinux
package import WireFormat

/// The control stream.
package final class LoopbackControl: ControlChannel {
    private let connection: any ByteConnection
    /// Whole messages only: a lock keeps two senders' bytes apart.
    private let sending = Monitor(())
    private let named: Monitor<AttachmentID>
    package var attachment: AttachmentID { named.read { $0 } }
    package var peerName: String { "" }
    package var peerKey: [UInt8] { [] }

    package init(_ connection: any ByteConnection, attachment: AttachmentID = .none) {
        self.connection = connection
        named = Monitor(attachment)
    }

    package func welcome(_ welcome: Welcome) { named.update { $0 = welcome.attachment } }

    package func send(_ message: ControlMessage) throws(TurntableError) {
        try sending.update { (_: inout Void) throws(TurntableError) in try connection.write(message.encoded()) }
    }

    package func receive(within limit: Nanoseconds) throws(TurntableError) -> ControlMessage? {
        guard connection.waitReadable(within: limit) else { return nil }
        let header = try connection.read(ControlMessage.headerBytes, within: Limits.stallTime)
        let (length, type) = try wire { () throws(WireError) in try ControlMessage.decodeHeader(header) }
        let body = try connection.read(length, within: Limits.stallTime)
        return try wire { () throws(WireError) in try ControlMessage.decode(type: type, body: body) }
    }

    package func shutDown() { connection.shutDown() }

    private func wire<Value>(_ body: () throws(WireError) -> Value) throws(TurntableError) -> Value {
        do { return try body() } catch { throw TurntableError(.protocol, "a message on the control stream", error.description) }
    }
}

/// The sending end of a data stream.
@safe package final class LoopbackSender: FrameSender, @unchecked Sendable {
    package let limits: TransportLimits
    private let connection: any ByteConnection
    private let pages: any PageSource
    private let roundTrip: Nanoseconds
    private let rate: BitRate?
    // The sending thread's alone, allocated here once.
    private let head: UnsafeMutableRawBufferPointer

    package init(
        _ connection: any ByteConnection, pages: any PageSource, roundTrip: Nanoseconds, rate: BitRate?,
        limits: TransportLimits = TransportLimits()
    ) {
        self.limits = limits
        self.rate = rate
        self.connection = connection
        self.pages = pages
        self.roundTrip = roundTrip
        unsafe head = .allocate(byteCount: frameHeadBytes, alignment: 64)
    }

    deinit { unsafe head.deallocate() }

    package func send(_ frame: FrameDraft) throws(TurntableError) {
        var output = unsafe MutableRawSpan(_unsafeBytes: head)
        frame.encodeHead(into: &output)
        if let rate { Clock.sleep(rate.time(for: ByteCount(frame.headBytes + frame.payloadBytes))) }
        try unsafe connection.write(UnsafeRawBufferPointer(rebasing: head[..<frame.headBytes]))
        if !frame.inlinePayload.isEmpty { return try connection.write(frame.inlinePayload) }
        for extent in frame.extents where extent.encoding == .raw {
            // Copied while the guest may write: torn pages are legal, see DirtyLog.
            try unsafe connection.write(
                UnsafeRawBufferPointer(start: frame.address(of: extent, in: pages), count: extent.payloadBytes))
        }
    }

    /// The pages were copied into the queue.
    package func flush() {}

    package var status: LineStatus {
        var status = LineStatus()
        status.roundTrip = roundTrip
        let sent = connection.sent
        status.unsentBytes = ByteCount(sent.unread)
        status.acknowledgedBytes = ByteCount(sent.read)
        return status
    }

    package var summary: String { "loopback" }

    package func shutDown() { connection.shutDown() }
}

/// The receiving end of a data stream.
@safe package final class LoopbackReceiver: FrameReceiver, @unchecked Sendable {
    private let connection: any ByteConnection
    private let stream: Int
    // The receiving thread's alone, allocated here once.
    private let head: UnsafeMutableRawBufferPointer
    private var sequence: UInt64 = 0

    package init(_ connection: any ByteConnection, stream: Int) {
        self.connection = connection
        self.stream = stream
        unsafe head = .allocate(byteCount: frameHeadBytes, alignment: 64)
    }

    deinit { unsafe head.deallocate() }

    package func receive(into sink: any FrameSink) throws(TurntableError) -> FrameHeader? {
        guard connection.waitReadable(within: Limits.pollTime) else { return nil }
        try unsafe connection.read(into: UnsafeMutableRawBufferPointer(rebasing: head[..<FrameHeader.bytes]))
        let header = try wire { () throws(WireError) in
            try FrameHeader.decode(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(head)), expectedSequence: sequence)
        }
        switch header.kind {
        case .pages, .blocks: try receivePages(header, into: sink)
        case .deviceState:
            let destination = unsafe try sink.deviceStateDestination(offset: Int(header.offset), count: header.payloadBytes)
            try unsafe connection.read(into: UnsafeMutableRawBufferPointer(start: destination, count: header.payloadBytes))
        case .warmUp: _ = try connection.read(header.payloadBytes, within: Limits.stallTime)
        }
        sequence += 1
        return header
    }

    package func shutDown() { connection.shutDown() }

    private func receivePages(_ header: FrameHeader, into sink: any FrameSink) throws(TurntableError) {
        let end = FrameHeader.bytes + header.extentCount * Extent.bytes
        try unsafe connection.read(into: UnsafeMutableRawBufferPointer(rebasing: head[FrameHeader.bytes..<end]))
        var raw: [Extent] = []
        for position in stride(from: FrameHeader.bytes, to: end, by: Extent.bytes) {
            let extent = try wire { () throws(WireError) in
                try Extent.decode(
                    unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(head)), at: position, of: header.kind, layout: sink.layout, stream: stream)
            }
            if extent.encoding == .raw { raw.append(extent) } else { try sink.zero(extent) }
        }
        let payload = raw.reduce(0) { $0 + $1.payloadBytes }
        try wire { () throws(WireError) in
            guard payload == header.payloadBytes else {
                throw WireError(.badPayload, value: UInt64(header.payloadBytes), limit: UInt64(payload), offset: 16)
            }
        }
        for extent in raw {
            try unsafe connection.read(into: UnsafeMutableRawBufferPointer(start: sink.destination(of: extent), count: extent.payloadBytes))
        }
    }

    private func wire<Value>(_ body: () throws(WireError) -> Value) throws(TurntableError) -> Value {
        do { return try body() } catch { throw TurntableError(.protocol, "frame \(sequence) of data stream \(stream)", error.description) }
    }
}

/// One direction of a connection: a ring of bytes of fixed size. One thread writes at a time, and one reads.
@safe final class LoopbackQueue: @unchecked Sendable {
    private struct State {
        var start = 0
        var count = 0
        var read = 0
        var isClosed = false
    }
    private let capacity: Int
    // Written and read under the lock of `state`.
    private let bytes: UnsafeMutableRawPointer
    private let state = Monitor(State())

    init(capacity: Int) {
        self.capacity = capacity
        unsafe bytes = .allocate(byteCount: capacity, alignment: pageBytes)
    }

    deinit { unsafe bytes.deallocate() }

    var counts: (unread: Int, read: Int) { state.read { ($0.count, $0.read) } }

    func close() { state.update { $0.isClosed = true } }

    func cut() {
        state.update {
            $0.isClosed = true
            $0.count = 0
        }
    }

    func holds(_ count: Int) -> Bool { state.read { $0.count >= count || $0.isClosed } }

    func waitForBytes(within limit: Nanoseconds) -> Bool {
        state.wait(atMost: limit) { $0.count > 0 || $0.isClosed ? true : nil } ?? false
    }

    func write(_ buffer: UnsafeRawBufferPointer) throws(TurntableError) {
        var done = 0
        while done < buffer.count {
            guard state.wait(atMost: Limits.stallTime, until: { $0.isClosed || $0.count < capacity ? true : nil }) != nil else {
                throw TurntableError(.line, "sending on the loopback", "nothing moved for \(Limits.stallTime)")
            }
            let moved = state.update { state -> Int? in
                if state.isClosed { return nil }
                let end = (state.start + state.count) % capacity
                let piece = min(buffer.count - done, capacity - state.count, capacity - end)
                unsafe (bytes + end).copyMemory(from: buffer.baseAddress! + done, byteCount: piece)
                state.count += piece
                return piece
            }
            guard let moved else { throw TurntableError(.line, "sending on the loopback", "it is closed") }
            done += moved
        }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, within limit: Nanoseconds) throws(TurntableError) {
        var done = 0
        while done < buffer.count {
            guard waitForBytes(within: limit) else { throw TurntableError(.line, "receiving on the loopback", "nothing came for \(limit)") }
            let moved = state.update { state in
                let piece = min(buffer.count - done, state.count, capacity - state.start)
                if piece > 0 { unsafe (buffer.baseAddress! + done).copyMemory(from: bytes + state.start, byteCount: piece) }
                state.start = (state.start + piece) % capacity
                state.count -= piece
                state.read += piece
                return piece
            }
            guard moved > 0 else {
                throw TurntableError(.line, "receiving on the loopback", "the peer closed it after \(done) of \(buffer.count) bytes")
            }
            done += moved
        }
    }
}

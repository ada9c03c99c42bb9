internal import CTurntableLinux
internal import Glibc
internal import Protection
public import Transport
public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// The receiving end of a TCP data stream: heads into a buffer of its own, pages straight into guest memory.
@safe public final class TCPFrameReceiver: FrameReceiver, @unchecked Sendable {
    private let socket: StreamSocket
    /// Of a protected line.
    private let cipher: FrameCipher?

    // The receiving thread's alone, all allocated here once.
    private let head: UnsafeMutableRawBufferPointer
    /// For what carries nothing; only what is written takes memory.
    private let discarded: UnsafeMutableRawBufferPointer
    private let vectors: UnsafeMutableBufferPointer<iovec>
    private var sequence: UInt64 = 0

    init(socket: StreamSocket, cipher: FrameCipher?) {
        self.socket = socket
        self.cipher = cipher
        unsafe head = .allocate(byteCount: frameHeadBytes + FrameCipher.tagBytes, alignment: 64)
        unsafe discarded = .allocate(byteCount: Limits.framePayloadBytes, alignment: 64)
        unsafe vectors = .allocate(capacity: Limits.frameExtents + 1)
    }

    deinit {
        unsafe head.deallocate()
        unsafe discarded.deallocate()
        unsafe vectors.deallocate()
    }

    public func receive(into sink: any FrameSink) throws(TurntableError) -> FrameHeader? {
        guard try Socket.waitReadable(socket.descriptor, within: Limits.pollTime) else {
            if socket.hasEnded { throw socket.stalled("receiving on") }
            return nil
        }
        try receive(0, count: FrameHeader.bytes, isStart: true)
        let header = try wire { () throws(WireError) in
            try FrameHeader.decode(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(head)), expectedSequence: sequence)
        }
        try receiveExtents(header)
        switch header.kind {
        case .pages, .blocks: try receivePages(header, into: sink)
        case .deviceState:
            let destination = unsafe try sink.deviceStateDestination(offset: Int(header.offset), count: header.payloadBytes)
            unsafe vectors[0] = iovec(iov_base: destination, iov_len: header.payloadBytes)
            try receivePayload(1, header)
        case .warmUp:
            unsafe vectors[0] = iovec(iov_base: discarded.baseAddress, iov_len: header.payloadBytes)
            try receivePayload(1, header)
        }
        sequence += 1
        return header
    }

    public func shutDown() { socket.shutDown() }

    /// The rest of the frame's head, which says where its payload goes: believed only if it is what the source sealed.
    private func receiveExtents(_ header: FrameHeader) throws(TurntableError) {
        let count = header.extentCount * Extent.bytes
        try receive(FrameHeader.bytes, count: count + (cipher == nil ? 0 : FrameCipher.tagBytes))
        guard let cipher else { return }
        let end = FrameHeader.bytes + count
        let isGenuine = unsafe cipher.head(
            of: sequence, UnsafeMutableRawBufferPointer(rebasing: head[..<end]), headerBytes: FrameHeader.bytes, tag: head.baseAddress! + end)
        guard isGenuine else { throw notGenuine() }
    }

    private func receivePages(_ header: FrameHeader, into sink: any FrameSink) throws(TurntableError) {
        let layout = sink.layout
        var count = 0
        var payload = 0
        for index in 0..<header.extentCount {
            let position = FrameHeader.bytes + index * Extent.bytes
            let extent = try wire { () throws(WireError) in
                try Extent.decode(
                    unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(head)), at: position, of: header.kind, layout: layout,
                    stream: socket.stream)
            }
            switch extent.encoding {
            case .zero: try sink.zero(extent)
            case .raw:
                unsafe vectors[count] = iovec(iov_base: try sink.destination(of: extent), iov_len: extent.payloadBytes)
                count += 1
                payload += extent.payloadBytes
            }
        }
        guard payload == header.payloadBytes else {
            throw protocolError(WireError(.badPayload, value: UInt64(header.payloadBytes), limit: UInt64(payload), offset: 16))
        }
        try receivePayload(count, header)
    }

    /// Fills `vectors[..<count]`, and opens what came where it lies. If it is not genuine the frame never counts: its pages,
    /// which no machine runs on, are sent again.
    private func receivePayload(_ count: Int, _ header: FrameHeader) throws(TurntableError) {
        guard let cipher, header.payloadBytes > 0 else { return try unsafe receiveVectors(count) }
        let tag = unsafe head.baseAddress! + frameHeadBytes
        unsafe vectors[count] = iovec(iov_base: tag, iov_len: FrameCipher.tagBytes)
        cipher.beginPayload(of: sequence)
        var left = header.payloadBytes
        try unsafe receiveVectors(count + 1) { address, bytes in
            // Opened as it comes, while it is in the cache; the tag is no payload.
            let piece = min(bytes, left)
            if piece > 0 { unsafe cipher.payload(address, into: address, bytes: piece) }
            left -= piece
        }
        guard unsafe cipher.endPayload(tag: tag) else { throw notGenuine() }
    }

    private func receive(_ offset: Int, count: Int, isStart: Bool = false) throws(TurntableError) {
        unsafe vectors[0] = iovec(iov_base: head.baseAddress! + offset, iov_len: count)
        try unsafe receiveVectors(count == 0 ? 0 : 1, isStart: isStart)
    }

    /// Fills `vectors[..<count]` whole.
    /// - Parameter arrived: is told of each piece that came, in order.
    private func receiveVectors(
        _ count: Int, isStart: Bool = false, arrived: (UnsafeMutableRawPointer, Int) -> Void = { _, _ in }
    ) throws(TurntableError) {
        var next = 0
        var isStart = isStart
        while next < count {
            let moved = try socket.move("receiving on") {
                unsafe tt_receive_vectors(socket.rawValue, vectors.baseAddress! + next, Int32(count - next))
            }
            if moved == 0 {
                throw socket.error(
                    "receiving on", isStart ? "the source closed the stream" : "the source closed the stream in the middle of a frame")
            }
            isStart = false
            var left = moved
            for index in next..<count where left > 0 {
                let piece = min(left, unsafe vectors[index].iov_len)
                unsafe arrived(vectors[index].iov_base, piece)
                left -= piece
            }
            unsafe advance(vectors, from: &next, by: moved)
        }
    }

    private func wire<Value>(_ body: () throws(WireError) -> Value) throws(TurntableError) -> Value {
        do { return try body() } catch { throw protocolError(error) }
    }

    private func protocolError(_ error: WireError) -> TurntableError {
        TurntableError(.protocol, "frame \(sequence) of data stream \(socket.stream)", error.description)
    }

    /// The line's fault, whoever did it: what the frame carried is sent again over another.
    private func notGenuine() -> TurntableError {
        TurntableError(
            .line, "frame \(sequence) of data stream \(socket.stream)", "it is not what the source sealed: the line damages bytes, or somebody does")
    }
}

internal import CTurntableLinux
internal import Glibc
internal import Synchronization
public import Transport
public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// The receiving end of a TCP data stream: heads into a buffer of its own, pages straight into guest memory.
@safe public final class TCPFrameReceiver: FrameReceiver, @unchecked Sendable {
    private let socket: Descriptor
    private let stream: Int
    private let isShutDown = Atomic(false)

    // The receiving thread's alone, all allocated here once.
    private let head: UnsafeMutableRawBufferPointer
    private let discarded: UnsafeMutableRawBufferPointer
    private let vectors: UnsafeMutableBufferPointer<iovec>
    private var sequence: UInt64 = 0

    init(socket: consuming Descriptor, stream: Int) {
        self.socket = socket
        self.stream = stream
        unsafe head = .allocate(byteCount: frameHeadBytes, alignment: 64)
        unsafe discarded = .allocate(byteCount: Self.discardBytes, alignment: 64)
        unsafe vectors = .allocate(capacity: Limits.frameExtents)
    }

    deinit {
        unsafe head.deallocate()
        unsafe discarded.deallocate()
        unsafe vectors.deallocate()
    }

    private static let discardBytes = 64 << 10

    public func receive(into sink: any FrameSink) throws(TurntableError) -> FrameHeader? {
        guard try Socket.waitReadable(socket, within: Limits.pollTime) else {
            if isShutDown.load(ordering: .relaxed) {
                throw TurntableError(.cancelled, "receiving on data stream \(stream)", "the stream was shut down")
            }
            return nil
        }
        try receive(0, count: FrameHeader.bytes, isStart: true)
        let header = try wire { () throws(WireError) in
            try FrameHeader.decode(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(head)), expectedSequence: sequence)
        }
        switch header.kind {
        case .pages: try receivePages(header, into: sink)
        case .deviceState:
            let destination = unsafe try sink.deviceStateDestination(offset: Int(header.offset), count: header.payloadBytes)
            unsafe vectors[0] = iovec(iov_base: destination, iov_len: header.payloadBytes)
            try receiveVectors(1)
        case .warmUp:
            var left = header.payloadBytes
            while left > 0 {
                let piece = min(left, Self.discardBytes)
                unsafe vectors[0] = iovec(iov_base: discarded.baseAddress, iov_len: piece)
                try receiveVectors(1)
                left -= piece
            }
        }
        sequence += 1
        return header
    }

    public func shutDown() {
        isShutDown.store(true, ordering: .relaxed)
        Socket.shutDown(socket)
    }

    private func receivePages(_ header: FrameHeader, into sink: any FrameSink) throws(TurntableError) {
        try receive(FrameHeader.bytes, count: header.extentCount * Extent.bytes)
        let layout = sink.layout
        var count = 0
        var payload = 0
        for index in 0..<header.extentCount {
            let position = FrameHeader.bytes + index * Extent.bytes
            let extent = try wire { () throws(WireError) in
                try Extent.decode(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(head)), at: position, layout: layout, stream: stream)
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
        try receiveVectors(count)
    }

    private func receive(_ offset: Int, count: Int, isStart: Bool = false) throws(TurntableError) {
        unsafe vectors[0] = iovec(iov_base: head.baseAddress! + offset, iov_len: count)
        try receiveVectors(1, isStart: isStart)
    }

    /// Fills `vectors[..<count]` whole.
    private func receiveVectors(_ count: Int, isStart: Bool = false) throws(TurntableError) {
        var next = 0
        var isStart = isStart
        var deadline = Clock.now + Limits.stallTime
        while next < count {
            let moved = unsafe tt_receive_vectors(socket.rawValue, vectors.baseAddress! + next, Int32(count - next))
            if moved == -Int(EAGAIN) {
                guard !isShutDown.load(ordering: .relaxed) else {
                    throw TurntableError(.cancelled, "receiving on data stream \(stream)", "the stream was shut down")
                }
                guard Clock.now < deadline else {
                    throw TurntableError(
                        .line, "receiving on data stream \(stream)", "nothing came for \(Limits.stallTime) in the middle of a frame")
                }
                continue
            }
            if moved <= 0 {
                let reason =
                    moved < 0
                    ? errorText(Int32(-moved))
                    : isStart ? "the source closed the stream" : "the source closed the stream in the middle of a frame"
                throw TurntableError(.line, "receiving on data stream \(stream)", reason)
            }
            isStart = false
            deadline = Clock.now + Limits.stallTime
            unsafe advance(vectors, from: &next, by: moved)
        }
    }

    private func wire<Value>(_ body: () throws(WireError) -> Value) throws(TurntableError) -> Value {
        do { return try body() } catch { throw protocolError(error) }
    }

    private func protocolError(_ error: WireError) -> TurntableError {
        TurntableError(.protocol, "frame \(sequence) of data stream \(stream)", error.description)
    }
}

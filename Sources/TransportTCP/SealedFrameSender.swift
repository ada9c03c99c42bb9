internal import CTurntableLinux
internal import Glibc
internal import Protection
public import Transport
public import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A data stream of a protected line. Pages are read from guest memory once, by the cipher, and leave from a buffer of this
/// stream's: the one copy that protection costs.
@safe public final class SealedFrameSender: FrameSender, @unchecked Sendable {
    public let limits = TransportLimits()
    private let socket: StreamSocket
    private let pages: any PageSource
    private let line: String
    private let cipher: FrameCipher
    /// On a way with link elements.
    private let mac: HeaderMAC?

    // The sending thread's alone, all allocated here once.
    private let buffer: UnsafeMutableRawBufferPointer
    private let vector = UnsafeMutablePointer<iovec>.allocate(capacity: 1)
    private var filled = 0

    /// Sealed bytes that go to the kernel at once: they are still in the processor's cache when it copies them.
    private static let pieceBytes = 256 << 10

    init(socket: StreamSocket, pages: any PageSource, cipher: FrameCipher, mac: HeaderMAC? = nil, line: String) {
        self.mac = mac
        self.socket = socket
        self.pages = pages
        self.cipher = cipher
        self.line = line
        unsafe buffer = .allocate(byteCount: Self.pieceBytes, alignment: pageBytes)
    }

    deinit {
        unsafe buffer.deallocate()
        unsafe vector.deallocate()
    }

    public func send(_ frame: FrameDraft) throws(TurntableError) {
        do throws(TurntableError) { try sendAll(frame) } catch {
            // An element that stops the stream has said why.
            throw mac == nil ? error : LinkAnswer.lateWord(on: socket.descriptor) ?? error
        }
    }

    private func sendAll(_ frame: FrameDraft) throws(TurntableError) {
        sealHead(frame)
        if frame.payloadBytes > 0 {
            cipher.beginPayload(of: frame.sequence)
            if frame.inlinePayload.isEmpty {
                for extent in frame.extents where extent.encoding == .raw {
                    try unsafe seal(frame.address(of: extent, in: pages), bytes: extent.payloadBytes)
                }
            } else {
                try sealInline(frame.inlinePayload)
            }
            if Self.pieceBytes - filled < FrameCipher.tagBytes { try flushBuffer(more: true) }
            _ = unsafe cipher.endPayload(tag: buffer.baseAddress! + filled)
            filled += FrameCipher.tagBytes
        }
        try flushBuffer(more: false)
    }

    /// Nothing refers to guest memory once a frame was sent.
    public func flush() {}
    public var status: LineStatus { socket.status }
    public var summary: String { "\(line), pages sealed with AES-256-GCM" }
    public func shutDown() { socket.shutDown() }
    public func pace(at share: BitRate) throws(TurntableError) { try socket.pace(at: share) }

    private func sealHead(_ frame: FrameDraft) {
        let bytes = frame.headBytes
        var output = unsafe MutableRawSpan(_unsafeBytes: buffer)
        frame.encodeHead(into: &output)
        if let mac {
            output.store(unsafe mac.mark(of: frame.sequence, buffer.baseAddress!, bytes: FrameHeader.authenticatedBytes), at: FrameHeader.authenticatedBytes)
        }
        let head = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<bytes])
        _ = unsafe cipher.head(of: frame.sequence, head, headerBytes: FrameHeader.bytes, tag: buffer.baseAddress! + bytes)
        filled = bytes + FrameCipher.tagBytes
    }

    private func seal(_ address: UnsafeRawPointer, bytes: Int) throws(TurntableError) {
        var done = 0
        while done < bytes {
            if filled == Self.pieceBytes { try flushBuffer(more: true) }
            let piece = min(bytes - done, Self.pieceBytes - filled)
            unsafe cipher.payload(address + done, into: buffer.baseAddress! + filled, bytes: piece)
            filled += piece
            done += piece
        }
    }

    private func sealInline(_ bytes: [UInt8]) throws(TurntableError) {
        // The address of an array holds only inside the closure, so the error comes out as a value.
        let failure: TurntableError? = unsafe bytes.withUnsafeBytes { bytes in
            do throws(TurntableError) { try unsafe seal(bytes.baseAddress!, bytes: bytes.count) } catch { return error }
            return nil
        }
        if let failure { throw failure }
    }

    private func flushBuffer(more: Bool) throws(TurntableError) {
        var done = 0
        while done < filled {
            unsafe vector.pointee = iovec(iov_base: buffer.baseAddress! + done, iov_len: filled - done)
            done += try socket.move("sending on") { unsafe tt_send_vectors(socket.rawValue, vector, 1, more ? 1 : 0, 0) }
        }
        filled = 0
    }
}

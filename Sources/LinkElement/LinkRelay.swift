internal import CTurntableLinux
internal import Capability
internal import Glibc
internal import Protection
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A connection that goes on, with a thread for the way back.
final class LinkRelay: Sendable {
    private let source: Descriptor
    private let next: Descriptor
    private let preface: Preface
    private let passage: Passage
    private let peer: String
    private let element: LinkElement

    init(
        from source: consuming Descriptor, to next: consuming Descriptor, _ preface: Preface, _ passage: Passage, peer: String, at element: LinkElement
    ) {
        self.source = source
        self.next = next
        (self.preface, self.passage, self.peer, self.element) = (preface, passage, peer, element)
    }

    private var stream: String { preface.role == .control ? "control" : "data \(preface.stream)" }

    func run() {
        let token = "\(passage.use.claims.id)"
        element.report(.passed(peer: peer, token: token, stream: stream))
        let back = WorkerThread("tt-link-back") { [self] in passBack() }
        var moved = 0
        do throws(TurntableError) {
            if preface.role == .control { moved = try passControl() } else { try passFrames(&moved) }
            Socket.endWriting(next)
        } catch {
            if error.kind == .refused || error.kind == .protocol {
                element.report(.refused(peer: peer, error))
                // The target says nothing on a data stream; on a control stream these would be no TLS.
                if preface.role == .data { element.answer(source, error) }
            }
            Socket.shutDown(source)
            Socket.shutDown(next)
        }
        back.join()
        element.report(.ended(peer: peer, token: token, stream: stream, ByteCount(moved)))
    }

    private func passBack() {
        do throws(TurntableError) {
            _ = try SplicePipe().moveAll(from: next, to: source, atMost: Limits.linkControlBytes) { (idle) throws(TurntableError) in
                // On a data stream the target says nothing.
                try wait(preface.role == .data ? .zero : idle)
            }
            Socket.endWriting(source)
        } catch {
            Socket.shutDown(source)
            Socket.shutDown(next)
        }
    }

    private func passControl() throws(TurntableError) -> Int {
        try SplicePipe().moveAll(from: source, to: next, atMost: Limits.linkControlBytes, wait: wait)
    }

    /// Frame after frame: the header is read and checked, the rest goes by.
    private func passFrames(_ moved: inout Int) throws(TurntableError) {
        let tag = FrameCipher.tagBytes
        let pipe = try SplicePipe()
        _ = try pipe.move(SessionSecret.proofBytes, from: source, to: next, wait: wait)
        let mac = HeaderMAC(passage.key)
        let head = UnsafeMutableRawBufferPointer.allocate(byteCount: FrameHeader.bytes, alignment: 64)
        defer { unsafe head.deallocate() }
        var sequence: UInt64 = 0
        while try unsafe receive(head) {
            let header: FrameHeader
            do throws(WireError) {
                header = try FrameHeader.decode(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(head)), expectedSequence: sequence)
            } catch { throw TurntableError(.protocol, "frame \(sequence) of \(stream)", error.description) }
            guard header.mac == (unsafe mac.mark(of: sequence, head.baseAddress!, bytes: FrameHeader.authenticatedBytes)) else {
                throw TurntableError(.refused, "frame \(sequence) of \(stream)", "it does not have the mark of whoever showed the token")
            }
            try element.gate.check(passage.use, header)
            let rest = header.extentCount * Extent.bytes + tag + (header.payloadBytes > 0 ? header.payloadBytes + tag : 0)
            try unsafe send(head, more: rest > 0)
            guard try pipe.move(rest, from: source, to: next, wait: wait) == rest else { return }
            moved += FrameHeader.bytes + rest
            sequence += 1
        }
    }

    /// False at the end of the stream.
    private func receive(_ head: UnsafeMutableRawBufferPointer) throws(TurntableError) -> Bool {
        var done = 0
        while done < head.count {
            var vector = unsafe iovec(iov_base: head.baseAddress! + done, iov_len: head.count - done)
            let moved = try untilMoved("receiving", wait) { unsafe tt_receive_vectors(source.rawValue, &vector, 1) }
            if moved == 0 { return false }
            done += moved
        }
        return true
    }

    private func send(_ head: UnsafeMutableRawBufferPointer, more: Bool) throws(TurntableError) {
        var done = 0
        while done < head.count {
            var vector = unsafe iovec(iov_base: head.baseAddress! + done, iov_len: head.count - done)
            done += try untilMoved("sending on", wait) { unsafe tt_send_vectors(next.rawValue, &vector, 1, more ? 1 : 0, 0) }
        }
    }

    /// Nothing moves one way, for as long as `idle`.
    private func wait(_ idle: Nanoseconds) throws(TurntableError) {
        if element.hasEnded { throw TurntableError(.cancelled, stream, "the element ends") }
        if idle > Limits.linkIdleTime { throw TurntableError(.line, stream, "nothing moved for \(Limits.linkIdleTime)") }
    }
}

internal import CTurntableLinux
internal import Glibc
public import Transport
public import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A data stream over one TCP connection. Headers come from a buffer of its own; pages go from guest memory to the
/// kernel by address or by file, never through this process's heap.
@safe public final class TCPFrameSender: FrameSender, @unchecked Sendable {
    public let limits = TransportLimits()
    private let socket: StreamSocket
    private let pages: any PageSource
    private let line: String

    // The sending thread's alone, all allocated here once.
    private let head: UnsafeMutableRawBufferPointer
    private let vectors: UnsafeMutableBufferPointer<iovec>
    private var trial: SendMethodTrial
    private var zeroCopySends: UInt32 = 0
    private var zeroCopyCompletions: UInt32 = 0
    private let decision: Monitor<String>

    init(socket: StreamSocket, pages: any PageSource, options: LineOptions, line: String) {
        self.socket = socket
        self.pages = pages
        self.line = line
        unsafe head = .allocate(byteCount: frameHeadBytes, alignment: 64)
        unsafe vectors = .allocate(capacity: Limits.frameExtents + 1)
        var candidates: [SendMethod] = [.copied]
        if pages.regions.indices.allSatisfy({ pages.file(of: RegionIndex($0)) != nil }) { candidates.append(.spliced) }
        if tt_set_zero_copy(socket.rawValue) == 0 { candidates.append(.zeroCopy) }
        if let asked = options.sendMethod { candidates = candidates.filter { $0 == asked } }
        trial = SendMethodTrial(candidates: candidates.isEmpty ? [.copied] : candidates)
        decision = Monitor(trial.report)
    }

    deinit {
        unsafe head.deallocate()
        unsafe vectors.deallocate()
    }

    public func send(_ frame: FrameDraft) throws(TurntableError) {
        var output = unsafe MutableRawSpan(_unsafeBytes: head)
        frame.encodeHead(into: &output)
        let isLarge = frame.kind == .pages && frame.payloadBytes >= SendMethodTrial.smallestExtentBytes * frame.extents.count
        guard isLarge else { return try sendCopied(frame, zeroCopy: false) }
        let method = trial.method
        let isTrying = !trial.isDecided
        let started = isTrying ? (Clock.now, Clock.threadTime) : (.zero, .zero)
        switch method {
        case .copied: try sendCopied(frame, zeroCopy: false)
        case .spliced: try sendSpliced(frame)
        case .zeroCopy: try sendCopied(frame, zeroCopy: true)
        }
        if isTrying, !trial.isDecided {
            trial.sent(frame.payloadBytes, wall: Clock.now - started.0, processor: Clock.threadTime - started.1)
            publishDecision()
        }
    }

    public func flush() throws(TurntableError) {
        let deadline = Clock.now + Limits.stallTime
        while zeroCopyCompletions != zeroCopySends {
            try reapZeroCopy()
            if zeroCopyCompletions == zeroCopySends { break }
            guard Clock.now < deadline, !socket.hasEnded else { throw socket.stalled("waiting for the line to let go of pages of") }
            Clock.sleep(.milliseconds(1))
        }
    }

    public var status: LineStatus { socket.status }

    public var summary: String {
        let method = decision.read { $0 }
        return "\(line), pages \(method.isEmpty ? "being tried" : method)"
    }

    public func shutDown() { socket.shutDown() }
    public func pace(at share: BitRate) throws(TurntableError) { try socket.pace(at: share) }

    // MARK: - By address

    private func sendCopied(_ frame: FrameDraft, zeroCopy: Bool) throws(TurntableError) {
        if !frame.inlinePayload.isEmpty {
            try sendHead(frame, more: true)
            return try sendInline(frame.inlinePayload)
        }
        unsafe vectors[0] = iovec(iov_base: head.baseAddress, iov_len: frame.headBytes)
        var count = 1
        for extent in frame.extents where extent.encoding == .raw {
            // The kernel reads through this address and never writes: the cast only serves iovec's C type.
            unsafe vectors[count] = iovec(
                iov_base: UnsafeMutableRawPointer(mutating: frame.address(of: extent, in: pages)),
                iov_len: extent.payloadBytes)
            count += 1
        }
        if zeroCopy {
            // The header's buffer is used again at once, so only the pages go by reference.
            try sendHead(frame, more: count > 1)
            try sendVectors(from: 1, to: count, zeroCopy: true)
            try reapZeroCopy()
        } else {
            try sendVectors(from: 0, to: count, zeroCopy: false)
        }
    }

    private func sendHead(_ frame: FrameDraft, more: Bool) throws(TurntableError) {
        unsafe vectors[0] = iovec(iov_base: head.baseAddress, iov_len: frame.headBytes)
        try sendVectors(from: 0, to: 1, zeroCopy: false, more: more)
    }

    private func sendInline(_ bytes: [UInt8]) throws(TurntableError) {
        // The address of an array holds only inside the closure, so the error comes out as a value.
        let failure: TurntableError? = unsafe bytes.withUnsafeBytes { bytes in
            unsafe vectors[0] = iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count)
            do throws(TurntableError) { try sendVectors(from: 0, to: 1, zeroCopy: false) } catch { return error }
            return nil
        }
        if let failure { throw failure }
    }

    /// Sends `vectors[from..<to]` whole, advancing through them as the kernel takes bytes.
    private func sendVectors(from start: Int, to end: Int, zeroCopy: Bool, more: Bool = false) throws(TurntableError) {
        var next = start
        var zeroCopy = zeroCopy
        while next < end {
            let moved = try socket.move("sending on", allowing: zeroCopy ? ENOBUFS : 0) {
                unsafe tt_send_vectors(socket.rawValue, vectors.baseAddress! + next, Int32(end - next), more ? 1 : 0, zeroCopy ? 1 : 0)
            }
            if moved < 0 {
                // No memory for another completion: this frame goes by copy.
                zeroCopy = false
                try reapZeroCopy()
                continue
            }
            if zeroCopy { zeroCopySends += 1 }
            unsafe advance(vectors, from: &next, by: moved)
        }
    }

    private func reapZeroCopy() throws(TurntableError) {
        var copied: Int32 = 0
        let result = unsafe tt_reap_zero_copy(socket.rawValue, &zeroCopyCompletions, &copied)
        if result < 0 { throw socket.error("sending on", errorText(-result)) }
        if copied != 0, trial.method == .zeroCopy {
            trial.exclude("the device copies")
            publishDecision()
        }
    }

    // MARK: - By file

    private func sendSpliced(_ frame: FrameDraft) throws(TurntableError) {
        try sendHead(frame, more: true)
        for extent in frame.extents where extent.encoding == .raw {
            guard let file = pages.file(of: extent.region) else { preconditionFailure("spliced from a region without a file") }
            var offset = Int64(extent.firstPage.byteOffset)
            var left = extent.payloadBytes
            while left > 0 {
                let moved = try socket.move("sending on") { tt_send_file(socket.rawValue, file, offset, left) }
                if moved == 0 { throw socket.error("sending on", errorText(EIO)) }
                offset += Int64(moved)
                left -= moved
            }
        }
    }

    private func publishDecision() {
        guard trial.isDecided else { return }
        let report = trial.report
        decision.update { $0 = report }
    }
}

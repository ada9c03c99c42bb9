internal import CTurntableVerbs
internal import Glibc
internal import Synchronization
internal import TurntableCore
internal import TurntableLinux

/// One reliable connection of a stream.
@safe final class Lane: @unchecked Sendable {
    let id: ConnectionID
    private let completions: CompletionQueue
    private let domain: ProtectionDomain
    // The stream's thread's alone: writes that were posted, and those that are known to be done.
    var posted = 0
    var done = 0

    init(_ id: ConnectionID, _ completions: CompletionQueue, _ domain: ProtectionDomain, sends: Int, receives: Int) throws(TurntableError) {
        try checked(
            unsafe tt_qp_open(id.raw, domain.raw, completions.raw, Int32(sends), Int32(receives)), "making an RDMA queue pair",
            remedy: "use fewer streams; see `turntable doctor rdma` for what the device has")
        self.id = id
        self.completions = completions
        self.domain = domain
    }
    deinit { unsafe tt_qp_close(id.raw) }
}

/// One end of a data stream: its queue pairs, and how its thread waits for them.
@safe final class QueuePairs: @unchecked Sendable {
    let stream: Int
    let domain: ProtectionDomain
    let completions: CompletionQueue
    let lanes: [Lane]
    private let waker: Descriptor
    /// Of a source: told when the other end leaves. A target has one for all of its streams.
    private let events: EventChannel?
    private let isShutDown = Atomic(false)
    private let hasPeerLeft = Atomic(false)
    private let isDisconnected = Atomic(false)
    private let taken = UnsafeMutablePointer<tt_completion>.allocate(capacity: CompletionQueue.takenAtOnce)

    init(stream: Int, _ domain: ProtectionDomain, _ completions: CompletionQueue, _ lanes: [Lane], events: EventChannel?) throws(TurntableError) {
        self.stream = stream
        self.domain = domain
        self.completions = completions
        self.lanes = lanes
        self.events = events
        waker = Descriptor(owning: try checked(tt_waker_open(), "making an event descriptor"))
    }

    deinit {
        disconnect()
        unsafe taken.deallocate()
    }

    var hasEnded: Bool { isShutDown.load(ordering: .relaxed) }
    var isPeerGone: Bool { hasPeerLeft.load(ordering: .relaxed) }

    func shutDown() {
        isShutDown.store(true, ordering: .relaxed)
        disconnect()
        tt_wake(waker.rawValue)
    }

    /// The connection manager has heard that the other end left.
    func peerLeft() {
        hasPeerLeft.store(true, ordering: .relaxed)
        tt_wake(waker.rawValue)
    }

    /// Tells the other end; what it wrote already stays written.
    private func disconnect() {
        guard !isDisconnected.exchange(true, ordering: .relaxed) else { return }
        // Fails on a lane that the other end has left already.
        for lane in lanes { _ = unsafe tt_cm_disconnect(lane.id.raw) }
    }

    /// Calls `body` with what has completed: how many there were.
    func take(_ body: (tt_completion) throws(TurntableError) -> Void) throws(TurntableError) -> Int {
        let count = Int(try checked(unsafe tt_poll(completions.raw, taken, Int32(CompletionQueue.takenAtOnce)), "data stream \(stream)"))
        for index in 0..<count { try unsafe body(taken[index]) }
        return count
    }

    /// Returns when there may be a completion, when the stream ends, or when the time is over.
    /// - Parameter isReady: asked when nothing that completes from now on is missed.
    func wait(atMost time: Nanoseconds, unless isReady: () throws(TurntableError) -> Bool) throws(TurntableError) {
        completions.arm()
        if try isReady() || hasEnded || isPeerGone { return }
        let descriptors = (completions.descriptor, waker.rawValue, events?.descriptor ?? -1)
        let milliseconds = max(1, min(time.milliseconds.rounded(.up), 60_000))
        let result = unsafe withUnsafeBytes(of: descriptors) {
            unsafe tt_wait_any($0.assumingMemoryBound(to: Int32.self).baseAddress!, 3, Int32(milliseconds))
        }
        let ready = try checked(result, "waiting on data stream \(stream)")
        if ready & 1 != 0 { completions.disarm() }
        if ready & 4 != 0 { try hear() }
    }

    /// Takes what the connection manager says.
    func hear() throws(TurntableError) {
        while let event = try unsafe events?.next() {
            if unsafe event.kind == tt_cm_disconnected || event.kind == tt_cm_device_removed { peerLeft() }
        }
    }

    /// Posts writes on a lane, in order.
    func post(_ writes: UnsafePointer<tt_write>, _ count: Int, on lane: Int) throws(TurntableError) {
        let result = unsafe tt_post_writes(lanes[lane].id.raw, writes, Int32(count))
        guard result == 0 else { throw failure("sending on", errorText(-result)) }
        lanes[lane].posted += count
    }

    func receive(into address: UnsafeMutableRawPointer? = nil, bytes: Int = 0, key: UInt32 = 0, on lane: Int, work: UInt64) throws(TurntableError) {
        let result = unsafe tt_post_receive(lanes[lane].id.raw, address, UInt32(bytes), key, work)
        guard result == 0 else { throw failure("receiving on", errorText(-result)) }
    }

    /// What a completion that failed means.
    func failure(_ what: StaticString, of completion: tt_completion) -> TurntableError {
        let text = unsafe String(cString: tt_status_text(completion.status))
        switch Int(completion.status) {
        case tt_status_retries_exceeded:
            return failure(
                what, "the other end did not acknowledge (\(text))",
                remedy: "check the line, the other end, and that both ports have the same MTU (`turntable doctor rdma`)")
        case tt_status_remote_access:
            return failure(what, "the target has ended the access that it had granted (\(text))")
        default: return failure(what, text)
        }
    }

    func failure(_ what: StaticString, _ why: String, remedy: String = "") -> TurntableError {
        if hasEnded { return TurntableError(.cancelled, "\(what) data stream \(stream)", "the stream was shut down") }
        if isPeerGone { return TurntableError(.line, "\(what) data stream \(stream)", "the other end closed it") }
        return TurntableError(.line, "\(what) data stream \(stream)", why, remedy: remedy)
    }
}

// The source's end: what Xen's own helper saves is read record by record. Its outline goes on the control stream, and the pages that are not
// zero on the data streams. The thread that called run() reads, straight into the window; each data stream has a thread that sends.

public import Transport
public import TurntableCore
public import TurntableLinux
public import WireFormat

/// Carries the stream of a domain that Xen's own helper saves to a ``StreamTarget``.
public final class StreamSource: Sendable {
    private let saved: SavedStream
    private let transport: any SourceTransport
    private let request: StreamRequest
    private let window: PageWindow
    private let course = Course()
    private let hasLeft: @Sendable () -> Void
    private let senders = Monitor<[any FrameSender]>([])
    /// What the target has said of that; nil if nothing.
    private let isTargetReady = Monitor<Bool?>(nil)

    /// - Parameters:
    ///   - saver: the other end of what Xen's own helper writes to.
    ///   - token: of the greeting that the target has heard.
    ///   - afterRings: called when the rings' pages have gone for the first time: the target can go on to the domain's devices. Nothing more goes
    ///     until it returns.
    ///   - hasLeft: called when all of the stream has left for the line.
    public init(
        saver: consuming Descriptor, transport: any SourceTransport, streams: Int, token: [UInt8], rings: XenRings,
        afterRings: @escaping @Sendable () -> Void = {}, hasLeft: @escaping @Sendable () -> Void = {}
    ) {
        self.hasLeft = hasLeft
        self.transport = transport
        request = StreamRequest(streams: streams, token: token, rings: rings)
        window = PageWindow(streams: streams)
        saved = SavedStream(saver, window, rings, afterRings: afterRings)
    }

    /// Returns when all of the stream has been given to the helper at the target. Whatever fails, the saver's next write does too.
    public func run() throws(TurntableError) -> StreamFigures {
        course.onFailure { [self] _ in
            window.close()
            saved.end()
            // Whoever waits for it looks again.
            isTargetReady.update { _ in }
        }
        do throws(TurntableError) { return try carry() } catch {
            course.fail(error)
            throw course.failure ?? error
        }
    }

    /// Returns when the guest may be suspended: the target only waits for what it holds then. False if it is not ready after so long.
    public func awaitReadiness(atMost limit: Nanoseconds = Limits.readinessTime) -> Bool {
        isTargetReady.wait(atMost: limit) { [course] in $0 == true || course.isOver ? true : nil } ?? false
    }

    /// Of the data streams, what has arrived.
    public var bytesOnWire: ByteCount { senders.read { $0 }.reduce(ByteCount(0)) { $0 + $1.status.acknowledgedBytes } }

    /// It has failed, or all is there.
    public var isOver: Bool { course.isOver }

    /// Ends it from another thread: a failure unless it is over.
    public func interrupt(_ why: String) { course.fail(TurntableError(.cancelled, "moving the domain", why)) }

    private func carry() throws(TurntableError) -> StreamFigures {
        let control = try transport.connectControl()
        defer { control.shutDown() }
        course.onFailure { error in
            // In vain if it is the target that failed.
            try? control.send(.abort("\(error)"))
            control.shutDown()
        }
        // Nothing may be said before it, also not that this end is there.
        try control.send(.program(.start(request.words)))
        let pulse = Pulse(control)
        defer { pulse.end() }
        let hearing = course.start("tt-control") { [self] () throws(TurntableError) in try hear(pulse) }
        defer { hearing.join() }
        var threads: [WorkerThread] = []
        defer { for thread in threads { thread.join() } }
        do throws(TurntableError) {
            for stream in 0..<request.streams {
                let sender = try transport.connectStream(stream, attachment: control.attachment, pages: window)
                senders.update { $0.append(sender) }
                course.onFailure { _ in sender.shutDown() }
                threads.append(course.start("tt-send-\(stream)") { [self] () throws(TurntableError) in try send(sender, stream) })
            }
            let figures = try saved.pass { (outline) throws(TurntableError) in try control.send(.program(.bytes(.input, outline))) }
            window.finish()
            for thread in threads { thread.join() }
            threads = []
            if course.failure == nil { hasLeft() }
            try course.await()
            return figures
        } catch {
            // Before the threads are waited for; and if another thread's failure is the reason, the target is told of that.
            course.fail(error)
            course.awaitEndings()
            throw error
        }
    }

    /// What the target says.
    private func hear(_ pulse: Pulse) throws(TurntableError) {
        while true {
            switch try pulse.next() {
            case .readiness(let isReady): isTargetReady.update { $0 = isReady }
            case .program(.ended(0)):
                _ = course.finish()
                return
            case .abort(let reason): throw TurntableError(.refused, "the target's helper", reason)
            default: throw TurntableError(.protocol, "the target's helper", "it sent a message that is not for now")
            }
        }
    }

    private func send(_ sender: any FrameSender, _ stream: Int) throws(TurntableError) {
        let draft = FrameDraft(limits: sender.limits)
        var next = stream * Limits.stripePages
        while let end = try window.awaitPages(from: next) {
            let extent = Extent(
                region: RegionIndex(0), firstPage: PageIndex(window.index(of: next)), pageCount: PageCount(end - next), encoding: .raw)
            guard draft.append(extent) else { preconditionFailure("a stripe fits into a frame") }
            try sender.send(draft)
            draft.startNext()
            try sender.flush()
            window.empty(to: end)
            next = window.successor(of: end - 1)
        }
    }
}

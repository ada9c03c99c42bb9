// The target's end: the stream that Xen's own helper saved at the source is put together again, byte for byte, for Xen's own helper here. The
// thread that called run() writes, in the order of the outline; each data stream has a thread that receives into the window, and what is
// said on the control stream has one.

public import Transport
public import TurntableCore
public import TurntableLinux
public import WireFormat

/// Gives Xen's own helper the stream of a ``StreamSource``.
public final class StreamTarget: Sendable {
    private let restorer: Descriptor
    private let token: [UInt8]
    private let early: Early?
    private let course = Course()
    private let outline = Outline()
    private let arrived = Monitor(Arrived())

    private struct Arrived {
        /// The source's control stream, and what it asks for.
        var control: (any ControlChannel)?
        var request: StreamRequest?
        /// Data streams that came, whoever's they are.
        var receivers: [(receiver: any FrameReceiver, preface: Preface)] = []
        /// Somebody listens to the source.
        var isHearing = false

        /// All data streams of the source, in order; nil if some have not come.
        var streams: [any FrameReceiver]? {
            guard let control, let request else { return nil }
            let all = (0..<request.streams).compactMap { index in
                receivers.first { $0.preface.attachment == control.attachment && $0.preface.stream == index }?.receiver
            }
            return all.count == request.streams ? all : nil
        }
    }

    /// Of a target where libxl goes on, to the domain's devices, while the domain still runs at the source. The rings are given empty then, for
    /// whoever is at their other ends uses them from then on.
    public struct Early: Sendable {
        let begin: @Sendable (XenRings) throws(TurntableError) -> Void
        let isReady: @Sendable () -> Bool
        let awaitRestorer: @Sendable () throws(TurntableError) -> Void

        /// - Parameters:
        ///   - begin: has libxl go on; called when the restorer has been given the domain's rings.
        ///   - isReady: whether libxl is through with that.
        ///   - awaitRestorer: returns when the restorer is done with all that it was given.
        public init(
            begin: @escaping @Sendable (XenRings) throws(TurntableError) -> Void, isReady: @escaping @Sendable () -> Bool,
            awaitRestorer: @escaping @Sendable () throws(TurntableError) -> Void
        ) {
            (self.begin, self.isReady, self.awaitRestorer) = (begin, isReady, awaitRestorer)
        }
    }

    /// - Parameters:
    ///   - restorer: the other end of what Xen's own helper reads.
    ///   - token: of the greeting that the source sent.
    public init(restorer: consuming Descriptor, token: [UInt8], early: Early? = nil) {
        self.restorer = restorer
        (self.token, self.early) = (token, early)
    }

    /// Returns when Xen's own helper has been given all of the stream, and the source was told. Whatever fails, the helper sees the end of an
    /// unfinished stream.
    public func run(_ transport: any TargetTransport) throws(TurntableError) {
        course.onFailure { [self] _ in
            outline.close()
            Socket.shutDown(restorer)
        }
        do throws(TurntableError) { try take(transport) } catch {
            course.fail(error)
            end()
            throw course.failure ?? error
        }
    }

    /// Ends it from another thread: a failure unless it is over.
    public func interrupt(_ why: String) { course.fail(TurntableError(.cancelled, "receiving the domain", why)) }

    /// After ``run(_:)``: returns when the source has heard how it went and left.
    public func end() {
        if course.failure != nil {
            course.awaitEndings()
            arrived.read { $0.control }?.shutDown()
        }
        _ = arrived.wait(atMost: .forever) { $0.isHearing ? nil : true }
    }

    private func take(_ transport: any TargetTransport) throws(TurntableError) {
        // A helper that takes nothing for so long has failed.
        try Socket.setTimeouts(restorer, receive: Limits.stallTime, send: Limits.stallTime)
        let receivers = try meet(transport)
        let rings = arrived.read { $0.request?.rings }
        let window = PageWindow(streams: receivers.count)
        course.onFailure { _ in
            window.close()
            for receiver in receivers { receiver.shutDown() }
        }
        let threads = receivers.enumerated().map { stream, receiver in
            course.start("tt-receive-\(stream)") { [self] () throws(TurntableError) in try receive(receiver, WindowSink(window, stream: stream)) }
        }
        defer {
            for receiver in receivers { receiver.shutDown() }
            for thread in threads { thread.join() }
        }
        do throws(TurntableError) {
            var beginning: WorkerThread?
            let blank = early == nil ? [] : rings.map { Set([$0.store, $0.console]) } ?? []
            var stream = unsafe RestoredStream(
                outline, window, blank: blank, blankWereGiven: { [self] in if let early, let rings { beginning = begin(early, rings) } }
            ) { [self] (bytes) throws(TurntableError) in try unsafe give(bytes) }
            try stream.restore()
            Socket.endWriting(restorer)
            if let early {
                guard let beginning else {
                    throw TurntableError(.protocol, "the source's stream", "the pages of the domain's rings are not in it")
                }
                try early.awaitRestorer()
                beginning.join()
            }
        } catch {
            // Before the threads are waited for.
            course.fail(error)
            throw error
        }
        guard course.finish() else { throw TurntableError(.cancelled, "receiving the domain", "it has ended") }
        try? arrived.read { $0.control }?.send(.program(.ended(code: 0)))
    }

    /// Has libxl go on, on a thread of its own, and tells the source when it is through with it, if that is before the end.
    private func begin(_ early: Early, _ rings: XenRings) -> WorkerThread {
        course.start("tt-early") { [self] () throws(TurntableError) in
            try early.begin(rings)
            _ = WorkerThread("tt-ready") { [self] in
                while !course.isOver, !early.isReady() { Clock.sleep(Limits.pollTime) }
                try? arrived.read { $0.control }?.send(.readiness(true))
            }
        }
    }

    private func give(_ bytes: UnsafeRawBufferPointer) throws(TurntableError) {
        do throws(TurntableError) { try unsafe Socket.write(restorer, bytes, what: "giving Xen's own helper the domain") } catch {
            throw TurntableError(.hypervisor, error.what, error.why, remedy: "see what it says in xl's log")
        }
    }

    // MARK: - Who comes

    /// Waits for the source: its control stream, and as many data streams as it speaks of.
    private func meet(_ transport: any TargetTransport) throws(TurntableError) -> [any FrameReceiver] {
        let deadline = Clock.now + Limits.xenMeetingTime
        while course.failure == nil, Clock.now < deadline {
            switch try transport.accept(within: Limits.pollTime) {
            case .control(let control, _)?: listen(control)
            case .data(let receiver, let preface)?:
                let isHeld = arrived.update { state in
                    guard state.receivers.count < Limits.greetings else { return false }
                    state.receivers.append((receiver, preface))
                    return true
                }
                if !isHeld { receiver.shutDown() }
            case nil: break
            }
            if let streams = arrived.read({ $0.streams }) { return streams }
        }
        throw TurntableError(.line, "waiting for the source's helper", "its streams did not come within \(Limits.xenMeetingTime)")
    }

    /// On a thread of its own, so that a silent stranger holds nobody up.
    private func listen(_ control: any ControlChannel) {
        _ = WorkerThread("tt-control") { [self] in
            guard isSource(control) else {
                try? control.send(.abort("no greeting of this host is meant by that"))
                return control.shutDown()
            }
            course.onFailure { error in
                // In vain if it is the source that failed.
                try? control.send(.abort("\(error)"))
                control.shutDown()
            }
            // In vain if it is gone, which is heard.
            try? control.send(.readiness(early == nil))
            do throws(TurntableError) { try hear(control) } catch { course.fail(error) }
            // Another thread's failure ends the hearing before the source is told of it.
            course.awaitEndings()
            control.shutDown()
            arrived.update { $0.isHearing = false }
        }
    }

    private func isSource(_ control: any ControlChannel) -> Bool {
        guard case .program(.start(let words))? = try? control.receive(within: Limits.helloTime), let request = StreamRequest(words),
            request.token == token
        else { return false }
        return arrived.update { state in
            guard state.control == nil else { return false }
            (state.control, state.request, state.isHearing) = (control, request, true)
            return true
        }
    }

    /// What the source says, until it leaves.
    private func hear(_ control: any ControlChannel) throws(TurntableError) {
        let pulse = Pulse(control)
        defer { pulse.end() }
        while true {
            switch try pulse.next() {
            case .program(.bytes(.input, let bytes)): try outline.add(bytes)
            case .abort(let reason): throw TurntableError(.refused, "the source's helper", reason)
            default: throw TurntableError(.protocol, "the source's helper", "it sent a message that is not for now")
            }
        }
    }

    private func receive(_ receiver: any FrameReceiver, _ sink: WindowSink) throws(TurntableError) {
        while !course.isOver { if try receiver.receive(into: sink) != nil { sink.finishFrame() } }
    }
}

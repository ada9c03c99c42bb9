// The thread that hears what the connection manager says at a target: requests become lanes, lanes become data streams, and
// a lane that the other end leaves ends its stream.

internal import CTurntableVerbs
internal import Glibc
internal import Protection
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

@safe final class VerbsAcceptor: @unchecked Sendable {
    let budget: PinBudget
    private let protection: LineProtection
    private let secrets: @Sendable (AttachmentID) -> SessionSecret?
    private let turnedAway: @Sendable (String) -> Void
    private let channel: EventChannel
    private let listener: ConnectionID
    private let waker: Descriptor
    private let shared = Monitor(Shared())

    private struct Shared {
        var arrived: [IncomingConnection] = []
        var isStopped = false
    }

    // The thread's alone.
    private var openings: [StreamName: Opening] = [:]
    private var streams: [UInt: LiveLane] = [:]
    /// Requests whose control stream has not said its keys yet.
    private var waiting: [Request] = []

    private struct StreamName: Hashable {
        var attachment: AttachmentID
        var stream: Int
    }
    private struct Request {
        var id: ConnectionID
        var hello: VerbsHello
        var deadline: Nanoseconds
    }
    private struct LiveLane {
        weak var receiver: VerbsFrameReceiver?
        var opening: StreamName?
    }
    /// A stream some of whose lanes are here.
    private final class Opening {
        let hello: VerbsHello
        let domain: ProtectionDomain
        let completions: CompletionQueue
        let ring: PinnedBuffer
        let credits: PinnedBuffer
        let cipher: FrameCipher?
        let deadline = Clock.now + Limits.helloTime
        var lanes: [Lane?]
        var established: Set<Int> = []

        init(_ hello: VerbsHello, _ context: OpaquePointer, _ budget: PinBudget, _ cipher: FrameCipher?) throws(TurntableError) {
            self.hello = hello
            self.cipher = cipher
            let frames = hello.frames
            domain = try unsafe ProtectionDomain(context)
            completions = try CompletionQueue(domain, entries: hello.lanes * VerbsFrameReceiver.receives(frames) + frames + 8)
            ring = try PinnedBuffer(frames * Place.bytes, .remoteWrite, domain, budget, what: "the ring of data stream \(hello.stream)")
            credits = try PinnedBuffer(frames * Credit.bytes, .local, domain, budget, what: "credits of data stream \(hello.stream)")
            lanes = Array(repeating: nil, count: hello.lanes)
        }
    }

    init(
        _ address: Address, _ protection: LineProtection, _ budget: PinBudget, secrets: @escaping @Sendable (AttachmentID) -> SessionSecret?,
        _ turnedAway: @escaping @Sendable (String) -> Void
    ) throws(TurntableError) {
        self.protection = protection
        self.budget = budget
        self.secrets = secrets
        self.turnedAway = turnedAway
        channel = try EventChannel()
        listener = try ConnectionID(channel)
        waker = Descriptor(owning: try checked(tt_waker_open(), "making an event descriptor"))
        try checked(
            unsafe tt_cm_listen(listener.raw, address.host, address.port, Int32(Limits.queuePairs)), "listening on \(address) over RDMA",
            remedy: "give --listen an address of a network that an RDMA device has; see `turntable doctor rdma`")
    }

    func next() -> IncomingConnection? { shared.update { $0.arrived.isEmpty ? nil : $0.arrived.removeFirst() } }

    func stop() {
        shared.update { $0.isStopped = true }
        tt_wake(waker.rawValue)
    }

    // MARK: - The thread

    func serve() {
        while !shared.read({ $0.isStopped }) {
            do throws(TurntableError) {
                while let event = try unsafe channel.next() { unsafe handle(event) }
            } catch {
                return turnedAway("\(error)")
            }
            reconsider()
            let idle = waiting.isEmpty ? Limits.pollTime : Limits.greetingPollTime
            let descriptors = (channel.descriptor, waker.rawValue)
            _ = unsafe withUnsafeBytes(of: descriptors) {
                unsafe tt_wait_any($0.assumingMemoryBound(to: Int32.self).baseAddress!, 2, Int32(idle.milliseconds))
            }
        }
        openings = [:]
        waiting = []
    }

    private func handle(_ event: tt_cm_event) {
        switch unsafe event.kind {
        case tt_cm_requested:
            let id = unsafe ConnectionID(owning: event.id, channel)
            switch VerbsHello.decode(unsafe event.privateData) {
            case .success(let hello): waiting.append(Request(id: id, hello: hello, deadline: Clock.now + Limits.helloTime))
            case .failure(let error): reject(id, error.reason)
            }
        case tt_cm_established:
            guard let name = streams[unsafe UInt(bitPattern: event.id)]?.opening, let opening = openings[name] else { return }
            if let lane = opening.lanes.firstIndex(where: { unsafe $0?.id.raw == event.id }) { opening.established.insert(lane) }
            if opening.established.count == opening.lanes.count { finish(name, opening) }
        case tt_cm_disconnected, tt_cm_device_removed, tt_cm_unreachable:
            guard let lane = streams.removeValue(forKey: unsafe UInt(bitPattern: event.id)) else { return }
            lane.receiver?.peerLeft()
            if let name = lane.opening { drop(name, "it left") }
        default: break
        }
    }

    /// Requests that wait for their control stream's keys, and streams that wait for their lanes.
    private func reconsider() {
        var keep: [Request] = []
        for request in waiting {
            if let reason = objection(request) {
                // The keys are on their way over the control stream, which another thread reads.
                guard reason == .proof, Clock.now < request.deadline, secrets(request.hello.attachment) == nil else {
                    reject(request.id, reason)
                    continue
                }
                keep.append(request)
            } else {
                do throws(TurntableError) { try admit(request) } catch {
                    turnedAway("data stream \(request.hello.stream) over RDMA from \(request.id.peer): \(error)")
                    reject(request.id, .memory, isTold: true)
                }
            }
        }
        waiting = keep
        for (name, opening) in openings where Clock.now > opening.deadline {
            drop(name, "\(opening.established.count) of \(opening.lanes.count) queue pairs came")
        }
    }

    private func objection(_ request: Request) -> VerbsRefusal? {
        let hello = request.hello
        if Greeting.objection(to: hello.preface, protection: protection) != nil { return .protection }
        if protection == .sealed {
            guard let secret = secrets(hello.attachment), secret.verifies(hello.proof, of: hello.preface) else { return .proof }
        }
        let name = StreamName(attachment: hello.attachment, stream: hello.stream)
        if let opening = openings[name] {
            let isSame = opening.hello.lanes == hello.lanes && opening.hello.frames == hello.frames && opening.lanes[hello.lane] == nil
            return isSame ? nil : .shape
        }
        return openings.count < Limits.greetings ? nil : .busy
    }

    private func admit(_ request: Request) throws(TurntableError) {
        let hello = request.hello
        let name = StreamName(attachment: hello.attachment, stream: hello.stream)
        guard let context = unsafe tt_cm_context(request.id.raw) else { throw TurntableError(.unsupported, "a request", "no device has it") }
        let cipher = secrets(hello.attachment).map { FrameCipher($0.key(forStream: hello.stream), for: .opening) }
        let opening: Opening
        if let begun = openings[name] { opening = begun } else { opening = try unsafe Opening(hello, context, budget, cipher) }
        let receives = VerbsFrameReceiver.receives(hello.frames)
        let lane = try Lane(request.id, opening.completions, opening.domain, sends: hello.frames + 2, receives: receives)
        for _ in 0..<receives {
            try checked(unsafe tt_post_receive(lane.id.raw, nil, 0, 0, UInt64(hello.lane)), "a data stream")
        }
        opening.lanes[hello.lane] = lane
        openings[name] = opening
        streams[lane.id.key] = LiveLane(receiver: nil, opening: name)
        let answer = unsafe VerbsAnswer(ring: UInt64(UInt(bitPattern: opening.ring.base)), key: opening.ring.remoteKey).encoded()
        try checked(unsafe tt_cm_accept(lane.id.raw, answer, UInt8(answer.count)), "accepting a data stream")
    }

    private func finish(_ name: StreamName, _ opening: Opening) {
        openings[name] = nil
        do throws(TurntableError) {
            let pairs = try QueuePairs(
                stream: name.stream, opening.domain, opening.completions, opening.lanes.map { $0! }, events: nil)
            let receiver = VerbsFrameReceiver(
                pairs, ring: opening.ring, credits: opening.credits, frames: opening.hello.frames, budget: budget, cipher: opening.cipher)
            for lane in pairs.lanes { streams[lane.id.key] = LiveLane(receiver: receiver, opening: nil) }
            let arrived = IncomingConnection.data(receiver, opening.hello.preface)
            shared.update { $0.arrived.append(arrived) }
        } catch {
            turnedAway("data stream \(name.stream) over RDMA: \(error)")
        }
    }

    private func drop(_ name: StreamName, _ why: String) {
        guard let opening = openings.removeValue(forKey: name) else { return }
        for case let lane? in opening.lanes { streams[lane.id.key] = nil }
        turnedAway("data stream \(name.stream) over RDMA: \(why)")
    }

    private func reject(_ id: ConnectionID, _ reason: VerbsRefusal, isTold: Bool = false) {
        let answer = VerbsAnswer(refusal: reason).encoded()
        _ = unsafe tt_cm_reject(id.raw, answer, UInt8(answer.count))
        if !isTold { turnedAway("a connection over RDMA from \(id.peer): \(reason.text)") }
    }
}

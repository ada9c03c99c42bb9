internal import CTurntableVerbs
internal import Glibc
public import Protection
public import Transport
public import TransportTCP
public import TurntableCore
public import TurntableLinux
public import WireFormat

/// Connects to a target: the control stream over TCP, as ``TCPSourceTransport`` does it, data streams over RDMA.
public final class VerbsSourceTransport: SourceTransport {
    private let address: Address
    private let options: LineOptions
    private let security: LineSecurity
    private let tcp: TCPSourceTransport
    /// What is pinned here, over all streams.
    public let budget: PinBudget
    /// If a stream does not come about over RDMA it is told why, and the stream goes over TCP.
    private let fallback: (@Sendable (TurntableError) -> Void)?

    public init(
        address: Address, options: LineOptions, security: LineSecurity, peer: String? = nil, budget: PinBudget = PinBudget(),
        fallback: (@Sendable (TurntableError) -> Void)? = nil
    ) {
        self.address = address
        self.options = options
        self.security = security
        self.budget = budget
        self.fallback = fallback
        tcp = TCPSourceTransport(address: address, options: options, security: security, peer: peer)
    }

    public func connectControl() throws(TurntableError) -> any ControlChannel { try tcp.connectControl() }

    public func connectStream(_ index: Int, attachment: AttachmentID, pages: any PageSource) throws(TurntableError) -> any FrameSender {
        do { return try connect(index, attachment, pages) } catch {
            guard let fallback, error.kind != .cancelled else { throw error }
            fallback(error)
            return try tcp.connectStream(index, attachment: attachment, pages: pages)
        }
    }

    private func connect(_ index: Int, _ attachment: AttachmentID, _ pages: any PageSource) throws(TurntableError) -> VerbsFrameSender {
        var hello = VerbsHello(stream: index, lane: 0, lanes: 1, frames: 1, attachment: attachment)
        var cipher: FrameCipher?
        if case .sealed = security {
            guard let secret = tcp.secret(of: attachment) else {
                throw TurntableError(.line, "opening data stream \(index)", "its control stream was replaced by another")
            }
            hello.proof = secret.proof(
                of: Preface(role: .data, protection: .sealed, stream: UInt16(index), attachment: attachment))
            cipher = FrameCipher(secret.key(forStream: index), for: .sealing)
        }
        let roundTrip = tcp.roundTrip
        let shape = VerbsLineShape(roundTrip: roundTrip, rate: options.rate, streams: options.streams, pinned: budget.limit)
        hello.lanes = shape.lanes
        hello.frames = shape.frames
        let opening = try VerbsOpening(address, hello, shape, budget)
        let (pairs, bounce, credits, answer) = try opening.open()
        let lanes = shape.lanes == 1 ? "" : "s"
        let line = "rdma \(pairs.domain.device), \(shape.lanes) queue pair\(lanes), \(shape.frames) frames ahead"
        return VerbsFrameSender(
            .init(
                pairs: pairs, bounce: bounce, credits: credits, budget: budget, ring: (answer.ring, answer.key), frames: shape.frames,
                streams: options.streams, windows: shape.windows, line: line, roundTrip: roundTrip, pacingRate: options.pacingRate),
            pages: pages, cipher: cipher)
    }
}

/// A data stream's connections being made, side by side: each takes a round trip and a half.
@safe final class VerbsOpening {
    private let address: Address
    private let hello: VerbsHello
    private let shape: VerbsLineShape
    private let budget: PinBudget
    private let channel: EventChannel
    private let what: String

    private var ids: [ConnectionID] = []
    private var lanes: [Lane?]
    private var resources: (domain: ProtectionDomain, completions: CompletionQueue, bounce: PinnedBuffer, credits: PinnedBuffer)?
    private var answer: VerbsAnswer?
    private var established = 0

    init(_ address: Address, _ hello: VerbsHello, _ shape: VerbsLineShape, _ budget: PinBudget) throws(TurntableError) {
        self.address = address
        self.hello = hello
        self.shape = shape
        self.budget = budget
        what = "opening data stream \(hello.stream) over RDMA to \(address)"
        channel = try EventChannel()
        lanes = Array(repeating: nil, count: hello.lanes)
    }

    func open() throws(TurntableError) -> (QueuePairs, PinnedBuffer, PinnedBuffer, VerbsAnswer) {
        let deadline = Clock.now + Limits.helloTime
        for _ in 0..<hello.lanes {
            let id = try ConnectionID(channel)
            ids.append(id)
            try checked(
                unsafe tt_cm_resolve_address(id.raw, address.host, address.port, Int32(Limits.helloTime.milliseconds)), what,
                remedy: Self.deviceRemedy)
        }
        while established < hello.lanes {
            while let event = try unsafe channel.next() { try unsafe handle(event) }
            guard established < hello.lanes else { break }
            guard Clock.now < deadline else {
                throw TurntableError(.line, what, "\(established) of \(hello.lanes) queue pairs within \(Limits.helloTime)", remedy: Self.remedy)
            }
            var descriptor = channel.descriptor
            _ = unsafe tt_wait_any(&descriptor, 1, Int32(Limits.pollTime.milliseconds))
        }
        guard let resources, let answer else { preconditionFailure("an established lane 0 has an answer") }
        let pairs = try QueuePairs(
            stream: hello.stream, resources.domain, resources.completions, lanes.map { $0! }, events: channel)
        return (pairs, resources.bounce, resources.credits, answer)
    }

    private static let deviceRemedy = "check that an RDMA device has that network; see `turntable doctor rdma`"
    private static let remedy = "check that `turntable receive --transport rdma` runs there; see `turntable doctor rdma` at both ends"

    private func handle(_ event: tt_cm_event) throws(TurntableError) {
        guard let lane = ids.firstIndex(where: { unsafe $0.raw == event.id }) else { return }
        let id = ids[lane]
        switch unsafe event.kind {
        case tt_cm_address_resolved:
            try checked(unsafe tt_cm_set_acknowledgement_time(id.raw, shape.acknowledgementExponent), what, remedy: Self.deviceRemedy)
            try checked(unsafe tt_cm_resolve_route(id.raw, Int32(Limits.helloTime.milliseconds)), what, remedy: Self.deviceRemedy)
        case tt_cm_route_resolved: try connect(lane)
        case tt_cm_established:
            if lane == 0 {
                guard let answer = VerbsAnswer.decode(unsafe event.privateData), answer.refusal == nil else {
                    throw TurntableError(.protocol, what, "what answers there is no Turntable of this version")
                }
                self.answer = answer
            }
            established += 1
        case tt_cm_rejected:
            if let answer = VerbsAnswer.decode(unsafe event.privateData), let refusal = answer.refusal {
                let kind: TurntableError.Kind = refusal == .memory || refusal == .busy || refusal == .ended ? .line : .refused
                throw TurntableError(kind, what, "the target does not take it: \(refusal.text)")
            }
            throw TurntableError(.line, what, "it was rejected (status \(unsafe event.status)): nobody listens there over RDMA", remedy: Self.remedy)
        case tt_cm_other: break
        default:
            let text = unsafe String(cString: event.text)
            throw TurntableError(.line, what, "\(text) (status \(unsafe event.status))", remedy: Self.remedy)
        }
    }

    private func connect(_ lane: Int) throws(TurntableError) {
        if resources == nil { resources = try make(ids[lane]) }
        guard let resources else { preconditionFailure("made just now") }
        let receives = lane == 0 ? VerbsFrameSender.creditBuffers(hello.frames) : 1
        let made = try Lane(ids[lane], resources.completions, resources.domain, sends: Limits.queuedWrites, receives: receives)
        lanes[lane] = made
        if lane == 0 {
            for index in 0..<receives {
                let result = unsafe tt_post_receive(
                    made.id.raw, resources.credits.base + index * Credit.bytes, UInt32(Credit.bytes), resources.credits.localKey, UInt64(index))
                try checked(result, what)
            }
        }
        var hello = hello
        hello.lane = lane
        let bytes = hello.encoded()
        let result = unsafe tt_cm_connect(made.id.raw, bytes, UInt8(bytes.count), UInt8(Limits.verbsRetries))
        try checked(result, what)
    }

    private func make(
        _ id: ConnectionID
    ) throws(TurntableError) -> (domain: ProtectionDomain, completions: CompletionQueue, bounce: PinnedBuffer, credits: PinnedBuffer) {
        guard let context = unsafe tt_cm_context(id.raw) else { throw TurntableError(.unsupported, what, "no device has that route") }
        let domain = try unsafe ProtectionDomain(context)
        let completions = try CompletionQueue(domain, entries: hello.lanes * (hello.frames + 1) + 2 * hello.frames + 8)
        let bounce = try PinnedBuffer(hello.frames * Place.bytes, .local, domain, budget, what: "the frames of data stream \(hello.stream)")
        let credits = try PinnedBuffer(
            VerbsFrameSender.creditBuffers(hello.frames) * Credit.bytes, .local, domain, budget, what: "credits of data stream \(hello.stream)")
        return (domain, completions, bounce, credits)
    }
}

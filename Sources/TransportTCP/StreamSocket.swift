internal import CTurntableLinux
internal import Glibc
internal import Synchronization
internal import Transport
internal import TurntableCore
internal import TurntableLinux

/// A data stream's socket: calls that wait for the line as long as bytes move, or until the stream is shut down.
final class StreamSocket: Sendable {
    let descriptor: Descriptor
    let stream: Int
    private let isShutDown = Atomic(false)

    /// The connection ends at a link element: its round trip is not the line's.
    private let isRelayed: Bool

    init(_ descriptor: consuming Descriptor, stream: Int, isRelayed: Bool = false) {
        self.isRelayed = isRelayed
        self.descriptor = descriptor
        self.stream = stream
    }

    var rawValue: Int32 { descriptor.rawValue }
    var hasEnded: Bool { isShutDown.load(ordering: .relaxed) }

    func shutDown() {
        isShutDown.store(true, ordering: .relaxed)
        Socket.shutDown(descriptor)
    }

    /// Calls `body`, which gives bytes moved or `-errno`, until something moved, for at most ``Limits/stallTime``.
    /// - Parameter allowed: an errno that the caller deals with; it is returned negative.
    func move(_ what: StaticString, allowing allowed: Int32 = 0, _ body: () -> Int) throws(TurntableError) -> Int {
        var deadline: Nanoseconds?
        while true {
            let moved = body()
            if moved >= 0 || moved == -Int(allowed) { return moved }
            guard moved == -Int(EAGAIN) else { throw error(what, errorText(Int32(-moved))) }
            let now = Clock.now
            let end = deadline ?? now + Limits.stallTime
            deadline = end
            guard now < end, !hasEnded else { throw stalled(what) }
        }
    }

    var status: LineStatus {
        var information = tt_tcp_status()
        var status = LineStatus()
        guard unsafe tt_tcp_status(rawValue, &information) == 0 else { return status }
        if !isRelayed { status.roundTrip = Nanoseconds(Int64(information.rtt_microseconds) * 1000) }
        status.unsentBytes = ByteCount(Int(information.unsent_bytes))
        status.acknowledgedBytes = ByteCount(Int(information.acknowledged_bytes))
        status.windowBytes = ByteCount(Int(information.window_bytes))
        status.inFlightBytes = ByteCount(Int(information.in_flight_segments) * Int(information.segment_bytes))
        status.retransmissions = Int(information.retransmitted_segments)
        return status
    }

    func pace(at share: BitRate) throws(TurntableError) { try LineOptions.pace(descriptor, at: share, roundTrip: status.roundTrip) }

    func error(_ what: StaticString, _ why: String) -> TurntableError { TurntableError(.line, "\(what) data stream \(stream)", why) }

    func stalled(_ what: StaticString) -> TurntableError {
        hasEnded
            ? TurntableError(.cancelled, "\(what) data stream \(stream)", "the stream was shut down")
            : TurntableError(
                .line, "\(what) data stream \(stream)", "nothing moved for \(Limits.stallTime)", remedy: "check the line and the other end")
    }
}

// The contract between the engine and whatever carries its bytes: TCP, RDMA verbs, or the loopback of the tests.
//
// One control stream and N data streams. A transport opens each with a Preface; everything on it after that is the
// engine's frames and messages. Calls block; each runs on a thread of its own and ends within the limits of
// TurntableCore.Limits, or at once after shutDown().

public import TurntableCore
public import WireFormat

/// What a transport can do; the engine keeps within it.
public struct TransportLimits: Sendable {
    /// Page bytes in one frame, at most.
    public var payloadBytes: Int
    /// Extents in one frame, at most.
    public var extents: Int
    public init(payloadBytes: Int = Limits.framePayloadBytes, extents: Int = Limits.frameExtents) {
        self.payloadBytes = payloadBytes
        self.extents = extents
    }
}

/// What a stream knows about its line now.
public struct LineStatus: Sendable, Equatable {
    /// Smoothed round trip; zero when unknown.
    public var roundTrip = Nanoseconds.zero
    /// Bytes given to the transport that are not on the line yet: they go before whatever is sent next.
    public var unsentBytes = ByteCount(0)
    /// Bytes that the far end has acknowledged, over the stream's life.
    public var acknowledgedBytes = ByteCount(0)
    /// What congestion control and the far end let be on the line at once; zero when nothing limits it.
    public var windowBytes = ByteCount(0)
    /// Bytes on the line, not acknowledged yet.
    public var inFlightBytes = ByteCount(0)
    /// Segments sent again, over the stream's life.
    public var retransmissions = 0
    public init() {}
}

/// The sending end of a data stream. One thread sends on it.
public protocol FrameSender: AnyObject, Sendable {
    var limits: TransportLimits { get }

    /// Sends a frame. Returns when the frame's header may be used again.
    ///
    /// Blocks are needed no more when this returns. Pages stay guest memory all the time: the transport may read them again (zero copy, retransmission) until
    /// ``flush()`` returns, and a page that changes meanwhile is sent again because the dirty log says so.
    func send(_ frame: FrameDraft) throws(TurntableError)

    /// Returns when no page is needed any more. Never called between pause and hand-off: it may wait for the far end.
    func flush() throws(TurntableError)

    /// The stream's part of the line is this from now on. From any thread.
    func pace(at share: BitRate) throws(TurntableError)

    var status: LineStatus { get }

    /// How this stream sends, for people: "tcp bbr, path MTU 8174, 44 MiB buffer, spliced".
    var summary: String { get }

    /// Ends the stream and wakes its thread. From any thread, any number of times.
    func shutDown()
}

extension FrameSender {
    /// Where nobody states a rate.
    public func pace(at share: BitRate) {}
}

/// The receiving end of a data stream. One thread receives on it.
public protocol FrameReceiver: AnyObject, Sendable {
    /// Receives one frame, its pages straight into `sink`. Nil if none began within ``Limits/pollTime``.
    func receive(into sink: any FrameSink) throws(TurntableError) -> FrameHeader?
    /// When this has returned the peer cannot write into the sink's memory any more, whatever it was granted. Called from any
    /// thread when every frame is here, before the machine runs. Frames are received on, through this process.
    func endAccess()
    func shutDown()
}

extension FrameReceiver {
    /// Where every byte comes through this process.
    public func endAccess() {}
}

/// Where a receiver puts what arrives. Called on the stream's thread.
public protocol FrameSink: AnyObject, Sendable {
    var layout: MemoryLayoutTable { get }
    /// Where the pages of a raw extent go: to guest memory, or on their way to a disk. They are written before `receive` returns.
    func destination(of extent: Extent) throws(TurntableError) -> UnsafeMutableRawPointer
    /// The extent's pages are all zero.
    func zero(_ extent: Extent) throws(TurntableError)
    /// Where a piece of device state goes; checked against ``Limits/deviceStateBytes`` already.
    func deviceStateDestination(offset: Int, count: Int) throws(TurntableError) -> UnsafeMutableRawPointer
    /// Guest memory that the peer's device may write by itself: the pages of a stripe, at an address that holds as long as the
    /// sink is received into. Nil if they are to come through this process.
    func writable(_ pages: Range<Int>, in region: RegionIndex) -> UnsafeMutableRawPointer?
}

extension FrameSink {
    public func writable(_ pages: Range<Int>, in region: RegionIndex) -> UnsafeMutableRawPointer? { nil }
}

/// The control stream. Any thread sends; one thread receives.
public protocol ControlChannel: AnyObject, Sendable {
    /// What the data streams that belong to this control stream name in their prefaces.
    var attachment: AttachmentID { get }
    /// Who is at the other end, as its certificate says; empty on a line without protection.
    var peerName: String { get }
    /// SHA-256 of the SubjectPublicKeyInfo of that certificate; empty on a line without protection.
    var peerKey: [UInt8] { get }
    func send(_ message: ControlMessage) throws(TurntableError)
    /// The next message, or nil if none came within `limit`.
    func receive(within limit: Nanoseconds) throws(TurntableError) -> ControlMessage?
    func shutDown()
}

/// Opens connections to a target.
public protocol SourceTransport: AnyObject, Sendable {
    /// Connects the control stream; returns when the target has welcomed it.
    func connectControl() throws(TurntableError) -> any ControlChannel
    /// Connects data stream `index` of the control stream that has `attachment`.
    func connectStream(_ index: Int, attachment: AttachmentID, pages: any PageSource) throws(TurntableError) -> any FrameSender
}

/// A connection that arrived at a target, after its preface; a control stream was welcomed.
public enum IncomingConnection: Sendable {
    case control(any ControlChannel, peer: String)
    case data(any FrameReceiver, Preface)
}

/// Takes connections from sources.
public protocol TargetTransport: AnyObject, Sendable {
    /// The next connection whose preface is in order, or nil if there was none within `limit`. What a stranger sends
    /// costs only that stranger's connection.
    func accept(within limit: Nanoseconds) throws(TurntableError) -> IncomingConnection?
}

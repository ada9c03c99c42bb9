internal import CTurntableLinux
public import TurntableCore
package import TurntableLinux

/// How data streams use the line. What is not stated is measured.
public struct LineOptions: Sendable {
    /// The bandwidth this migration may use, such as that of a reserved lightpath. Streams are paced to their share.
    public var rate: BitRate?
    /// The line's round trip, if the caller knows it better than one handshake can tell.
    public var roundTrip: Nanoseconds?
    public var streams = 1
    /// A congestion control of the kernel's, or nil for the choice of ``congestionControl(roundTrip:)``.
    public var congestionControl: String?
    /// How page bytes get into the kernel, or nil to choose by measurement on the first frames.
    public var sendMethod: SendMethod?
    /// There are no data streams: what is to be carried goes over the control stream.
    public var isControlOnly = false

    public init() {}

    /// On a long line with no stated rate BBR, which keeps its rate over stray losses; else CUBIC, which costs less.
    func congestionControl(roundTrip: Nanoseconds) -> String {
        congestionControl ?? (rate == nil && roundTrip > .milliseconds(2) ? "bbr" : "cubic")
    }

    /// A stream's share of the stated rate, less what frame headers take of it: a queue never builds up on the line.
    package var pacingRate: BitRate? { rate.map { BitRate(bitsPerSecond: $0.bitsPerSecond * 0.985).share(of: streams) } }

    /// Buffer for one stream: twice bandwidth × delay, because the kernel counts its own overhead in it and a window
    /// that is just full stalls on the first late acknowledgement.
    func sendBufferBytes(roundTrip: Nanoseconds) -> Int {
        let rate = rate ?? Self.unstatedRate
        let product = rate.bytesPerSecond * roundTrip.seconds
        return min(max(Int(product * 2), Self.smallestBufferBytes), Self.largestBufferBytes)
    }

    /// What is in the kernel and not yet on the line goes before the last pages: at most this much, or 4 ms of the line.
    func unsentBytes() -> UInt32 {
        UInt32(min(max(Int((rate?.bytesPerSecond ?? 0) * 0.004), 512 << 10), 16 << 20))
    }

    /// Another rate for a stream that is in use: its pace, and what is on its way at that.
    static func pace(_ socket: borrowing Descriptor, at share: BitRate, roundTrip: Nanoseconds) throws(TurntableError) {
        var options = LineOptions()
        options.rate = share
        let what = "pacing a stream at \(share)"
        try checked(tt_set_send_buffer(socket.rawValue, Int32(options.sendBufferBytes(roundTrip: roundTrip))), what)
        try checked(tt_set_unsent_low_water(socket.rawValue, options.unsentBytes()), what)
        guard let pace = options.pacingRate else { return }
        try checked(tt_set_pacing_rate(socket.rawValue, UInt64(pace.bytesPerSecond)), what)
    }

    /// Sizes a socket on which a link element sends what others paced: to its part of the way, and so that little waits in it.
    package static func prepareRelay(_ socket: borrowing Descriptor) throws(TurntableError) {
        let what = "setting up the way on"
        let roundTrip = Socket.roundTrip(socket) ?? .zero
        let options = LineOptions()
        try checked(tt_set_no_delay(socket.rawValue, 1), what)
        try checked(tt_set_send_buffer(socket.rawValue, Int32(options.sendBufferBytes(roundTrip: roundTrip))), what)
        try checked(tt_set_unsent_low_water(socket.rawValue, options.unsentBytes()), what)
        try checked(tt_set_user_timeout(socket.rawValue, UInt32(Limits.stallTime.milliseconds)), what)
        // Without it the kernel's own does.
        _ = Socket.setCongestionControl(socket, options.congestionControl(roundTrip: roundTrip))
    }

    /// Before a socket listens: accepted ones inherit it, and the window's scale is fixed in the handshake.
    package static func setReceiveBuffer(_ socket: borrowing Descriptor, _ size: ByteCount) throws(TurntableError) {
        try checked(tt_set_receive_buffer(socket.rawValue, Int32(size.value)), "sizing receive buffers")
    }

    /// A rate nobody stated is taken to be this when buffers are sized; only memory in use is really taken.
    static let unstatedRate = BitRate(bitsPerSecond: 10e9)
    static let smallestBufferBytes = 4 << 20
    static let largestBufferBytes = 512 << 20
    /// The target's window, set before it listens since the scale is fixed in the handshake.
    static let receiveBufferBytes = 256 << 20
}

/// How page bytes get into the kernel.
public enum SendMethod: String, CaseIterable, Sendable {
    /// sendmsg: the kernel copies the pages. Always works; best for scattered pages.
    case copied
    /// sendfile from the memory file: the line reads the page cache, nobody copies (sendfile(2)).
    case spliced
    /// MSG_ZEROCOPY: the pages are pinned while the line needs them (Documentation/networking/msg_zerocopy.rst).
    case zeroCopy = "zero-copy"
}

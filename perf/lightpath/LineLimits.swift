/// Every bound of the emulator, with what it bounds.
enum LineLimits {
    /// Preamble 8, Ethernet header 14, check sequence 4, gap 12: what a frame occupies on the line beside its IP packet.
    static let overheadBytesPerFrame: UInt64 = 38
    static let minimumRateBitsPerSecond: UInt64 = 64_000
    static let maximumRateBitsPerSecond: UInt64 = 400_000_000_000
    /// The far side of the Moon and back, twice.
    static let maximumDelayNanoseconds: UInt64 = 10_000_000_000
    static let minimumMTUBytes = 68
    /// What the kernel accepts for a TUN device.
    static let maximumMTUBytes = 65_535
    static let maximumQueueBytes: UInt64 = 1 << 30
    static let maximumRingBytes: UInt64 = 4 << 30
    /// Segmentation offload hands over at most 64 KiB and the headers in one read.
    static let maximumPacketBytes: UInt64 = 65_536 + 256
    /// A writer that late has the next 50 ms of frames waiting behind it.
    static let schedulingReserveNanoseconds: UInt64 = 50_000_000
    /// Frames the device keeps while its reader is not scheduled.
    static let deviceQueueFrames: Int32 = 1_000
    /// IFNAMSIZ without its terminator.
    static let maximumDeviceNameBytes = 15
    static let maximumNamespaceNameBytes = 64
    static let controlClients = 8
    static let controlLineBytes = 256
    /// How long a peer of the control socket may leave a reply unread, or `--tell` waits for one.
    static let controlReplyMilliseconds: Int32 = 2_000
    /// What `auto` gives a short line.
    static let minimumTCPBufferBytes: UInt64 = 16 << 20
    /// tcp_rmem and tcp_wmem are C ints.
    static let maximumTCPBufferBytes: UInt64 = 0x7fff_ffff
    static let realTimePriority: Int32 = 10
    /// A delivery later than this is counted by itself: a peer would notice.
    static let noticeableLatenessNanoseconds: UInt64 = 1_000_000
}

// How many queue pairs a stream has, and how many frames may be under way on it, from what the line is. Pure arithmetic.

public import TurntableCore

/// What is chosen for a line.
public struct VerbsLineShape: Equatable, Sendable {
    /// Queue pairs of each stream.
    public var lanes: Int
    /// Frames of each stream that the target has not taken yet.
    public var frames: Int
    /// Stripes of guest memory that each stream may have registered at once.
    public var windows: Int
    /// The device waits 4.096 µs × 2^this for an acknowledgement.
    public var acknowledgementExponent: UInt8

    /// A rate that nobody stated is taken to be this when the line is long.
    static let unstatedRate = BitRate(bitsPerSecond: 10e9)
    /// What one queue pair has on the line at once, at least: of software devices the most.
    static let bytesPerQueuePair = 512 << 10
    /// Below it one queue pair fills the line.
    static let longLine = Nanoseconds.milliseconds(5)
    static let fewestFrames = 8
    private static let shortestAcknowledgement: UInt8 = 16

    /// - Parameters:
    ///   - rate: what the line is to carry; nil if nobody stated it.
    ///   - streams: data streams of the migration.
    ///   - pinned: what may be pinned at each end.
    public init(roundTrip: Nanoseconds, rate: BitRate?, streams: Int, pinned: ByteCount = ByteCount(Limits.pinnedBytes)) {
        let product = (rate ?? Self.unstatedRate).bytesPerSecond * roundTrip.seconds / Double(streams)
        lanes = 1
        if roundTrip > Self.longLine {
            // A quarter more: a queue pair that is just full stalls on the first late acknowledgement.
            lanes = min(max(Int((product * 1.25 / Double(Self.bytesPerQueuePair)).rounded(.up)), 1), max(1, Limits.queuePairs / streams))
        }
        let share = pinned.value / streams
        let wanted = max(Self.fewestFrames, Int((min(product, 1e12) * 1.5 / Double(Limits.framePayloadBytes)).rounded(.up)) + 4)
        frames = max(1, min(wanted, Limits.verbsFrames, share / 2 / Place.bytes))
        windows = max(0, (share - frames * Place.bytes - (frames + 1) * (Credit.bytes + pageBytes)) / Limits.framePayloadBytes)
        acknowledgementExponent = Self.shortestAcknowledgement
        while Self.acknowledgementTime(acknowledgementExponent) < roundTrip + roundTrip + roundTrip + roundTrip, acknowledgementExponent < 24 {
            acknowledgementExponent += 1
        }
    }

    static func acknowledgementTime(_ exponent: UInt8) -> Nanoseconds { Nanoseconds(4096 << Int64(exponent)) }

    /// The longest that a line which was cut under way goes unnoticed.
    public var cutTime: Nanoseconds {
        Nanoseconds(Self.acknowledgementTime(acknowledgementExponent).value * Int64(Limits.verbsRetries + 1))
    }
}

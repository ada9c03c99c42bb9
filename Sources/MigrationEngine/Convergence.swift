// When to pause: pure arithmetic on what was measured. No threads, no clock.

internal import Transport
public import TurntableCore
internal import WireFormat

/// What is known of the line.
public struct LineEstimate: Sendable, Equatable {
    public var oneWay: Nanoseconds
    public var rate: BitRate
    public init(oneWay: Nanoseconds, rate: BitRate) {
        self.oneWay = oneWay
        self.rate = rate
    }
    /// What the line itself holds when it is full: what is beyond that waits in a queue.
    var capacity: ByteCount { rate.bytes(in: oneWay + oneWay) }

    /// What goes over the line before whatever is sent now: in the streams' sockets, and in a queue on the line.
    func waiting(_ streams: [LineStatus]) -> ByteCount {
        let unsent = streams.reduce(0) { $0 + $1.unsentBytes.value }
        let onLine = streams.reduce(0) { $0 + $1.inFlightBytes.value }
        return ByteCount(unsent + max(0, onLine - capacity.value))
    }
}

/// How long the machine would stand still if it were paused now, by part.
public struct BlackoutPrediction: Sendable, Equatable, Codable {
    /// Pausing, and the last drain of the dirty log.
    public var pause: Nanoseconds
    /// What is left to send, and what waits before it, at the measured rate.
    public var lastBytes: Nanoseconds
    public var oneWay: Nanoseconds
    /// Saving and loading the device state.
    public var device: Nanoseconds
    /// Comparing memory, if that is done before the machine runs.
    public var verification: Nanoseconds
    public var total: Nanoseconds { pause + lastBytes + oneWay + device + verification }

    /// - Parameters:
    ///   - waiting: what goes over the line before the pages that are left.
    ///   - drain: what draining the dirty log took before, if it keeps the machine still.
    public init(
        pagesLeft: PageCount, waiting: ByteCount, line: LineEstimate, device cost: DeviceCost, drain: Nanoseconds = .zero,
        verification: Nanoseconds = .zero
    ) {
        self.verification = verification
        pause = Self.pauseTime + drain
        let left = pagesLeft.value * (pageBytes + Extent.bytes) + waiting.value + cost.bytes.value
        lastBytes = line.rate.time(for: ByteCount(left))
        oneWay = line.oneWay
        device = cost.save + cost.load
    }

    /// A stop of the processors and a scan: the part that no measurement before it can tell.
    static let pauseTime = Nanoseconds.milliseconds(5)
}

/// What a finished round left behind.
public struct RoundOutcome: Sendable, Equatable {
    /// Pages written since they were sent.
    public var pagesLeft: PageCount
    /// Pages written before their turn, which went with the round.
    public var pagesMerged: PageCount
    /// How long it took for them to be written.
    public var elapsed: Nanoseconds
    public init(pagesLeft: PageCount, pagesMerged: PageCount = PageCount(0), elapsed: Nanoseconds) {
        self.pagesLeft = pagesLeft
        self.pagesMerged = pagesMerged
        self.elapsed = elapsed
    }
    /// Bytes of memory that the guest makes dirty in a second.
    public var dirtyBytesPerSecond: Double {
        elapsed.value > 0 ? Double((pagesLeft + pagesMerged).bytes.value) / elapsed.seconds : 0
    }
}

/// Decides after each round whether to pause, to send another round, or to refuse.
public struct Convergence: Sendable {
    public enum Decision: Sendable, Equatable {
        case pause
        case anotherRound
        /// It does not fit, and another round would not help.
        case refuse(String)
    }

    /// The longest the machine may stand still.
    public let budget: Nanoseconds
    public private(set) var rounds = 0
    private var fewestLeft = Int.max
    private var roundsWithoutGain = 0

    /// Rounds that end with no fewer pages left than some round before, until it is taken that none will.
    static let patience = 4
    /// A gain smaller than this is not worth another round.
    static let worthwhileGain = Nanoseconds.milliseconds(4)

    public init(budget: Nanoseconds) { self.budget = budget }

    public mutating func decide(after round: RoundOutcome, prediction: BlackoutPrediction, line: LineEstimate) -> Decision {
        rounds += 1
        let left = round.pagesLeft.value
        if left < fewestLeft - fewestLeft / 16 {
            fewestLeft = left
            roundsWithoutGain = 0
        } else {
            roundsWithoutGain += 1
        }
        if prediction.total <= budget {
            // It fits. Go, unless one more short round would leave much less to send during the blackout.
            let nextRound = line.rate.time(for: round.pagesLeft.bytes)
            let nextLeft = ByteCount(Int(round.dirtyBytesPerSecond * nextRound.seconds))
            let gain = nextRound - line.rate.time(for: nextLeft)
            return roundsWithoutGain == 0 && gain > Self.worthwhileGain && gain.value > nextRound.value / 2 ? .anotherRound : .pause
        }
        let figures = """
            predicted \(prediction.total) (pause \(prediction.pause), last pages \(prediction.lastBytes), one way \(prediction.oneWay), \
            devices \(prediction.device)\(prediction.verification > .zero ? ", comparing memory \(prediction.verification)" : "")), \
            budget \(budget), \(round.pagesLeft.bytes) left after round \(rounds), \
            guest dirties \(ByteCount(Int(round.dirtyBytesPerSecond)))/s, line \(line.rate)
            """
        let floor = prediction.pause + prediction.oneWay + prediction.device + prediction.verification
        if floor > budget {
            return .refuse("the budget is below what the pause, the line and the devices alone take, \(floor): \(figures)")
        }
        if roundsWithoutGain >= Self.patience { return .refuse("pre-copy does not converge: \(figures)") }
        if rounds >= Limits.rounds { return .refuse("\(Limits.rounds) rounds were not enough: \(figures)") }
        return .anotherRound
    }
}

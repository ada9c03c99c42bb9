public import TurntableCore

/// Works out the line's rate and delay from what the streams report.
public struct LineMeter: Sendable {
    /// What the caller promised, such as a reservation's bandwidth: never exceeded by the estimate.
    private var statedRate: BitRate?
    private var samples: [(time: Nanoseconds, acknowledged: ByteCount)] = []
    private var measured: BitRate?
    public private(set) var roundTrip = Nanoseconds.forever

    /// The span over which a rate is measured: long enough to even out acknowledgements that come in bunches.
    static let window = Nanoseconds.milliseconds(400)
    static let mostSamples = 64
    /// A round that delivered less is no measure of the line.
    static let smallestRound = ByteCount.kibi(256)

    public init(statedRate: BitRate?) {
        self.statedRate = statedRate
        samples.reserveCapacity(Self.mostSamples)
    }

    /// The promise is another now, and what was measured under the old one tells nothing of it.
    mutating func restate(_ rate: BitRate) {
        statedRate = rate
        measured = nil
        pauseMeasuring()
    }

    /// The shortest round trip counts: longer ones waited in a queue, which the bytes on the line account for.
    public mutating func sawRoundTrip(_ time: Nanoseconds) {
        if time > .zero { roundTrip = min(roundTrip, time) }
    }

    /// Bytes acknowledged so far on all streams, while the line is kept busy.
    public mutating func sawAcknowledged(_ bytes: ByteCount, at time: Nanoseconds) {
        if samples.count == Self.mostSamples { samples.removeFirst() }
        samples.append((time, bytes))
        guard let start = samples.last(where: { time - $0.time >= Self.window }) else { return }
        measured = BitRate(bytes - start.acknowledged, in: time - start.time)
    }

    /// A round ended: what was delivered in it is at least what the line gives. Tells something where a round is shorter
    /// than the window, and keeps an old measurement from staying too low.
    public mutating func sawRound(delivered: ByteCount, in time: Nanoseconds) {
        guard delivered >= Self.smallestRound else { return }
        measured = max(measured ?? BitRate(bitsPerSecond: 0), BitRate(delivered, in: time))
    }

    /// The line stops being busy: what comes next is no measure of it.
    public mutating func pauseMeasuring() { samples.removeAll(keepingCapacity: true) }

    public var currentRate: BitRate { measured ?? statedRate ?? Self.assumedRate }

    public var estimate: LineEstimate {
        let rate: BitRate
        switch (statedRate, measured) {
        case (let stated?, let measured?): rate = min(stated, measured)
        case (let stated?, nil): rate = stated
        case (nil, let measured?): rate = measured
        case (nil, nil): rate = Self.assumedRate
        }
        return LineEstimate(oneWay: roundTrip == .forever ? .zero : roundTrip / 2, rate: rate)
    }

    /// Before anything is known: slow, so that nothing is promised.
    static let assumedRate = BitRate(bitsPerSecond: 100e6)
}

internal import Testing
internal import Transport
internal import TurntableCore
internal import WireFormat

@testable import MigrationEngine

/// When to pause: arithmetic on figures that can be checked by hand.
struct ConvergenceTests {
    /// 1 Gb/s, 10 ms one way.
    let line = LineEstimate(oneWay: .milliseconds(10), rate: BitRate(bitsPerSecond: 1e9))
    let device = DeviceCost(bytes: .kibi(500), save: .milliseconds(7), load: .milliseconds(9))

    private func predict(_ pages: Int, waiting: Int = 0) -> BlackoutPrediction {
        BlackoutPrediction(pagesLeft: PageCount(pages), waiting: ByteCount(waiting), line: line, device: device)
    }
    private func decide(_ convergence: inout Convergence, left: Int, in time: Nanoseconds = .seconds(1)) -> Convergence.Decision {
        convergence.decide(after: RoundOutcome(pagesLeft: PageCount(left), elapsed: time), prediction: predict(left), line: line)
    }

    @Test func thePredictionIsTheSumOfItsParts() {
        let prediction = predict(1000, waiting: 250_000)
        #expect(prediction.pause == .milliseconds(5))
        #expect(prediction.oneWay == .milliseconds(10))
        #expect(prediction.device == .milliseconds(16))
        // 1000 pages with their extents, what the line holds, and the device state: 4,874,000 bytes at 8 ns each.
        #expect(prediction.lastBytes == Nanoseconds((1000 * (4096 + 16) + 250_000 + 512_000) * 8))
        #expect(prediction.total.value == 5_000_000 + 10_000_000 + 16_000_000 + 38_992_000)
    }

    @Test func whatALineDoesNotHoldWaitsInAQueue() {
        // 20 ms there and back at 1 Gb/s: 2.5 MB.
        #expect(line.capacity == ByteCount(2_500_000))
        var streams = [LineStatus(), LineStatus()]
        (streams[0].inFlightBytes, streams[1].inFlightBytes) = (ByteCount(1_000_000), ByteCount(1_500_000))
        #expect(line.waiting(streams) == ByteCount(0))
        (streams[0].unsentBytes, streams[1].inFlightBytes) = (ByteCount(300_000), ByteCount(2_000_000))
        #expect(line.waiting(streams) == ByteCount(800_000))
    }

    @Test func aDeadLineIsPredictedAsForever() {
        let prediction = BlackoutPrediction(
            pagesLeft: PageCount(1), waiting: ByteCount(0), line: LineEstimate(oneWay: .zero, rate: BitRate(bitsPerSecond: 0)),
            device: device)
        #expect(prediction.total == .forever)
        var convergence = Convergence(budget: .seconds(1))
        #expect(
            convergence.decide(after: RoundOutcome(pagesLeft: PageCount(1), elapsed: .seconds(1)), prediction: prediction, line: line)
                == .anotherRound)
    }

    @Test func itPausesWhenWhatIsLeftFits() {
        var convergence = Convergence(budget: .milliseconds(300))
        // 100 pages take 3.3 ms: another round would gain less than it costs.
        #expect(decide(&convergence, left: 100) == .pause)
        #expect(convergence.rounds == 1)
    }

    @Test func itFitsToTheNanosecondAndNotBeyond() {
        let total = predict(100).total
        var exact = Convergence(budget: total)
        #expect(decide(&exact, left: 100) == .pause)
        var short = Convergence(budget: total - Nanoseconds(1))
        #expect(decide(&short, left: 100) == .anotherRound)
    }

    @Test func oneMoreShortRoundWhenItLeavesMuchLess() {
        // 5000 pages, 164 ms, written in 10 s: a round more leaves 82 of them.
        var convergence = Convergence(budget: .seconds(1))
        #expect(decide(&convergence, left: 5000, in: .seconds(10)) == .anotherRound)
        // No fewer than before: it fits, and that is that.
        #expect(decide(&convergence, left: 5000, in: .seconds(10)) == .pause)
    }

    @Test func noFurtherRoundWhenTheGuestWritesAsFastAsTheLine() {
        // 5000 pages in 200 ms: a round of 164 ms would leave 4096 of them.
        var convergence = Convergence(budget: .seconds(1))
        #expect(decide(&convergence, left: 5000, in: .milliseconds(200)) == .pause)
    }

    @Test func aBudgetBelowTheFloorIsRefusedAtOnceWithTheFigures() {
        var convergence = Convergence(budget: .milliseconds(30))
        guard case .refuse(let why) = decide(&convergence, left: 1) else { Issue.record("not refused"); return }
        // 5 + 10 + 16 ms, whatever is sent.
        for figure in ["31.0 ms", "budget 30.0 ms", "one way 10.0 ms", "devices 16.0 ms", "4.0 KiB left after round 1", "1.00 Gb/s"] {
            #expect(why.contains(figure), "\(why)")
        }
    }

    @Test func noGainForSomeRoundsMeansThatItDoesNotConverge() {
        var convergence = Convergence(budget: .milliseconds(50))
        var decisions: [Convergence.Decision] = []
        for _ in 0...Convergence.patience { decisions.append(decide(&convergence, left: 10_000)) }
        #expect(decisions.dropLast().allSatisfy { $0 == .anotherRound })
        guard case .refuse(let why)? = decisions.last else { Issue.record("not refused"); return }
        for figure in ["does not converge", "39.1 MiB left after round 5", "39.1 MiB/s", "budget 50.0 ms"] {
            #expect(why.contains(figure), "\(why)")
        }
    }

    @Test func aSmallGainIsNoGain() {
        var convergence = Convergence(budget: .milliseconds(50))
        // A sixteenth less than the best is the least that counts: here it is a hundredth a round.
        var left = 30_000.0
        var decision = decide(&convergence, left: Int(left))
        while decision == .anotherRound, convergence.rounds < Limits.rounds {
            left *= 0.99
            decision = decide(&convergence, left: Int(left))
        }
        #expect(convergence.rounds == Convergence.patience + 1)
    }

    @Test func roundsEndEvenIfEachLeavesFewer() {
        var convergence = Convergence(budget: .milliseconds(36))
        var left = 4_000_000_000.0
        var decision = Convergence.Decision.anotherRound
        while decision == .anotherRound, convergence.rounds <= Limits.rounds {
            decision = decide(&convergence, left: Int(left))
            left *= 0.9
        }
        guard case .refuse(let why) = decision else { Issue.record("not refused"); return }
        #expect(convergence.rounds == Limits.rounds && why.contains("\(Limits.rounds) rounds were not enough"), "\(why)")
    }
}

struct LineMeterTests {
    @Test func beforeAnythingIsKnownNothingIsPromised() {
        var restated = LineMeter(statedRate: BitRate(bitsPerSecond: 16e6))
        restated.sawRound(delivered: .mebi(1), in: .seconds(1))
        restated.restate(BitRate(bitsPerSecond: 400e6))
        #expect(restated.currentRate == BitRate(bitsPerSecond: 400e6) && restated.estimate.rate == restated.currentRate)
        #expect(LineMeter(statedRate: nil).estimate == LineEstimate(oneWay: .zero, rate: LineMeter.assumedRate))
    }

    @Test func theStatedRateCountsUntilLessIsMeasured() {
        var meter = LineMeter(statedRate: BitRate(bitsPerSecond: 1e9))
        #expect(meter.estimate.rate.bitsPerSecond == 1e9)
        // 2 Gb/s measured: not believed.
        for tick in 0...30 { meter.sawAcknowledged(ByteCount(tick * 5_000_000), at: .milliseconds(Double(tick) * 20)) }
        #expect(meter.estimate.rate.bitsPerSecond == 1e9)
        #expect(abs(meter.currentRate.bitsPerSecond - 2e9) < 1e6)
        meter.pauseMeasuring()
        for tick in 0...30 { meter.sawAcknowledged(ByteCount(tick * 500_000), at: .seconds(10) + .milliseconds(Double(tick) * 20)) }
        #expect(abs(meter.estimate.rate.bitsPerSecond - 2e8) < 1e6)
    }

    @Test func aRateIsMeasuredOverAWindowAndNoLess() {
        var meter = LineMeter(statedRate: nil)
        meter.sawAcknowledged(ByteCount(0), at: .zero)
        meter.sawAcknowledged(ByteCount(1 << 30), at: LineMeter.window - Nanoseconds(1))
        #expect(meter.estimate.rate == LineMeter.assumedRate)
        meter.sawAcknowledged(ByteCount(50_000_000), at: LineMeter.window)
        #expect(abs(meter.estimate.rate.bitsPerSecond - 1e9) < 1)
    }

    /// Bytes that come in bunches are evened out, and what was long ago is forgotten.
    @Test func theRateFollowsTheLine() {
        var meter = LineMeter(statedRate: nil)
        var bytes = 0
        for tick in 0..<200 {
            bytes += tick < 100 ? (tick % 5 == 0 ? 12_500_000 : 0) : 250_000
            meter.sawAcknowledged(ByteCount(bytes), at: .milliseconds(Double(tick) * 20))
            if tick == 99 { #expect(abs(meter.currentRate.bitsPerSecond - 1e9) < 3e8) }
        }
        #expect(abs(meter.currentRate.bitsPerSecond - 1e8) < 1e6)
    }

    @Test func theIdleTimeBetweenTwoRoundsIsNoMeasure() {
        var meter = LineMeter(statedRate: nil)
        for tick in 0...30 { meter.sawAcknowledged(ByteCount(tick * 2_500_000), at: .milliseconds(Double(tick) * 20)) }
        meter.pauseMeasuring()
        meter.sawAcknowledged(ByteCount(75_000_000), at: .seconds(100))
        meter.sawAcknowledged(ByteCount(77_500_000), at: .seconds(100.02))
        #expect(abs(meter.currentRate.bitsPerSecond - 1e9) < 1e6)
    }

    @Test func theShortestRoundTripCountsAndAbsurdOnesDoNot() {
        var meter = LineMeter(statedRate: nil)
        for milliseconds in [40.0, 30, 90, 0, -5] { meter.sawRoundTrip(.milliseconds(milliseconds)) }
        #expect(meter.roundTrip == .milliseconds(30))
        #expect(meter.estimate.oneWay == .milliseconds(15))
    }
}

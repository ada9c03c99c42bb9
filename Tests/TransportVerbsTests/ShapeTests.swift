internal import Testing
@testable internal import TransportVerbs
internal import TurntableCore

/// How many queue pairs and frames a line is given, and what they pin.
struct ShapeTests {
    @Test func aShortLineHasOneQueuePair() {
        let shape = VerbsLineShape(roundTrip: .milliseconds(0.2), rate: nil, streams: 1)
        #expect(shape.lanes == 1 && shape.frames == 8)
    }

    @Test func aLongLineIsFilled() {
        let shape = VerbsLineShape(roundTrip: .milliseconds(175), rate: BitRate(bitsPerSecond: 1e9), streams: 1)
        let product = 1e9 / 8 * 0.175
        #expect(Double(shape.lanes * (512 << 10)) >= product && shape.lanes <= Limits.queuePairs)
        #expect(Double(shape.frames * Limits.framePayloadBytes) >= product * 1.4)
        // Four round trips and more before it is taken for lost; and a cut is found in seconds all the same.
        #expect(VerbsLineShape.acknowledgementTime(shape.acknowledgementExponent) >= .milliseconds(700))
        #expect(shape.cutTime < .seconds(8))
    }

    @Test(arguments: 1...Limits.streams, [0.05, 3, 30, 175, 400])
    func noStreamsTogetherPinMoreThanTheyMay(streams: Int, milliseconds: Double) {
        for pinned in [ByteCount.mebi(256), .mebi(64)] {
            for rate in [nil, BitRate(bitsPerSecond: 1e9), BitRate(bitsPerSecond: 400e9)] {
                let shape = VerbsLineShape(roundTrip: .milliseconds(milliseconds), rate: rate, streams: streams, pinned: pinned)
                let bytes = shape.frames * Place.bytes + (shape.frames + 1) * Credit.bytes + shape.windows * Limits.framePayloadBytes
                #expect(bytes * streams <= pinned.value)
                #expect(shape.frames >= 1 && shape.frames <= Limits.verbsFrames)
                #expect(shape.lanes >= 1 && shape.lanes * streams <= max(Limits.queuePairs, streams))
            }
        }
    }
}

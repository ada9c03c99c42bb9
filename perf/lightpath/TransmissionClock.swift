/// When the last bit of each frame leaves the sending end: one frame after the other at the line's rate. Pure arithmetic;
/// the fraction of a nanosecond is carried over, so the rate is exact however small the frames.
struct TransmissionClock {
    private static let femtosecondsPerNanosecond: UInt64 = 1_000_000

    private var idleFromNanoseconds: UInt64 = 0
    private var carryFemtoseconds: UInt64 = 0

    /// The departure of a frame that arrives now, or nil when the frames waiting before it already fill the queue.
    mutating func departure(wireBytes: UInt64, now: UInt64, femtosecondsPerByte: UInt64, queueNanoseconds: UInt64) -> UInt64? {
        if idleFromNanoseconds <= now {
            idleFromNanoseconds = now
            carryFemtoseconds = 0
        } else if idleFromNanoseconds - now > queueNanoseconds {
            return nil
        }
        carryFemtoseconds += wireBytes * femtosecondsPerByte
        let (nanoseconds, rest) = carryFemtoseconds.quotientAndRemainder(dividingBy: Self.femtosecondsPerNanosecond)
        idleFromNanoseconds += nanoseconds
        carryFemtoseconds = rest
        return idleFromNanoseconds
    }
}

/// Random loss of single frames, from a seed (SplitMix64), so that a run can be repeated as far as its traffic can.
struct FrameLoss {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    /// Whether any of `frames` frames is lost, each with the probability threshold / 2^63.
    mutating func strikes(frames: UInt64, threshold: UInt64) -> Bool {
        guard threshold > 0 else { return false }
        for _ in 0..<frames where next() >> 1 < threshold { return true }
        return false
    }

    private mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

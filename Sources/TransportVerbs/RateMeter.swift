internal import TurntableCore
internal import TurntableLinux

/// How fast a stream's bytes are acknowledged: what was so within the last moments is what a line holds.
final class RateMeter: Sendable {
    private struct State {
        var samples: [(at: Nanoseconds, bytes: Int)] = []
    }
    private let state = Monitor(State())
    private static let samples = 32
    private static let between = Nanoseconds.milliseconds(5)

    /// `bytes` were acknowledged in all.
    func saw(_ bytes: Int) {
        let now = Clock.now
        state.update { state in
            if let last = state.samples.last, now - last.at < Self.between { return }
            if state.samples.count == Self.samples { state.samples.removeFirst() }
            state.samples.append((now, bytes))
        }
    }

    /// Bytes that the line carries in `time` at the rate of late, of which `bytes` are the last.
    func bytes(within time: Nanoseconds, at bytes: Int) -> Int {
        state.read { state in
            guard let first = state.samples.first else { return 0 }
            let elapsed = Clock.now - first.at
            guard elapsed.value > 0 else { return 0 }
            return Int(Double(bytes - first.bytes) / elapsed.seconds * time.seconds)
        }
    }
}

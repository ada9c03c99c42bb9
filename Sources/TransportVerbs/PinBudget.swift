public import TurntableCore
internal import TurntableLinux

/// What this process may pin for its streams, all together: a named maximum, and never more.
public final class PinBudget: Sendable {
    public let limit: ByteCount
    private let state = Monitor(State())
    private struct State {
        var pinned = 0
        var peak = 0
    }

    public init(limit: ByteCount = ByteCount(Limits.pinnedBytes)) { self.limit = limit }

    /// The most that was pinned at once.
    public var peak: ByteCount { ByteCount(state.read { $0.peak }) }
    public var pinned: ByteCount { ByteCount(state.read { $0.pinned }) }

    /// False if that is more than what is left.
    func take(_ bytes: Int) -> Bool {
        state.update { state in
            guard state.pinned + bytes <= limit.value else { return false }
            state.pinned += bytes
            state.peak = max(state.peak, state.pinned)
            return true
        }
    }

    func give(_ bytes: Int) { state.update { $0.pinned -= bytes } }
}

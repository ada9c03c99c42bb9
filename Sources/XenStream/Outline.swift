internal import TurntableCore
internal import TurntableLinux

/// The outline between the thread that hears it and the one that goes by it.
final class Outline: Sendable {
    private struct State {
        var bytes: [UInt8] = []
        /// Of those, the ones that were read.
        var taken = 0
        var isClosed = false
        var unread: Int { bytes.count - taken }
    }
    private let state = Monitor(State())

    /// Waits while much of it is unread.
    func add(_ bytes: [UInt8]) throws(TurntableError) {
        let isOpen = state.wait(atMost: .forever) { $0.isClosed ? false : $0.unread <= Limits.unreadControlBytes ? true : nil }
        guard isOpen == true else { throw Self.closed }
        state.update { $0.bytes += bytes }
    }

    /// Waits for so many bytes.
    func read(_ count: Int) throws(TurntableError) -> [UInt8] {
        precondition(count <= Limits.programBytes)
        let isThere = state.wait(atMost: .forever) { $0.isClosed ? false : $0.unread >= count ? true : nil }
        guard isThere == true else { throw Self.closed }
        return state.update { state in
            defer {
                state.taken += count
                // Now and then, not at each piece.
                if state.taken == state.bytes.count || state.taken > Limits.unreadControlBytes {
                    state.bytes.removeFirst(state.taken)
                    state.taken = 0
                }
            }
            return Array(state.bytes[state.taken..<state.taken + count])
        }
    }

    /// Whoever waits, or is about to, gets an error.
    func close() { state.update { $0.isClosed = true } }

    private static let closed = TurntableError(.cancelled, "reading the outline", "the move has ended")
}

public import TurntableCore
public import TurntableLinux

/// A journal's bytes without a disk: knows what a crash of the host would leave.
public final class MemoryStore: AppendStore {
    private struct State {
        var bytes: [UInt8] = []
        var durable = 0
        var isFull = false
    }
    private let state = Monitor(State())
    public init() {}

    public func contents() -> [UInt8] { state.read { $0.bytes } }
    public func append(_ bytes: [UInt8]) throws(TurntableError) {
        let isFull = state.update { state in
            if !state.isFull { state.bytes += bytes }
            return state.isFull
        }
        if isFull { throw TurntableError(.unsupported, "writing the journal", "the disk is full") }
    }
    public func sync() { state.update { $0.durable = $0.bytes.count } }
    public func truncate(to count: Int) { state.update { $0.bytes.removeLast($0.bytes.count - count) } }
    public func locked<Value>(_ body: () throws(TurntableError) -> Value) throws(TurntableError) -> Value { try body() }

    /// The disk takes nothing any more.
    public func fill() { state.update { $0.isFull = true } }
    /// What was not made durable is lost, but for the first `kept` bytes of it.
    public func crash(keeping kept: Int = 0) { state.update { $0.bytes = Array($0.bytes.prefix($0.durable + kept)) } }
}

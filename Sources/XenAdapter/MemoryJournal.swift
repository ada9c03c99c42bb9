public import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// Under xl it is xl that decides who runs a domain: it starts it at the target, or resumes it at the source, after the helpers
/// are done. What the engine notes of its own hand-off has no meaning after this process, and is kept in memory.
public func makeMemoryJournals() -> Journals {
    Journals(host: .random()) { (machine) throws(TurntableError) in
        try Journal(of: machine, store: MemoryStore(), boot: .none) { Int64(Clock.now.seconds) }
    }
}

private final class MemoryStore: AppendStore {
    private let bytes = Monitor<[UInt8]>([])
    private let turn = Turn()

    func contents() -> [UInt8] { bytes.read { $0 } }
    func append(_ more: [UInt8]) { bytes.update { $0 += more } }
    func sync() {}
    func truncate(to count: Int) { bytes.update { $0.removeSubrange(count...) } }
    func locked<Value>(_ body: () throws(TurntableError) -> Value) throws(TurntableError) -> Value {
        turn.take()
        defer { turn.leave() }
        return try body()
    }

    /// A lock whose holder reads and writes the bytes under their own.
    private final class Turn: Sendable {
        private let isTaken = Monitor(false)
        func take() {
            _ = isTaken.wait(atMost: .forever) { isTaken -> Bool? in
                if isTaken { return nil }
                isTaken = true
                return true
            }
        }
        func leave() { isTaken.update { $0 = false } }
    }
}

// The seam for simulation: what a program's threads, their waits, its time and its chance are made of. The operating
// system's, unless the thread that makes them has a substitute, which then decides who goes on when, and what the time is.

internal import CTurntableLinux
public import TurntableCore

/// Stands in for the operating system.
public protocol Substitute: AnyObject {
    var now: Nanoseconds { get }
    func sleep(_ time: Nanoseconds)
    func random() -> UInt64
    func makeGate() -> any SubstituteGate
    /// Starts `body` as a thread, and gives what ``join(_:)`` takes.
    func start(_ name: String, _ body: @escaping @Sendable () -> Void) -> Int
    func join(_ thread: Int)
}

/// Stands in for a lock and its condition.
public protocol SubstituteGate: AnyObject {
    func lock()
    func unlock()
    func wakeAll()
    /// Unlocks, waits to be woken, locks. True if `deadline` came first.
    func wait(until deadline: Nanoseconds) -> Bool
}

extension Substitute {
    /// Runs `body` with this substitute on the calling thread.
    public func standIn<Value>(_ body: () throws -> Value) rethrows -> Value {
        let holder = SubstituteHolder(self)
        let earlier = unsafe tt_substitute()
        unsafe tt_set_substitute(Unmanaged.passUnretained(holder).toOpaque())
        defer { unsafe tt_set_substitute(earlier) }
        return try withExtendedLifetime(holder, body)
    }
}

private final class SubstituteHolder {
    let substitute: any Substitute
    init(_ substitute: any Substitute) { self.substitute = substitute }
}

/// The calling thread's, if it has one.
var substitute: (any Substitute)? {
    guard let holder = unsafe tt_substitute() else { return nil }
    // Lives as long as standIn() runs.
    return unsafe Unmanaged<SubstituteHolder>.fromOpaque(holder).takeUnretainedValue().substitute
}

/// Random numbers that nobody can guess; a simulation's come again with its seed.
public struct Chance: RandomNumberGenerator {
    private var generator = SystemRandomNumberGenerator()
    public init() {}
    public mutating func next() -> UInt64 { substitute?.random() ?? generator.next() }
}

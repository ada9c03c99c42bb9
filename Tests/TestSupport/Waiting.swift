public import TurntableCore
internal import TurntableLinux

/// What a thread came to, when it has.
public final class Background<Value: Sendable>: Sendable {
    private let result = Monitor<Result<Value, TurntableError>?>(nil)

    public init(_ body: @escaping @Sendable () throws(TurntableError) -> Value) {
        _ = WorkerThread("test") { [result] in
            let outcome: Result<Value, TurntableError>
            do throws(TurntableError) { outcome = .success(try body()) } catch { outcome = .failure(error) }
            result.update { $0 = outcome }
        }
    }

    /// Nil if it goes on after `limit`.
    public func outcome(within limit: Nanoseconds = .seconds(20)) -> Result<Value, TurntableError>? { result.wait(atMost: limit) { $0 } }

    public func value(within limit: Nanoseconds = .seconds(20)) throws -> Value {
        guard let outcome = outcome(within: limit) else { throw TurntableError(.line, "a test's thread", "it goes on after \(limit)") }
        return try outcome.get()
    }
}

/// Whether `condition` came true within `limit`.
public func eventually(within limit: Nanoseconds = .seconds(10), _ condition: () -> Bool) -> Bool {
    let deadline = Clock.now + limit
    while !condition() {
        if Clock.now > deadline { return false }
        Clock.sleep(.milliseconds(2))
    }
    return true
}

/// The error of a body that must throw one; nil if it did not.
public func failure<Value>(_ body: () throws(TurntableError) -> Value) -> TurntableError? {
    do throws(TurntableError) { _ = try body() } catch { return error }
    return nil
}

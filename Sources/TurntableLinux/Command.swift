public import TurntableCore

/// Programs that are run to their end.
public enum Command {
    /// Gives the exit code and what was printed, on standard output and error, of at most `mostBytes`.
    public static func run(
        _ arguments: [String], environment: [String: String] = [:], within limit: Nanoseconds = Limits.agentCommandTime,
        mostBytes: Int = Limits.commandOutputBytes
    ) async throws(TurntableError) -> (code: Int32, output: String) {
        let result: Result<(code: Int32, output: String), TurntableError> = await withCheckedContinuation { continuation in
            onThread {
                continuation.resume(
                    returning: Result { () throws(TurntableError) in try runNow(arguments, environment, within: limit, mostBytes) })
            }
        }
        return try result.get()
    }

    /// What blocks has a thread of its own.
    private static func onThread(_ body: @escaping @Sendable () -> Void) { _ = WorkerThread("tt-command", body) }

    private static func runNow(
        _ arguments: [String], _ environment: [String: String], within limit: Nanoseconds, _ mostBytes: Int
    ) throws(TurntableError) -> (code: Int32, output: String) {
        let what = "running \(arguments.prefix(2).joined(separator: " "))"
        let ends = try Socket.pair()
        let mine = Descriptor(owning: ends.0)
        let child: ChildProcess
        do {
            let theirs = Descriptor(owning: ends.1)
            child = try ChildProcess(arguments, environment: environment, output: theirs.rawValue)
        }
        var output: [UInt8] = []
        let deadline = Clock.now + limit
        while true {
            guard try Socket.waitReadable(mine, within: deadline - Clock.now) else {
                child.kill()
                _ = child.wait()
                throw TurntableError(.line, what, "it did not end within \(limit)")
            }
            let piece = try Socket.read(mine, atMost: 64 << 10, what: what)
            if piece.isEmpty { break }
            output += piece
            guard output.count <= mostBytes else {
                child.kill()
                _ = child.wait()
                throw TurntableError(.protocol, what, "it says more than \(ByteCount(mostBytes))")
            }
        }
        return (child.wait(), String(decoding: output, as: UTF8.self))
    }
}

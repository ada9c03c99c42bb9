internal import Dispatch
internal import Glibc
internal import TurntableCore

/// Ctrl-C and kill(1), taken by a thread instead of a handler: it may do anything.
@available(*, noasync)
public enum Signals {
    /// Calls `body` on a thread of its own each time SIGINT or SIGTERM arrives. To be called before other threads start.
    public static func onInterrupt(_ body: @escaping @Sendable (Int32) -> Void) {
        let waited = blocked([SIGINT, SIGTERM])
        _ = WorkerThread("signals") {
            var waited = waited
            while true {
                var signal: Int32 = 0
                if unsafe sigwait(&waited, &signal) == 0 { body(signal) }
            }
        }
    }

    /// Ended children leave nothing to be waited for.
    public static func ignoreChildren() { signal(SIGCHLD, SIG_IGN) }

    /// Sends a signal to a process; it may have ended meanwhile.
    public static func send(_ number: Int32, to process: Int32) { kill(process, number) }

    private static func blocked(_ numbers: [Int32]) -> sigset_t {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in numbers { unsafe sigaddset(&set, number) }
        unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
        return set
    }
}

/// SIGHUP, for those who read their files again.
public enum HangUps {
    /// An element each time that it arrives; it ends the process no longer.
    public static func stream() -> AsyncStream<Void> {
        signal(SIGHUP, SIG_IGN)
        // Dispatch's sources may be cancelled by any thread.
        nonisolated(unsafe) let source = DispatchSource.makeSignalSource(signal: SIGHUP)
        return AsyncStream(bufferingPolicy: .bufferingNewest(1)) { arrivals in
            unsafe source.setEventHandler { arrivals.yield() }
            arrivals.onTermination = { _ in unsafe source.cancel() }
            unsafe source.resume()
        }
    }
}

import CTurntableLinux
import Glibc
import Synchronization

/// A pthread of the frame path: real-time if the system permits, timer slack of 1 ns, stopped by a signal that interrupts
/// whatever call it sleeps in.
final class HotThread: @unchecked Sendable {
    private static let stopSignal = SIGUSR1

    private let name: String
    private let body: @Sendable (HotThread) -> Void
    private let isStopping = Atomic<Bool>(false)
    private let isFinished = Atomic<Bool>(false)
    private var thread = pthread_t()

    var mustStop: Bool { isStopping.load(ordering: .relaxed) }

    init(name: String, body: @escaping @Sendable (HotThread) -> Void) {
        self.name = name
        self.body = body
    }

    func start() throws(LineError) {
        // Without SA_RESTART, so that a blocked read or sleep returns; the handler itself has nothing to do.
        var action = sigaction()
        unsafe action.__sigaction_handler.sa_handler = { _ in }
        unsafe _ = sigaction(Self.stopSignal, &action, nil)
        let context = unsafe Unmanaged.passRetained(self).toOpaque()
        let code = unsafe pthread_create(
            &thread, nil,
            { context in
                // Retained once by start() for this thread.
                let hot = unsafe Unmanaged<HotThread>.fromOpaque(context!).takeRetainedValue()
                hot.run()
                return nil
            }, context)
        guard code == 0 else {
            unsafe Unmanaged<HotThread>.fromOpaque(context).release()
            throw .system("cannot start thread \(name)", errno: code)
        }
    }

    /// Returns when the thread has ended. The signal is repeated because it may come just before the thread blocks.
    func stop() {
        isStopping.store(true, ordering: .relaxed)
        while !isFinished.load(ordering: .acquiring) {
            _ = pthread_kill(thread, Self.stopSignal)
            usleep(1_000)
        }
        _ = pthread_join(thread, nil)
    }

    private func run() {
        unsafe _ = tt_line_thread_name(name)
        _ = tt_line_timer_slack(1)
        _ = Self.makeRealTime()
        body(self)
        isFinished.store(true, ordering: .releasing)
    }

    /// Whether threads may be real-time here, found by trying on the calling thread and taking it back.
    static func isRealTimePermitted() -> Bool {
        guard makeRealTime() else { return false }
        var ordinary = sched_param(sched_priority: 0)
        unsafe _ = pthread_setschedparam(pthread_self(), SCHED_OTHER, &ordinary)
        return true
    }

    private static func makeRealTime() -> Bool {
        var parameters = sched_param(sched_priority: LineLimits.realTimePriority)
        return unsafe pthread_setschedparam(pthread_self(), SCHED_RR, &parameters) == 0
    }
}

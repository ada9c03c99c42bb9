internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// A thread of its own for work that blocks in the kernel: never a cooperative one.
@available(*, noasync)
public final class WorkerThread: @unchecked Sendable {
    private var thread = pthread_t()
    private let body: @Sendable () -> Void
    private let name: String
    /// Of a substitute of the operating system, its number there.
    private var substituted: Int?

    /// Starts `body` on a new thread. The name shows in `top -H`; 15 bytes at most.
    public init(_ name: String, _ body: @escaping @Sendable () -> Void) {
        self.body = body
        self.name = String(name.prefix(15))
        if let substitute {
            substituted = substitute.start(name, body)
            return
        }
        // The thread holds the object until it has run: balanced by takeRetainedValue below.
        let context = unsafe Unmanaged.passRetained(self).toOpaque()
        let failure = unsafe pthread_create(
            &thread, nil,
            { context in
                let worker = unsafe Unmanaged<WorkerThread>.fromOpaque(context!).takeRetainedValue()
                unsafe tt_set_thread_name(worker.name)
                // sendfile(2) has no MSG_NOSIGNAL: a peer that leaves is an error of the call, not the end of this process.
                var pipe = sigset_t()
                unsafe sigemptyset(&pipe)
                unsafe sigaddset(&pipe, SIGPIPE)
                unsafe pthread_sigmask(SIG_BLOCK, &pipe, nil)
                worker.body()
                return nil
            }, context)
        precondition(failure == 0, "pthread_create: \(errorText(failure))")
    }

    /// Waits for the body to return. Call once.
    public func join() {
        if let substituted { substitute?.join(substituted) } else { pthread_join(thread, nil) }
    }
}

/// Has the calling thread run as soon as it can, before all that is not as urgent; if this process may. For a thread that
/// mostly sleeps.
public func makeThreadUrgent() {
    var least = sched_param(sched_priority: 1)
    if unsafe pthread_setschedparam(pthread_self(), SCHED_FIFO, &least) != 0 {
        // Of the thread, not of the process, whatever POSIX says: setpriority(2), NOTES.
        setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, -20)
    }
}

/// A gate on which threads wait for a change of state that a lock protects.
@safe public final class Monitor<State>: @unchecked Sendable {
    // Unsafe: pthread objects must not move, hence heap cells owned by this object. The state has one too, so that no access
    // to a property is open while a substitute lets another go on in the middle of `body`.
    private let state = UnsafeMutablePointer<State>.allocate(capacity: 1)
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let gate: (any SubstituteGate)?

    public init(_ state: State) {
        gate = substitute?.makeGate()
        unsafe self.state.initialize(to: state)
        var attributes = pthread_condattr_t()
        unsafe pthread_condattr_init(&attributes)
        unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        unsafe pthread_mutex_init(mutex, nil)
        unsafe pthread_cond_init(condition, &attributes)
        unsafe pthread_condattr_destroy(&attributes)
    }

    deinit {
        unsafe pthread_cond_destroy(condition)
        unsafe pthread_mutex_destroy(mutex)
        unsafe condition.deallocate()
        unsafe mutex.deallocate()
        unsafe state.deinitialize(count: 1)
        unsafe state.deallocate()
    }

    /// Reads or changes the state under the lock, and wakes the waiting threads.
    @discardableResult
    public func update<Result, Failure: Error>(_ body: (inout State) throws(Failure) -> Result) throws(Failure) -> Result {
        lock()
        defer {
            wakeAll()
            unlock()
        }
        return try unsafe body(&state.pointee)
    }

    /// Reads the state under the lock.
    public func read<Result>(_ body: (State) -> Result) -> Result {
        lock()
        defer { unlock() }
        return unsafe body(state.pointee)
    }

    /// Waits until `body` gives a value, at most `time`. Nil when the time is over.
    public func wait<Result>(atMost time: Nanoseconds, until body: (inout State) -> Result?) -> Result? {
        let deadline = Clock.now + time
        lock()
        defer { unlock() }
        while true {
            if let result = unsafe body(&state.pointee) { return result }
            if isOver(deadline) { return unsafe body(&state.pointee) }
        }
    }

    private func lock() { if let gate { gate.lock() } else { unsafe pthread_mutex_lock(mutex) } }
    private func unlock() { if let gate { gate.unlock() } else { unsafe pthread_mutex_unlock(mutex) } }
    private func wakeAll() { if let gate { gate.wakeAll() } else { unsafe pthread_cond_broadcast(condition) } }

    /// Waits, under the lock, to be woken. True if the deadline came first.
    private func isOver(_ deadline: Nanoseconds) -> Bool {
        if let gate { return gate.wait(until: deadline) }
        var absolute = timespec(tv_sec: Int(deadline.value / 1_000_000_000), tv_nsec: Int(deadline.value % 1_000_000_000))
        return unsafe pthread_cond_timedwait(condition, mutex, &absolute) == ETIMEDOUT
    }
}

internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// A thread of its own for work that blocks in the kernel: never a cooperative one.
@available(*, noasync)
public final class WorkerThread: @unchecked Sendable {
    private var thread = pthread_t()
    private let body: @Sendable () -> Void
    private let name: String

    /// Starts `body` on a new thread. The name shows in `top -H`; 15 bytes at most.
    public init(_ name: String, _ body: @escaping @Sendable () -> Void) {
        self.body = body
        self.name = String(name.prefix(15))
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
    public func join() { pthread_join(thread, nil) }
}

/// A gate on which threads wait for a change of state that a lock protects.
@safe public final class Monitor<State>: @unchecked Sendable {
    private var state: State
    // Unsafe: pthread objects must not move, hence heap cells owned by this object.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    public init(_ state: State) {
        self.state = state
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
    }

    /// Reads or changes the state under the lock, and wakes the waiting threads.
    @discardableResult
    public func update<Result, Failure: Error>(_ body: (inout State) throws(Failure) -> Result) throws(Failure) -> Result {
        unsafe pthread_mutex_lock(mutex)
        defer {
            unsafe pthread_cond_broadcast(condition)
            unsafe pthread_mutex_unlock(mutex)
        }
        return try body(&state)
    }

    /// Reads the state under the lock.
    public func read<Result>(_ body: (State) -> Result) -> Result {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        return body(state)
    }

    /// Waits until `body` gives a value, at most `time`. Nil when the time is over.
    public func wait<Result>(atMost time: Nanoseconds, until body: (inout State) -> Result?) -> Result? {
        let deadline = Clock.now + time
        var absolute = timespec(tv_sec: Int(deadline.value / 1_000_000_000), tv_nsec: Int(deadline.value % 1_000_000_000))
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        while true {
            if let result = body(&state) { return result }
            if unsafe pthread_cond_timedwait(condition, mutex, &absolute) == ETIMEDOUT { return body(&state) }
        }
    }
}

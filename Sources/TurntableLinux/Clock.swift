internal import Glibc
public import TurntableCore

/// The clocks the engine reads. Monotonic ones only: the wall clock is for people.
public enum Clock {
    /// Time since some point before the process started.
    public static var now: Nanoseconds { substitute?.now ?? read(CLOCK_MONOTONIC) }
    /// Processor time of the calling thread.
    public static var threadTime: Nanoseconds { read(CLOCK_THREAD_CPUTIME_ID) }
    /// Processor time of the process, all threads.
    public static var processTime: Nanoseconds { read(CLOCK_PROCESS_CPUTIME_ID) }

    private static func read(_ clock: clockid_t) -> Nanoseconds {
        var time = timespec()
        unsafe clock_gettime(clock, &time)
        return Nanoseconds(Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    public static func sleep(_ time: Nanoseconds) {
        guard time.value > 0 else { return }
        if let substitute { return substitute.sleep(time) }
        let deadline = now + time
        var absolute = timespec(tv_sec: Int(deadline.value / 1_000_000_000), tv_nsec: Int(deadline.value % 1_000_000_000))
        while unsafe clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &absolute, nil) == EINTR {}
    }
}

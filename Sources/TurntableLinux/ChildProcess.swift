internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// A program started by us.
public struct ChildProcess: ~Copyable, Sendable {
    public let identifier: Int32

    /// Starts a program with this process's environment and `environment` over it.
    /// - Parameters:
    ///   - inherited: descriptors it keeps, under the same numbers.
    ///   - output: a descriptor where its standard output and error go; standard input is then empty, and it gets a session of its
    ///     own. Nil: all three are this process's.
    ///   - channel: a descriptor that is its standard input and output. It gets a session of its own.
    ///   - errors: with a channel, a descriptor where its standard error goes; nil: this process's.
    public init(
        _ arguments: [String], environment: [String: String] = [:], inherited: [Int32] = [], output: Int32? = nil, channel: Int32? = nil,
        errors: Int32? = nil
    ) throws(TurntableError) {
        let what = "starting \(arguments[0])"
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        // dup2 of a number onto itself clears close-on-exec (posix_spawn_file_actions_adddup2(3)).
        for descriptor in inherited { unsafe posix_spawn_file_actions_adddup2(&actions, descriptor, descriptor) }
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        // The child starts with no signal blocked or ignored, whatever this process does with them.
        var none = sigset_t()
        var all = sigset_t()
        unsafe sigemptyset(&none)
        unsafe sigfillset(&all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        var flags = Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF)
        if let output {
            unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
            unsafe posix_spawn_file_actions_adddup2(&actions, output, 1)
            unsafe posix_spawn_file_actions_adddup2(&actions, output, 2)
            flags |= Int32(tt_spawn_new_session)
        }
        // Not every library marks its descriptors close-on-exec, and a listening socket in a child outlives its owner.
        if output != nil, inherited.isEmpty { unsafe tt_spawn_close_from(&actions, 3) }
        if let channel {
            for standard in [Int32(0), 1] { unsafe posix_spawn_file_actions_adddup2(&actions, channel, standard) }
            if let errors { unsafe posix_spawn_file_actions_adddup2(&actions, errors, 2) }
            flags |= Int32(tt_spawn_new_session)
        }
        unsafe posix_spawnattr_setflags(&attributes, Int16(flags))

        var variables = currentEnvironment()
        for (name, value) in environment { variables[name] = value }
        var process: pid_t = 0
        let failure = unsafe withCStrings(arguments) { argv in
            unsafe withCStrings(variables.map { "\($0.key)=\($0.value)" }) {
                unsafe posix_spawnp(&process, argv[0]!, &actions, &attributes, argv, $0)
            }
        }
        try checked(-failure, what, remedy: "check that it is installed and on the PATH")
        identifier = process
    }

    /// Its exit code, or 128 + the signal that ended it, when it has ended.
    public borrowing func wait() -> Int32 { tt_wait(identifier) }

    /// Its exit code if it has ended.
    public borrowing func exitCode() -> Int32? {
        let code = tt_try_wait(identifier)
        return code < 0 ? nil : code
    }

    /// Takes the exit code of a child that has ended, so that nothing of it remains; nothing if it is no child or runs.
    public static func reap(_ identifier: Int32) { _ = tt_try_wait(identifier) }

    public borrowing func kill() { Glibc.kill(identifier, SIGKILL) }
}

/// Becomes another program; returns only if that fails.
public func becomeProgram(_ arguments: [String]) throws(TurntableError) {
    // The pointers live until execv returns, which it does only to report an error.
    let result = unsafe withCStrings(arguments) { argv in unsafe execv(argv[0]!, argv) }
    try checked(result, "starting \(arguments[0])", remedy: "check that it is installed beside this program")
}

/// A value of this process's environment.
public func environmentValue(_ name: String) -> String? {
    guard let value = unsafe getenv(name) else { return nil }
    return unsafe String(cString: value)
}

/// For the programs that this process starts; before it has a second thread, since another that reads the environment meanwhile may see neither value.
public func setEnvironment(_ name: String, _ value: String) { unsafe setenv(name, value, 1) }

private func currentEnvironment() -> [String: String] {
    var variables: [String: String] = [:]
    var entry = unsafe environ
    while let text = unsafe entry.pointee {
        let pair = unsafe String(cString: text)
        if let equals = pair.firstIndex(of: "=") { variables[String(pair[..<equals])] = String(pair[pair.index(after: equals)...]) }
        unsafe entry += 1
    }
    return variables
}

/// The strings as a null-terminated C array, for the length of the call.
private func withCStrings<Result>(_ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result) -> Result {
    var pointers: [UnsafeMutablePointer<CChar>?] = unsafe strings.map { unsafe strdup($0) } + [nil]
    defer { for index in unsafe pointers.indices { unsafe free(pointers[index]) } }
    return unsafe pointers.withUnsafeMutableBufferPointer { unsafe body($0.baseAddress!) }
}

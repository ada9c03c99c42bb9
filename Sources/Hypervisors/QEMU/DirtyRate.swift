public import TurntableCore
internal import TurntableLinux

/// How much of a machine's memory is written a second, as QEMU estimates it: it samples pages and looks again `time` later
/// (QEMU, docs of `calc-dirty-rate`), in whole MiB. The machine runs on, and cannot be moved meanwhile.
public func measureDirtyRate(of machine: String, in directory: RunDirectory, for time: Nanoseconds) throws(TurntableError) -> ByteCount {
    let lock = try directory.lock(machine, "measuring")
    defer { withExtendedLifetime(lock) {} }
    let monitor = try QMP(path: directory.monitor(of: machine))
    let seconds = max(1, Int(time.seconds.rounded(.up)))
    guard case .integer(let bytes)? = try monitor.execute("query-memory-size-summary")["base-memory"] else {
        throw TurntableError(.hypervisor, "measuring what \(machine) writes", "QEMU does not say how much memory it has")
    }
    try monitor.execute("calc-dirty-rate", ["calc-time": .integer(seconds), "sample-pages": .integer(samplesPerGiB(of: ByteCount(bytes)))])
    let deadline = Clock.now + .seconds(Double(seconds)) + Limits.hypervisorTime
    while Clock.now < deadline {
        Clock.sleep(.milliseconds(50))
        let answer = try monitor.execute("query-dirty-rate")
        if answer["status"]?.text == "measured", case .integer(let mebibytes)? = answer["dirty-rate"] { return ByteCount(Int(mebibytes) << 20) }
    }
    throw TurntableError(.hypervisor, "measuring what \(machine) writes", "QEMU does not say so within \(Limits.hypervisorTime)")
}

/// As many samples as QEMU takes of a small machine, of which its own choice misses what is written seldom; fewer of each GiB the more there are.
private func samplesPerGiB(of memory: ByteCount) -> Int { min(max(Int(samples << 30) / max(memory.value, 1), 512), 4096) }

private let samples = 16384

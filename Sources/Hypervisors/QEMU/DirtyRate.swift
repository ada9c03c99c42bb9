public import TurntableCore
internal import TurntableLinux

/// How much of a machine's memory is written a second, as QEMU estimates it: it samples pages and looks again `time` later
/// (QEMU, docs of `calc-dirty-rate`). The machine runs on, and cannot be moved meanwhile.
public func measureDirtyRate(of machine: String, in directory: RunDirectory, for time: Nanoseconds) throws(TurntableError) -> ByteCount {
    let lock = try directory.lock(machine, "measuring")
    defer { withExtendedLifetime(lock) {} }
    let monitor = try QMP(path: directory.monitor(of: machine))
    let seconds = max(1, Int(time.seconds.rounded(.up)))
    try monitor.execute("calc-dirty-rate", ["calc-time": .integer(seconds)])
    let deadline = Clock.now + .seconds(Double(seconds)) + Limits.hypervisorTime
    while Clock.now < deadline {
        Clock.sleep(.milliseconds(50))
        let answer = try monitor.execute("query-dirty-rate")
        if answer["status"]?.text == "measured", case .integer(let mebibytes)? = answer["dirty-rate"] { return ByteCount(Int(mebibytes) << 20) }
    }
    throw TurntableError(.hypervisor, "measuring what \(machine) writes", "QEMU does not say so within \(Limits.hypervisorTime)")
}

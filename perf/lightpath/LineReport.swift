import Glibc

/// The line in words and in JSON: when it is up, and what it did.
struct LineReport {
    let line: Line
    let isJSON: Bool

    func ready(isRealTime: Bool) -> String {
        let settings = line.settings
        guard isJSON else {
            return "ready \(settings.namespaceNames[0]) <-> \(settings.namespaceNames[1]): \(settings.device), \(settings.rate),"
                + " \(settings.delay) one way, MTU \(settings.mtuBytes), loss \(settings.loss), queue \(settings.queue),"
                + " \(settings.superFrames ? "super-frames" : "single frames"), \(isRealTime ? "SCHED_RR" : "not real-time"),"
                + " ring \(ByteSize(bytes: line.ringBytes)), TCP buffers \(settings.tcpBuffers?.description ?? "unchanged")\n"
        }
        var json = JSONText()
        json.add("event", "ready")
        json.add("a", settings.namespaceNames[0])
        json.add("b", settings.namespaceNames[1])
        json.add("device", settings.device)
        json.add("rate_bits_per_second", settings.rate.bitsPerSecond)
        json.add("delay_nanoseconds", settings.delay.nanoseconds)
        json.add("loss_percent", settings.loss.percent, digits: 9)
        json.add("mtu_bytes", UInt64(settings.mtuBytes))
        json.add("queue_bytes", settings.queue.bytes)
        json.add("super_frames", settings.superFrames)
        json.add("real_time", isRealTime)
        json.add("ring_bytes", line.ringBytes)
        json.add("tcp_buffer_bytes", settings.tcpBuffers?.bytes ?? 0)
        json.add("process", UInt64(getpid()))
        return json.text + "\n"
    }

    func statistics() -> String { isJSON ? statisticsJSON().text + "\n" : statisticsText() }

    func statisticsJSON() -> JSONText {
        let cpu = CPUTime.ofThisProcess()
        var json = JSONText()
        json.add("event", "stats")
        json.add("seconds", line.seconds, digits: 3)
        json.add("cpu_user_seconds", cpu.userSeconds, digits: 3)
        json.add("cpu_system_seconds", cpu.systemSeconds, digits: 3)
        for (direction, setting) in zip(line.directions, line.current) { json.add(direction.name, Self.json(of: direction, setting)) }
        return json
    }

    private func statisticsText() -> String {
        let cpu = CPUTime.ofThisProcess()
        var text = "lightpath: up \(Quantity.fixed(line.seconds, digits: 1)) s,"
        text += " CPU \(Quantity.fixed(cpu.userSeconds, digits: 2)) s user, \(Quantity.fixed(cpu.systemSeconds, digits: 2)) s system\n"
        for (direction, setting) in zip(line.directions, line.current) {
            let counters = direction.counters
            text +=
                "\(direction.name): \(setting.rate), \(setting.delay), loss \(setting.loss)\(direction.parameters.isCut ? ", cut" : "");"
            text += " sent \(counters.sentFrames.value) frames, \(counters.sentBytes.value) bytes;"
            text += " delivered \(counters.deliveredFrames.value) frames, \(counters.deliveredBytes.value) bytes;"
            text += " tail drops \(counters.tailDroppedFrames.value), lost \(counters.lostFrames.value),"
            text += " cut \(counters.cutAtEntryFrames.value) + \(counters.cutOnLineFrames.value), refused \(counters.refusedFrames.value);"
            text += " late \(Quantity.fixed(Self.averageLateMicroseconds(counters), digits: 1)) us average,"
            text += " \(Quantity.fixed(Double(counters.latestNanoseconds.value) / 1e3, digits: 1)) us at most,"
            text += " \(counters.noticeablyLate.value) over 1 ms; ring waits \(counters.ringWaits.value)\n"
        }
        return text
    }

    private static func json(of direction: LinkDirection, _ setting: Line.Setting) -> JSONText {
        let counters = direction.counters
        var json = JSONText()
        json.add("rate_bits_per_second", setting.rate.bitsPerSecond)
        json.add("delay_nanoseconds", setting.delay.nanoseconds)
        json.add("loss_percent", setting.loss.percent, digits: 9)
        json.add("is_cut", direction.parameters.isCut)
        json.add("sent_frames", counters.sentFrames.value)
        json.add("sent_bytes", counters.sentBytes.value)
        json.add("delivered_frames", counters.deliveredFrames.value)
        json.add("delivered_bytes", counters.deliveredBytes.value)
        json.add("tail_dropped_frames", counters.tailDroppedFrames.value)
        json.add("lost_frames", counters.lostFrames.value)
        json.add("cut_at_entry_frames", counters.cutAtEntryFrames.value)
        json.add("cut_on_line_frames", counters.cutOnLineFrames.value)
        json.add("refused_frames", counters.refusedFrames.value)
        json.add("late_average_microseconds", averageLateMicroseconds(counters), digits: 1)
        json.add("late_maximum_microseconds", Double(counters.latestNanoseconds.value) / 1e3, digits: 1)
        json.add("late_over_1ms_deliveries", counters.noticeablyLate.value)
        json.add("deliveries", counters.deliveries.value)
        json.add("ring_waits", counters.ringWaits.value)
        return json
    }

    private static func averageLateMicroseconds(_ counters: LinkCounters) -> Double {
        Double(counters.lateNanoseconds.value) / 1e3 / Double(max(counters.deliveries.value, 1))
    }
}

struct CPUTime {
    let userSeconds: Double
    let systemSeconds: Double

    static func ofThisProcess() -> CPUTime {
        var usage = rusage()
        // RUSAGE_SELF, into a structure of ours; it cannot fail.
        unsafe _ = getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return CPUTime(userSeconds: seconds(usage.ru_utime), systemSeconds: seconds(usage.ru_stime))
    }

    private static func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
}

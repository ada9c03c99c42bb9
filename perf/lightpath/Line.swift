import CTurntableLinux
import Glibc

/// The whole line: two ends, two directions, four threads. Only the main thread touches it.
final class Line {
    /// What each direction is set to now.
    struct Setting {
        var rate: BitRate
        var delay: LineDelay
        var loss: LossRatio
    }

    let settings: LineSettings
    let directions: [LinkDirection]
    let ringBytes: UInt64
    private(set) var current: [Setting]
    private let endA: LineEnd
    private let endB: LineEnd
    private let failureEvent: OwnedDescriptor
    private var threads: [HotThread] = []
    private let startNanoseconds = MonotonicClock.now()

    /// Becomes readable when a direction has failed.
    var failureDescriptor: Int32 { failureEvent.number }
    var seconds: Double { Double(MonotonicClock.now() - startNanoseconds) / 1e9 }

    init(_ settings: LineSettings) throws(LineError) {
        self.settings = settings
        ringBytes = DelayRing.capacityBytes(rate: settings.maximumRate, delay: settings.maximumDelay, queue: settings.queue)
        let rings = (try DelayRing(capacityBytes: ringBytes), try DelayRing(capacityBytes: ringBytes))
        let a = try LineEnd(settings.namespaceNames[0], address: settings.addresses[0], settings: settings)
        let b = try LineEnd(settings.namespaceNames[1], address: settings.addresses[1], settings: settings)
        failureEvent = OwnedDescriptor(try check(tt_line_event(), "cannot make an eventfd for failures"))
        let (deviceA, deviceB) = (a.device.descriptor, b.device.descriptor)
        directions = [
            LinkDirection(
                name: "a-b", source: deviceA, target: deviceB, ring: rings.0, seed: settings.seed, failureEvent: failureEvent.number),
            LinkDirection(
                name: "b-a", source: deviceB, target: deviceA, ring: rings.1, seed: ~settings.seed, failureEvent: failureEvent.number),
        ]
        current = Array(repeating: Setting(rate: settings.rate, delay: settings.delay, loss: settings.loss), count: 2)
        endA = a
        endB = b
        for index in directions.indices {
            try set(rate: settings.rate, direction: index)
            try set(delay: settings.delay, direction: index)
            try set(loss: settings.loss, direction: index)
        }
    }

    func start() throws(LineError) {
        for direction in directions {
            threads.append(HotThread(name: "read \(direction.name)", body: direction.readFrames))
            threads.append(HotThread(name: "write \(direction.name)", body: direction.writeFrames))
        }
        for index in threads.indices {
            do throws(LineError) {
                try threads[index].start()
            } catch {
                threads.removeSubrange(index...)
                stop()
                throw error
            }
        }
    }

    /// Must be called before the line goes away: the threads use its devices.
    func stop() {
        for thread in threads { thread.stop() }
        threads = []
    }

    func set(rate: BitRate, direction index: Int) throws(LineError) {
        try checkRing(rate: rate, delay: current[index].delay)
        current[index].rate = rate
        directions[index].parameters.set(rate: rate, queue: settings.queue)
    }

    func set(delay: LineDelay, direction index: Int) throws(LineError) {
        try checkRing(rate: current[index].rate, delay: delay)
        current[index].delay = delay
        directions[index].parameters.set(delay: delay)
    }

    /// A line that loses gets its frames one by one, so that each is lost by itself.
    func set(loss: LossRatio, direction index: Int) throws(LineError) {
        let segmentation = settings.superFrames && loss.percent == 0
        if index == 0 {
            try endA.device.setOffload(segmentation: segmentation)
        } else {
            try endB.device.setOffload(segmentation: segmentation)
        }
        current[index].loss = loss
        directions[index].parameters.set(loss: loss)
    }

    /// What ended a direction, if something did.
    func failure() -> LineError? {
        for (index, direction) in directions.enumerated() {
            guard let code = direction.failure else { continue }
            let place = "device \(settings.device) in network namespace \(settings.namespaceNames[index])"
            return .system("cannot read \(place) any more", errno: code, remedy: "find out who removed it, and start the line again")
        }
        return nil
    }

    private func checkRing(rate: BitRate, delay: LineDelay) throws(LineError) {
        let needed = DelayRing.capacityBytes(rate: rate, delay: delay, queue: settings.queue)
        guard needed > ringBytes else { return }
        throw .refused(
            "\(rate) at \(delay) needs a ring of \(ByteSize(bytes: needed)) and the line was started with \(ByteSize(bytes: ringBytes));"
                + " start it with a larger --max-delay or --max-rate")
    }
}

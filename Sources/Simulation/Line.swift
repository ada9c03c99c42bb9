// The line: connections that behave as TCP shows a line that loses, delays and breaks. Bytes of one connection come in order
// or not at all; those of different connections overtake each other. Loss is a stall, a cut is silence, and an end that is
// gone says so only if its host lives.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// One direction of a connection.
final class Pipe {
    private struct Segment {
        var arrives: Nanoseconds
        var bytes: [UInt8]
        var read = 0
    }
    private let line: Line
    private let capacity: Int
    private var segments: [Segment] = []
    private var first = 0
    /// When the reader sees the end: what arrives later is not read.
    private var end: Nanoseconds?
    /// What is written from now on is lost, and nobody says so.
    private(set) var isVoid = false
    private var lastArrival = Nanoseconds.zero
    private(set) var unread = 0
    private(set) var readTotal = 0
    /// The writer is told that nobody reads any more.
    private var isBroken = false
    private let change = WaitQueue()
    /// What was written first, of a connection whose words may be said again.
    private(set) var words: [UInt8] = []

    init(_ line: Line, capacity: Int) {
        self.line = line
        self.capacity = capacity
    }

    private var scheduler: Scheduler { line.world.scheduler }

    func write(_ buffer: UnsafeRawBufferPointer) throws(TurntableError) {
        var done = 0
        while done < buffer.count {
            scheduler.pass()
            let deadline = scheduler.time + line.world.plan.stall
            while unread >= capacity, !isBroken {
                guard !scheduler.wait(change, until: deadline) else {
                    throw TurntableError(.line, "sending on the line", "nothing moved for \(line.world.plan.stall)")
                }
            }
            guard !isBroken, end == nil else { throw TurntableError(.line, "sending on the line", "it is closed") }
            let count = min(buffer.count - done, capacity - unread)
            put(Array(UnsafeRawBufferPointer(rebasing: buffer[done..<done + count])))
            done += count
        }
    }

    private func put(_ bytes: [UInt8]) {
        unread += bytes.count
        if words.count < 16 << 10 { words += bytes.prefix(16 << 10) }
        guard !isVoid else { return }
        lastArrival = max(lastArrival, line.departure()) + line.time(for: bytes.count)
        segments.append(Segment(arrives: lastArrival, bytes: bytes))
        scheduler.wake(change)
    }

    /// Fills the buffer; each piece of it within `limit`.
    func read(into buffer: UnsafeMutableRawBufferPointer, within limit: Nanoseconds) throws(TurntableError) {
        var done = 0
        while done < buffer.count {
            guard waitForBytes(within: limit) else { throw TurntableError(.line, "receiving on the line", "nothing came for \(limit)") }
            guard first < segments.count, segments[first].arrives <= scheduler.time else {
                throw TurntableError(.line, "receiving on the line", "the peer closed it after \(done) of \(buffer.count) bytes")
            }
            let count = min(buffer.count - done, segments[first].bytes.count - segments[first].read)
            segments[first].bytes.withUnsafeBytes { bytes in
                (buffer.baseAddress! + done).copyMemory(from: bytes.baseAddress! + segments[first].read, byteCount: count)
            }
            segments[first].read += count
            if segments[first].read == segments[first].bytes.count {
                segments[first].bytes = []
                first += 1
            }
            (unread, readTotal, done) = (unread - count, readTotal + count, done + count)
            scheduler.wake(change)
        }
    }

    /// Waits for a byte, or the end.
    func waitForBytes(within limit: Nanoseconds) -> Bool {
        scheduler.pass()
        let deadline = scheduler.time + limit
        while true {
            let next = first < segments.count ? segments[first].arrives : .forever
            let ready = min(next, end ?? .forever)
            if ready <= scheduler.time { return true }
            if scheduler.time >= deadline { return false }
            _ = scheduler.wait(change, until: min(ready, deadline))
        }
    }

    // MARK: - Ends

    /// The writer ends it: what it wrote comes first.
    func finish() {
        guard end == nil else { return }
        if !isVoid { end = max(lastArrival, line.departure()) }
        isBroken = true
        scheduler.wake(change)
    }

    /// The reader reads no more than it has.
    func stopReading() {
        end = min(end ?? .forever, scheduler.time)
        scheduler.wake(change)
        let (pipe, line) = (self, line)
        // The writer hears of it when it writes, a way later.
        line.later(line.departure()) { pipe.breakOff() }
    }

    private func breakOff() {
        isBroken = true
        scheduler.wake(change)
    }

    /// The connection is reset at the reader's end, or as it sees it: what has not arrived never does.
    func reset(after delay: Nanoseconds = .zero) {
        let at = scheduler.time + delay
        segments.removeAll { $0.arrives > at }
        first = min(first, segments.count)
        if end == nil || end! > at { end = at }
        isBroken = true
        scheduler.wake(change)
    }

    /// Its writer is gone, or its packets are: what is written from now on never arrives, and nobody says so.
    func silence() { isVoid = true }

    /// After the end.
    func clear() { segments = [] }

    /// What is on its way comes later.
    func delay(until time: Nanoseconds) {
        for index in segments.indices where index >= first && segments[index].arrives > scheduler.time {
            segments[index].arrives = max(segments[index].arrives, time)
        }
        lastArrival = max(lastArrival, time)
        if let end, end > scheduler.time { self.end = max(end, lastArrival) }
    }
}

/// One end of a connection.
final class Endpoint: ByteConnection, @unchecked Sendable {
    let incoming: Pipe
    let outgoing: Pipe
    let owner: SimulatedProcess

    init(_ incoming: Pipe, _ outgoing: Pipe, _ owner: SimulatedProcess) {
        (self.incoming, self.outgoing, self.owner) = (incoming, outgoing, owner)
        owner.endpoints.append(self)
    }

    func write(_ buffer: UnsafeRawBufferPointer) throws(TurntableError) { try outgoing.write(buffer) }
    func read(into buffer: UnsafeMutableRawBufferPointer, within limit: Nanoseconds) throws(TurntableError) {
        try incoming.read(into: buffer, within: limit)
    }
    func waitReadable(within limit: Nanoseconds) -> Bool { incoming.waitForBytes(within: limit) }
    var sent: (unread: Int, read: Int) { (outgoing.unread, outgoing.readTotal) }
    func shutDown() {
        outgoing.finish()
        incoming.stopReading()
    }
}

/// Two hosts' line.
final class Line {
    unowned let world: World
    /// Both directions of every connection that was made.
    private var pipes: [Pipe] = []
    private var silentUntil = Nanoseconds.zero

    init(_ world: World) { self.world = world }

    /// When what is sent now arrives, loss and its repetition included.
    func departure() -> Nanoseconds {
        let plan = world.plan
        var arrival = max(world.scheduler.time, silentUntil) + plan.delay
        if plan.jitter > .zero { arrival += Nanoseconds(Int64(world.chance.next() % UInt64(plan.jitter.value))) }
        if plan.lossOnceIn > 0, world.chance.once(in: plan.lossOnceIn) {
            world.tally.losses += 1
            arrival += .milliseconds(200) + plan.delay + plan.delay
        }
        return arrival
    }

    func time(for bytes: Int) -> Nanoseconds { world.plan.rate.time(for: ByteCount(bytes)) }

    func later(_ time: Nanoseconds, _ body: @escaping () -> Void) {
        let scheduler = world.scheduler
        scheduler.add("line", nil) {
            scheduler.sleep(time - scheduler.time)
            body()
        }
    }

    /// A connection to the receiver on `host`: a round trip, or an error.
    func connect(_ process: SimulatedProcess, to host: SimulatedHost) throws(TurntableError) -> Endpoint {
        let scheduler = world.scheduler
        let arrival = departure()
        let limit = scheduler.time + Limits.helloTime
        guard arrival < limit, host.isUp else {
            scheduler.sleep(Limits.helloTime)
            throw TurntableError(.line, "connecting", "no answer within \(Limits.helloTime)")
        }
        scheduler.sleep(arrival - scheduler.time)
        let listener = host.isUp ? host.listener : nil
        guard let listener, !listener.process.isDead else {
            scheduler.sleep(world.plan.delay)
            throw TurntableError(.line, "connecting", "connection refused")
        }
        let capacity = world.plan.pipeBytes
        let there = Pipe(self, capacity: capacity), back = Pipe(self, capacity: capacity)
        pipes += [there, back]
        let near = Endpoint(back, there, process)
        listener.arrive(Endpoint(there, back, listener.process))
        scheduler.sleep(max(world.plan.delay, silentUntil - scheduler.time))
        return near
    }

    func clear() {
        for pipe in pipes { pipe.clear() }
        pipes = []
    }

    // MARK: - Faults

    /// Nothing passes for so long; then all of it does.
    func silence(for time: Nanoseconds) {
        silentUntil = max(silentUntil, world.scheduler.time + time)
        for pipe in pipes { pipe.delay(until: silentUntil + world.plan.delay) }
    }

    /// Every connection breaks: what is on its way is lost. Both ends see it, though not at once, or one end does not.
    func reset(isHalf: Bool) {
        for index in stride(from: 0, to: pipes.count, by: 2) {
            let (there, back) = (pipes[index], pipes[index + 1])
            let sees = world.chance.pick(0..<2)
            if isHalf {
                let (seen, unseen) = sees == 0 ? (there, back) : (back, there)
                seen.reset()
                unseen.silence()
            } else {
                there.reset(after: Nanoseconds(Int64(world.chance.next() % 50_000_000)))
                back.reset(after: Nanoseconds(Int64(world.chance.next() % 50_000_000)))
            }
        }
    }

    /// One connection's packets are late.
    func stall(for time: Nanoseconds) {
        guard !pipes.isEmpty else { return }
        pipes[world.chance.pick(0..<pipes.count)].delay(until: world.scheduler.time + time)
    }

    /// Says on a connection of its own what was said on a control stream before.
    func repeatWords(from source: SimulatedHost, to target: SimulatedHost) {
        let words = pipes.map(\.words).filter { ControlWords.areOfSource($0) }
        guard source.isUp, !words.isEmpty else { return }
        let said = words[world.chance.pick(0..<words.count)]
        let (line, world) = (self, world)
        _ = world.start("echo", on: source) { process in
            guard let connection = try? line.connect(process, to: target) else { return }
            try? connection.write(said)
            world.scheduler.sleep(.milliseconds(Double(world.chance.pick(0..<4000))))
        }
    }

    /// A process ended: its host's kernel ends its connections. What it wrote arrives, or is lost with a reset.
    func end(_ process: SimulatedProcess) {
        for endpoint in process.endpoints {
            if world.chance.once(in: 2) {
                endpoint.shutDown()
            } else {
                endpoint.outgoing.reset(after: Nanoseconds(Int64(world.chance.next() % UInt64(world.plan.delay.value + 1))))
                endpoint.incoming.stopReading()
            }
        }
    }

    /// A host is gone: what is on the line arrives, nothing follows, and nobody says so until it is up again.
    func forsake(_ process: SimulatedProcess) {
        for endpoint in process.endpoints {
            endpoint.outgoing.silence()
            process.host.whenUp.append { endpoint.incoming.stopReading() }
        }
    }
}

private enum ControlWords {
    static func areOfSource(_ words: [UInt8]) -> Bool {
        guard words.count > Preface.bytes, let preface = try? Preface.decode(Array(words.prefix(Preface.bytes))) else { return false }
        return preface.role == .control
    }
}

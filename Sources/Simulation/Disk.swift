// A host's disk, as a journal sees it: what is written is in the kernel's cache, which outlives processes; what is synced is on
// the disk, which outlives the host. The kernel may write back by itself, and a host that crashes may tear what it was writing.

internal import TurntableCore
internal import TurntableLinux

/// The journal of the machine on one host.
final class Disk {
    private let host: SimulatedHost
    private(set) var cached: [UInt8] = []
    private var durable: [UInt8] = []
    /// Changes of the cache, and the last of them that is durable.
    private var changes = 0
    private var durableChanges = 0
    private var writer: SimulatedProcess?
    private var fullUntil = Nanoseconds.zero
    private let free = WaitQueue()
    private var world: World { host.world }

    init(_ host: SimulatedHost) { self.host = host }

    /// The host crashed: what the disk has is what the next boot finds.
    func crash() {
        if cached.starts(with: durable) {
            // The kernel may have written back some of the rest, or made the file longer without its bytes.
            let rest = cached.dropFirst(durable.count)
            let kept = rest.prefix(world.chance.pick(0..<rest.count + 1))
            durable += kept
            if world.chance.once(in: 4) { durable += [UInt8](repeating: 0, count: rest.count - kept.count) }
            // Blocks are not written in order: a later one may be there without an earlier one.
            if world.chance.once(in: 4) { durable = withoutBlock(from: cached.count - rest.count) }
        } else if world.chance.once(in: 2) {
            durable = cached
        }
        cached = durable
        writer = nil
    }

    private static let blockBytes = 256

    /// The cache's bytes, but for what of its first block that was not durable is from `start` on.
    private func withoutBlock(from start: Int) -> [UInt8] {
        var bytes = cached
        for index in start..<min((start / Self.blockBytes + 1) * Self.blockBytes, bytes.count) { bytes[index] = 0 }
        return bytes
    }

    func fill(for time: Nanoseconds) { fullUntil = world.scheduler.time + time }

    fileprivate func append(_ bytes: [UInt8], _ process: SimulatedProcess) throws(TurntableError) {
        world.at(.append, host)
        if world.scheduler.time < fullUntil { throw TurntableError(.unsupported, "writing the journal", "the disk is full") }
        if world.plan.mutation == .buffersJournal {
            process.unwritten += bytes
        } else {
            cached += bytes
            changes += 1
        }
        world.journalChanged(host)
        world.at(.appended, host)
    }

    fileprivate func contents(_ process: SimulatedProcess) -> [UInt8] { cached + process.unwritten }

    fileprivate func sync(_ process: SimulatedProcess) {
        world.at(.sync, host)
        let seen = contents(process)
        if !process.unwritten.isEmpty { changes += 1 }
        let seenChanges = changes
        world.scheduler.sleep(.microseconds(world.chance.pick(50..<5000)))
        cached += process.unwritten
        process.unwritten = []
        // What was written meanwhile may be there too, or not; what another sync made durable is.
        if world.plan.mutation != .lyingDisk, seenChanges > durableChanges { (durable, durableChanges) = (seen, seenChanges) }
        world.at(.synced, host)
    }

    fileprivate func truncate(to count: Int) {
        cached.removeLast(cached.count - count)
        changes += 1
        world.at(.appended, host)
    }

    fileprivate func lock(_ process: SimulatedProcess) {
        while let writer, !writer.isDead, writer !== process {
            _ = world.scheduler.wait(free, until: world.scheduler.time + .milliseconds(10))
        }
        writer = process
    }
    fileprivate func unlock() {
        writer = nil
        world.scheduler.wake(free)
    }
}

/// A process's way to a disk.
final class DiskStore: AppendStore, @unchecked Sendable {
    private let disk: Disk
    private let process: SimulatedProcess
    init(_ disk: Disk, _ process: SimulatedProcess) { (self.disk, self.process) = (disk, process) }

    func contents() -> [UInt8] { disk.contents(process) }
    func append(_ bytes: [UInt8]) throws(TurntableError) { try disk.append(bytes, process) }
    func sync() { disk.sync(process) }
    func truncate(to count: Int) { disk.truncate(to: count) }
    func locked<Value>(_ body: () throws(TurntableError) -> Value) throws(TurntableError) -> Value {
        disk.lock(process)
        defer { disk.unlock() }
        return try body()
    }
}

extension Nanoseconds {
    static func microseconds(_ value: Int) -> Nanoseconds { Nanoseconds(Int64(value) * 1000) }
}

// The hypervisor of a host, as the engine sees QEMU: a process of its own, which keeps the machine's memory and what a
// migration must not forget when one of the product's processes dies.

internal import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

final class Machine: @unchecked Sendable {
    enum Stage {
        /// Waits for memory and device state.
        case incoming
        case loading
        /// Everything is here.
        case loaded
        case running
        case stopped
        /// Stopped, and its device state was saved.
        case saved
        case gone
    }
    let number: Int
    let host: SimulatedHost
    let memory: SimulatedMemory
    private(set) var stage: Stage
    // Its record, in a directory that lives as long as the host.
    var epoch: Epoch
    var isIncoming: Bool
    var session: SessionID?
    // What migrations from here and to here must not forget.
    private var ledger: SharedMemory?
    private var diskLedger: SharedMemory?
    private var earlierLedger: [UInt8] = []
    private var arrivals: [SessionID: SharedMemory] = [:]
    /// What its devices have come to.
    var devices: UInt64 = 0
    private(set) var user: SimulatedProcess?
    /// The adapter that has its lock, as long as that lives.
    private weak var holder: AnyObject?
    private var marks = Guest.regionPages.map { PageBitmap(pages: PageCount($0)) }
    private var isLogging = false
    /// Times that it lost its receiver.
    private var losses = 0
    private var window = Nanoseconds.zero
    private var world: World { host.world }
    var name: String { "\(host.name)\(number)" }

    init(_ host: SimulatedHost, _ number: Int, _ stage: Stage, _ epoch: Epoch) {
        (self.host, self.number, self.stage, self.epoch) = (host, number, stage, epoch)
        memory = host.world.memories.take(Guest.regionPages)
        isIncoming = stage == .incoming
    }

    var isAlive: Bool { stage != .gone }
    private var hasUser: Bool { holder != nil && user.map { !$0.isDead } ?? false }

    /// One adapter of a living process at a time has it.
    func take(_ process: SimulatedProcess, for adapter: AnyObject, _ what: String) throws(TurntableError) {
        guard !hasUser else { throw TurntableError(.refused, "\(what) m", "it is being moved already") }
        (user, holder) = (process, adapter)
    }
    /// A machine that nobody receives any more makes room.
    func endIfForsaken() { if isIncoming, stage == .incoming, !hasUser { die("to make room") } }
    func leave() { user = nil }

    // MARK: - Its life

    func run(under epoch: Epoch) {
        guard isAlive else { return }
        stage = .running
        world.guest.starts(self, epoch)
    }

    func stop() {
        guard isAlive else { return }
        if world.plan.mutation == .pausesLate, world.chance.once(in: 2) {
            // Its processors run on for a while.
            world.scheduler.add("late", nil) { [self] in
                world.scheduler.sleep(.milliseconds(5))
                world.guest.stops(self)
            }
        } else {
            world.guest.stops(self)
        }
        stage = .stopped
    }

    /// Comes to stand without having run here: a paused machine that was moved.
    func settle() { if isAlive { stage = .stopped } }

    func beginToLoad() { if isAlive { stage = .loading } }
    func finishLoading(_ devices: UInt64) {
        guard isAlive else { return }
        self.devices = devices
        stage = .loaded
    }

    /// Its state as bytes, always the same while it stands still.
    func save() -> [UInt8] {
        guard isAlive else { return [] }
        stage = .saved
        var bytes: [UInt8] = []
        withUnsafeBytes(of: devices.littleEndian) { bytes += $0 }
        return bytes + [UInt8](repeating: 0x5a, count: 200)
    }

    /// `cont` and `stop` by hand, after which a paused machine's state can be saved again.
    func forgetSaving() { if stage == .saved, ledger == nil { stage = .stopped } }

    func die(_ how: String) {
        guard isAlive else { return }
        world.note("machine \(name) ends \(how)")
        world.guest.stops(self)
        stage = .gone
        if host.machine === self { host.machine = nil }
    }

    /// A process is gone. An incoming machine that lost its receiver waits for another for a while.
    func loseUser(_ process: SimulatedProcess) {
        guard user === process else { return }
        user = nil
        if world.plan.mutation == .staleLedger { restoreLedger() }
        guard isIncoming, isAlive else { return }
        // The state that it was reading broke off, unless all of it was there.
        if stage == .loading { return die("in the middle of loading") }
        if world.plan.mutation == .forgetfulTarget { memory.forget(&world.chance) }
        losses += 1
        let loss = losses
        world.scheduler.add("keeper", nil) { [self] in
            world.scheduler.sleep(window)
            if losses == loss, !hasUser, isIncoming, stage == .incoming { die("without a receiver") }
        }
    }
    func beginWaiting(_ window: Nanoseconds) { self.window = window }

    // MARK: - What outlives processes

    func ledger(bytes: Int) throws(TurntableError) -> SharedMemory {
        if let ledger, ledger.bytes == bytes { return ledger }
        let new = try SharedMemory(bytes: bytes)
        ledger = new
        return new
    }
    var hasLedger: Bool { ledger != nil }
    func diskLedger(bytes: Int) throws(TurntableError) -> SharedMemory {
        if let diskLedger, diskLedger.bytes == bytes { return diskLedger }
        let new = try SharedMemory(bytes: bytes)
        diskLedger = new
        return new
    }
    func forgetLedger() { (ledger, diskLedger) = (nil, nil) }

    private static let ledgerHead = 4096

    /// For a mutation: the ledger's counters of a moment ago.
    func rememberLedger() {
        guard world.plan.mutation == .staleLedger, let ledger else { return }
        earlierLedger = Array(UnsafeRawBufferPointer(start: ledger.base, count: Self.ledgerHead))
    }
    private func restoreLedger() {
        guard let ledger, !earlierLedger.isEmpty else { return }
        earlierLedger.withUnsafeBytes { ledger.base.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    }

    func arrival(_ session: SessionID, bytes: Int) throws(TurntableError) -> SharedMemory {
        if let known = arrivals[session] { return known }
        let new = try SharedMemory(bytes: bytes)
        arrivals[session] = new
        return new
    }
    func forgetArrival(_ session: SessionID) { arrivals[session] = nil }

    /// After the simulation's end.
    func clear() {
        (ledger, diskLedger, arrivals, user) = (nil, nil, [:], nil)
    }

    // MARK: - Dirty marks

    func mark(_ page: Int, _ region: Int) { if isLogging { marks[region].insert(page..<page + 1) } }

    func startLogging(keepingMarks: Bool) {
        if !keepingMarks || !isLogging { for bitmap in marks { bitmap.remove(0..<bitmap.pages) } }
        isLogging = true
    }

    /// Fetches the marks and clears them, in one step.
    func fetch(_ pages: Range<Int>, in region: Int, clearing: Bool = true) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        var next = pages.lowerBound
        while let run = marks[region].nextRun(from: next, to: pages.upperBound) {
            runs.append(run)
            next = run.upperBound
        }
        if clearing { marks[region].remove(pages) }
        return runs
    }
    func clearMarks(_ runs: [Range<Int>], in region: Int) { for run in runs { marks[region].remove(run) } }
}

extension SimulatedMemory {
    /// For a mutation: a page that was here is zero again.
    func forget(_ chance: inout SeededGenerator) {
        var pages: [Int] = []
        forEachPopulatedRun(in: RegionIndex(0)) { pages.append($0.lowerBound) }
        guard !pages.isEmpty else { return }
        for offset in [0, 2048, pageBytes - 8] { store(0, 0, Guest.Cell(region: 0, page: chance.pick(pages), offset: offset)) }
    }
}

/// A process's dirty log of a machine.
final class SimulatedDirtyLog: DirtyLog, @unchecked Sendable {
    let isContinued: Bool
    private let machine: Machine
    private var late: [(region: Int, runs: [Range<Int>])] = []
    private var world: World { machine.host.world }

    init(_ machine: Machine, isContinued: Bool) { (self.machine, self.isContinued) = (machine, isContinued) }

    func drain(into bitmaps: [PageBitmap]) {
        for (region, bitmap) in bitmaps.enumerated() { take(0..<bitmap.pages, region, bitmap) }
    }

    func refresh(_ pages: Range<Int>, in region: RegionIndex, into bitmap: PageBitmap, stream: Int) {
        take(pages, region.value, bitmap)
    }

    private func take(_ pages: Range<Int>, _ region: Int, _ bitmap: PageBitmap) {
        machine.rememberLedger()
        world.at(.drain, machine.host)
        if world.plan.mutation == .clearsMarksLate {
            for (region, runs) in late { machine.clearMarks(runs, in: region) }
            late = []
            let runs = machine.fetch(pages, in: region, clearing: false)
            late.append((region, runs))
            for run in runs { bitmap.insert(run) }
            return
        }
        let runs = machine.fetch(pages, in: region)
        if world.plan.mutation == .missesLastMarks, machine.stage != .running { return }
        // The marks are gone, and nobody else has them yet.
        world.at(.drained, machine.host)
        for run in runs { bitmap.insert(run) }
    }
}

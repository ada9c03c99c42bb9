internal import MigrationEngine
internal import TestSupport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A machine without a hypervisor: memory that a thread writes, and some bytes of device state.
final class FakeSource: SourceMachine, @unchecked Sendable {
    let name = "fake"
    var epoch: Epoch { state.read { $0.epoch } }
    let description: [UInt8] = [1, 2, 3]
    let memory: TestMemory
    let deviceState: [UInt8]
    var pages: any PageSource { memory }
    var deviceCost = DeviceCost(bytes: .kibi(64), save: .zero, load: .zero)
    var isCarriedBeside = false
    var mayBePaused: @Sendable () -> Bool = { true }
    /// Called on the migration's thread while the machine is paused.
    var whenPaused: @Sendable () -> Void = {}
    var whenSaving: @Sendable () throws(TurntableError) -> Void = { () throws(TurntableError) in }

    private struct State {
        var wantsToRun = true
        var isWriting = false
        var isOver = false
        var resumes = 0
        var pauses = 0
        var isDiscarded = false
        var epoch = Epoch(41)
        var session: SharedMemory?
        var diskSession: SharedMemory?
        var isForgotten = false
    }
    private let state = Monitor(State())
    let log: FakeDirtyLog
    private(set) var disks: [any BlockSource] = []
    /// Writes the disk.
    private var diskWriter: @Sendable () -> Void = {}

    /// - Parameter writes: pages written a millisecond, out of the first `hotPages` of each region.
    init(seed: UInt64, regionPages: [Int] = [1500, 600, 3], writes: Int = 20, hotPages: Int = 300) throws {
        var generator = SeededGenerator(seed: seed)
        memory = try TestMemory(pages: regionPages)
        deviceState = generator.bytes(100_000 + Int(generator.next() % 2_000_000))
        log = FakeDirtyLog(memory.regions)
        for (region, pages) in regionPages.enumerated() {
            for page in 0..<pages where generator.next() % 3 != 0 { memory.fill(page, region, with: &generator) }
        }
        let start = generator
        _ = WorkerThread("guest") { [self] in write(start, writes, hotPages) }
    }

    /// Gives it a disk, of which its thread writes `writes` pieces a millisecond.
    func attach(_ disk: FakeDisk, seed: UInt64, writes: Int) {
        disks = [disk]
        let generator = Monitor(SeededGenerator(seed: seed))
        guard writes > 0 else { return }
        whenTicked {
            for _ in 0..<writes {
                let (offset, bytes) = generator.update { generator in
                    let count = 512 * Int.random(in: 1...16, using: &generator)
                    let offset = 512 * Int.random(in: 0...(disk.size.value - count) / 512 / 4, using: &generator)
                    return (offset, generator.next() % 4 == 0 ? [UInt8](repeating: 0, count: count) : generator.bytes(count))
                }
                disk.write(bytes, at: offset)
            }
        }
    }

    /// Called by the machine's thread each millisecond that it runs.
    func whenTicked(_ body: @escaping @Sendable () -> Void) { state.update { _ in diskWriter = body } }

    /// Ends the thread.
    func end() {
        state.update { $0.isOver = true }
    }

    var isRunning: Bool { state.read { $0.wantsToRun && !$0.isDiscarded } }
    var isDiscarded: Bool { state.read { $0.isDiscarded } }
    var resumes: Int { state.read { $0.resumes } }
    var pauses: Int { state.read { $0.pauses } }

    private func write(_ start: SeededGenerator, _ writes: Int, _ hotPages: Int) {
        var generator = start
        while !state.read({ $0.isOver }) {
            let mayWrite = state.update { state in
                state.isWriting = state.wantsToRun
                return state.wantsToRun
            }
            if mayWrite {
                for _ in 0..<writes { writeOne(&generator, hotPages) }
                state.read { _ in diskWriter }()
            }
            state.update { $0.isWriting = false }
            Clock.sleep(.milliseconds(1))
        }
    }

    private func writeOne(_ generator: inout SeededGenerator, _ hotPages: Int) {
        let region = Int.random(in: memory.regions.indices, using: &generator)
        let page = Int.random(in: 0..<min(hotPages, memory.regions[region].pages.value), using: &generator)
        switch generator.next() % 8 {
        case 0: memory.clear(page, region)
        case 1: memory.fill(page, region, with: &generator)
        default:
            memory.mutableAddress(page, region).storeBytes(
                of: generator.next(), toByteOffset: Int(generator.next() % 512) * 8, as: UInt64.self)
        }
        // After the write: a mark that was taken meanwhile is set again.
        log.mark(page, region)
    }

    func mayPause() -> Bool { mayBePaused() }

    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory {
        if let kept = state.read({ $0.session }), kept.bytes == bytes { return kept }
        let memory = try SharedMemory(bytes: bytes)
        state.update { $0.session = memory }
        return memory
    }
    func diskMemory(bytes: Int) throws(TurntableError) -> SharedMemory {
        if let kept = state.read({ $0.diskSession }), kept.bytes == bytes { return kept }
        let memory = try SharedMemory(bytes: bytes)
        state.update { $0.diskSession = memory }
        return memory
    }
    func forgetSession() { state.update { ($0.session, $0.diskSession) = (nil, nil) } }
    /// Whether nothing of a migration is kept.
    var isForgotten: Bool { state.read { $0.session == nil } }
    func takeUp(wasRunning: Bool) {}
    func reclaim(_ epoch: Epoch) { state.update { $0.epoch = epoch } }
    func startDirtyLog(streams: Int, isContinued: Bool) -> any DirtyLog {
        if !isContinued { log.clear() }
        return log
    }
    func pause() {
        state.update {
            $0.wantsToRun = false
            $0.pauses += 1
        }
        _ = state.wait(atMost: .seconds(10)) { $0.isWriting ? nil : true }
        whenPaused()
    }
    func saveDeviceState() throws(TurntableError) -> [UInt8] {
        precondition(!isRunning, "the device state is saved of a paused machine")
        try whenSaving()
        return deviceState
    }
    func resume() {
        state.update {
            $0.wantsToRun = true
            $0.resumes += 1
        }
    }
    func discard() { state.update { $0.isDiscarded = true } }
    func checkAlive() {}
}

/// Marks under a lock.
final class FakeDirtyLog: DirtyLog, Sendable {
    let isContinued = true
    private let marks: Monitor<[PageBitmap]>

    init(_ regions: [MemoryRegion]) { marks = Monitor(regions.map { PageBitmap(pages: $0.pages) }) }

    func mark(_ page: Int, _ region: Int) { marks.update { $0[region].insert(page..<page + 1) } }
    func clear() { marks.update { for bitmap in $0 { bitmap.remove(0..<bitmap.pages) } } }

    func drain(into bitmaps: [PageBitmap]) {
        for (region, bitmap) in bitmaps.enumerated() { refresh(0..<bitmap.pages, in: RegionIndex(region), into: bitmap, stream: 0) }
    }

    func refresh(_ pages: Range<Int>, in region: RegionIndex, into bitmap: PageBitmap, stream: Int) {
        marks.update { marks in
            var next = pages.lowerBound
            while let run = marks[region.value].nextRun(from: next, to: pages.upperBound) {
                bitmap.insert(run)
                next = run.upperBound
            }
            marks[region.value].remove(pages)
        }
    }
}

final class FakeTarget: TargetMachine, @unchecked Sendable {
    let memory: TestMemory
    var pages: any PageSink { memory }
    private struct State {
        var deviceState: [UInt8] = []
        var isRunning = false
        var isDiscarded = false
    }
    private let state = Monitor(State())
    private let session = Monitor<SharedMemory?>(nil)
    fileprivate let host: FakeHost
    let disks: [any BlockSink]
    let contents: [TargetContent]

    init(_ memory: TestMemory, _ disks: [FakeSink], _ host: FakeHost) {
        self.memory = memory
        self.host = host
        self.disks = disks
        contents = memory.regions.map { _ in host.keptMemory == nil ? .zero : .older }
            + disks.map { $0.isZeroed ? .zero : host.isOlder ? .older : .unknown }
    }
    var deviceState: [UInt8] { state.read { $0.deviceState } }
    var isRunning: Bool { state.read { $0.isRunning } }
    var isDiscarded: Bool { state.read { $0.isDiscarded } }

    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory {
        if let kept = session.read({ $0 }) { return kept }
        let memory = try SharedMemory(bytes: bytes)
        session.update { $0 = memory }
        return memory
    }
    func forgetSession() { session.update { $0 = nil } }
    func loadDeviceState(_ bytes: UnsafeRawBufferPointer) throws(TurntableError) {
        try host.whenLoading()
        let bytes = Array(bytes)
        state.update { $0.deviceState = bytes }
    }
    func resume() throws(TurntableError) {
        try host.whenResuming()
        state.update { $0.isRunning = true }
    }
    func discard() { state.update { $0.isDiscarded = true } }
    func checkAlive() throws(TurntableError) { try host.whenAsked() }
    var isReady: Bool { host.isReady() }
}

final class FakeHost: TargetHost, @unchecked Sendable {
    typealias Step = @Sendable () throws(TurntableError) -> Void
    var whenPreparing: Step = { () throws(TurntableError) in }
    var whenLoading: Step = { () throws(TurntableError) in }
    var whenAsked: Step = { () throws(TurntableError) in }
    var whenResuming: Step = { () throws(TurntableError) in }
    /// Whether it has everything to run the machine but memory and state.
    var isReady: @Sendable () -> Bool = { true }
    var regionPages: [Int]?
    /// What its disks hold before anything comes; nil: zeroes.
    var targetContent: [UInt8]?
    var isOlder = false
    var hasDisks = true
    var whenMade: @Sendable (FakeSink) -> Void = { _ in }
    private(set) var sinks: [FakeSink] = []
    /// Memory of the machine's last stay.
    var keptMemory: TestMemory?
    private let made = Monitor<FakeTarget?>(nil)
    /// The session that a receiver which was killed leaves a machine of.
    private let waiting = Monitor<SessionID?>(nil)
    var machine: FakeTarget? { made.read { $0 } }

    func find(_ offer: Offer) -> (any TargetMachine)? { isWaiting("", offer.session) ? machine : nil }
    func isWaiting(_: String, _ session: SessionID) -> Bool {
        guard let machine, !machine.isDiscarded, !machine.isRunning else { return false }
        return waiting.read { $0 == session }
    }

    func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        waiting.update { $0 = offer.session }
        guard let memory = try? TestMemory(pages: regionPages ?? offer.regions.map { Int($0.bytes) / pageBytes }) else {
            throw TurntableError(.unsupported, "preparing", "no memory")
        }
        keptMemory.map { memory.copy(from: $0) }
        sinks = hasDisks ? offer.disks.map { FakeSink(size: ByteCount(Int($0.bytes)), holding: targetContent) } : []
        for sink in sinks { whenMade(sink) }
        let machine = FakeTarget(memory, sinks, self)
        made.update { $0 = machine }
        try whenPreparing()
        return machine
    }
}

// What of a PV domain is the engine's: its disks, and where xl has no part, who owns it. Its memory is Xen's own helpers' (XenStream), which go
// beside. The two are made to end together, without the one's end having to wait long for what was written while the other was copied:
//
//   rounds of the disks, while the saver is held in its first round ─ the saver's rounds, while the disks' writes gather in their snapshots ─
//   the saver would suspend the guest: one more round of the disks ─ suspend ─ the last of the memory, and of the disks ─
//   without xl the hand-off, when all of the memory has left ─ the guest runs when the restorer has it

public import MigrationEngine
public import TurntableCore
public import TurntableLinux
public import WireFormat

private final class NoMemory: PageSource, PageSink, DirtyLog {
    let regions: [MemoryRegion] = []
    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeRawPointer { preconditionFailure("there is none") }
    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeMutableRawPointer { preconditionFailure("there is none") }
    func file(of region: RegionIndex) -> Int32? { nil }
    func forEachPopulatedRun(in region: RegionIndex, within pages: Range<Int>, _ body: (Range<Int>) -> Void) {}
    func populate(_ pages: Range<Int>, in region: RegionIndex) throws(TurntableError) {}
    func drain(into bitmaps: [PageBitmap]) throws(TurntableError) {}
    func refresh(_ pages: Range<Int>, in region: RegionIndex, into bitmap: PageBitmap, stream: Int) throws(TurntableError) {}
}

/// At the source.
public final class PVSourceMachine: SourceMachine {
    public let name: String
    public let epoch = Epoch(0)
    public let description: [UInt8]
    public let pages: any PageSource = NoMemory()
    public let deviceCost = DeviceCost(bytes: ByteCount(0), save: .zero, load: .zero)
    public let disks: [any BlockSource]
    public let isCarriedBeside = true
    private let letRunOn: (@Sendable () throws(TurntableError) -> Void)?
    private let itsDisks: [XenDisk]
    private let state = Monitor(State())

    private struct State {
        /// All of them went, but for what is written meanwhile.
        var areCopied = false
        /// The saver would suspend the guest.
        var isAwaited = false
        var mayBeSuspended = false
        /// Nil as long as the guest was not asked.
        var isSuspended: Bool?
        /// All of the memory is on its way.
        var memoryHasLeft = false
        /// The target refused it, and it is this host's again.
        var isReclaimed = false
        var isOver = false
    }

    /// - Parameters:
    ///   - name: what its journal is kept under.
    ///   - disks: those that go along, what LVM knows their volumes by, and what reads them.
    ///   - letRunOn: resumes the suspended domain here, where the hand-off says whose it is. Nil under xl, which does that.
    public init(
        _ name: String, _ disks: [(its: XenDisk, volume: String, source: any BlockSource)],
        letRunOn: (@Sendable () throws(TurntableError) -> Void)?
    ) {
        (self.name, self.letRunOn) = (name, letRunOn)
        self.disks = disks.map(\.source)
        itsDisks = disks.map(\.its)
        description = XenDescription(
            frames: 0, runs: [], rings: XenRings(store: 0, console: 0), processorPolicy: [], volumes: disks.map(\.volume)
        ).encoded()
    }

    // MARK: - What goes beside

    /// Returns when the memory's rounds are worth their while.
    public func awaitCopy() {
        if disks.isEmpty { return }
        _ = state.wait(atMost: .forever) { $0.areCopied || $0.isOver ? true : nil }
    }

    /// Returns when the guest may be suspended for the disks' sake; false if it is not to be any more.
    public func awaitPause() -> Bool {
        state.update { $0.isAwaited = true }
        return state.wait(atMost: .forever) { $0.isOver ? false : $0.mayBeSuspended ? true : nil } ?? false
    }

    /// The guest was asked to suspend: it has, or not.
    public func tell(isSuspended: Bool) { state.update { $0.isSuspended = isSuspended } }

    public func memoryHasLeft() { state.update { $0.memoryHasLeft = true } }

    /// What goes beside has failed, or this has: nobody waits any more.
    public func end() { state.update { $0.isOver = true } }

    // MARK: - The engine's

    public func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try SharedMemory(bytes: bytes) }
    public func diskMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try SharedMemory(bytes: bytes) }
    public func forgetSession() {}
    public func takeUp(wasRunning: Bool) throws(TurntableError) {}
    public func startDirtyLog(streams: Int, isContinued: Bool) throws(TurntableError) -> any DirtyLog { NoMemory() }

    public func mayPause() -> Bool {
        state.update { state in
            state.areCopied = true
            return state.isAwaited
        }
    }

    public func pause() throws(TurntableError) {
        state.update { $0.mayBeSuspended = true }
        guard state.wait(atMost: .forever, until: { $0.isOver ? false : $0.isSuspended }) == true else {
            throw TurntableError(.hypervisor, "suspending the guest", "it did not suspend; it runs on here", remedy: "see xl's log")
        }
        for disk in itsDisks { try disk.awaitRequests() }
    }

    /// That came before it, and all of the memory: until then nothing is handed off.
    public func saveDeviceState() throws(TurntableError) -> [UInt8] {
        if letRunOn == nil { return [] }
        _ = state.wait(atMost: .forever) { $0.memoryHasLeft || $0.isOver ? true : nil }
        try checkAlive()
        return []
    }

    public func reclaim(_ epoch: Epoch) { state.update { $0.isReclaimed = true } }
    /// It was for nothing: what goes beside cannot be done again.
    public func resume() throws(TurntableError) {
        let (isSuspended, isReclaimed) = state.read { ($0.isSuspended == true, $0.isReclaimed) }
        if isSuspended { try letRunOn?() }
        if isReclaimed { return }
        throw TurntableError(.cancelled, "moving \(name)", "it was given up while the guest was suspended; it is resumed here")
    }
    public func discard() {}
    public func checkAlive() throws(TurntableError) {
        guard !state.read({ $0.isOver }) else { throw TurntableError(.cancelled, "moving \(name)", "the move has ended") }
    }
}

/// At the target, for one domain.
public final class PVTargetHost: TargetHost {
    private let domain: XenDomain
    private let areReady: @Sendable () -> Bool
    private let owner: (any XenOwner)?
    private let openDisk: XenTargetHost.OpenDisk
    private let state = Monitor(State())

    fileprivate struct State {
        /// Something was offered, and is on its way.
        var hasBegun = false
        /// Whether the restorer has all of the memory; nil as long as it is not known.
        var hasMemory: Bool?
    }

    public var hasBegun: Bool { state.read { $0.hasBegun } }

    /// - Parameters:
    ///   - areReady: whether libxl has made the domain's devices.
    ///   - owner: nil under xl, which starts the domain itself.
    public init(
        _ domain: XenDomain, areReady: @escaping @Sendable () -> Bool, owner: (any XenOwner)?, openDisk: @escaping XenTargetHost.OpenDisk
    ) {
        (self.domain, self.areReady, self.owner, self.openDisk) = (domain, areReady, owner, openDisk)
    }

    /// The restorer has all of the memory, or will not have it.
    public func tell(hasMemory: Bool) { state.update { $0.hasMemory = hasMemory } }

    public func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        let description = try XenDescription(decoding: offer.description)
        guard offer.regions.isEmpty else {
            throw TurntableError(.protocol, "the offer of \(offer.machine)", "the memory of a PV domain comes in its own stream")
        }
        try domain.awaitDevices(areReady)
        let machine = PVTargetMachine(try domain.open(offer, description.volumes, by: openDisk), domain, state, owner)
        state.update { $0.hasBegun = true }
        return machine
    }

    public func find(_ offer: Offer) throws(TurntableError) -> (any TargetMachine)? { nil }
    public func isWaiting(_ machine: String, _ session: SessionID) -> Bool { false }
}

private final class PVTargetMachine: TargetMachine {
    let pages: any PageSink = NoMemory()
    let disks: [any BlockSink]
    private let domain: XenDomain
    private let state: Monitor<PVTargetHost.State>
    private let owner: (any XenOwner)?

    init(_ disks: [any BlockSink], _ domain: XenDomain, _ state: Monitor<PVTargetHost.State>, _ owner: (any XenOwner)?) {
        (self.disks, self.domain, self.state, self.owner) = (disks, domain, state, owner)
    }

    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try SharedMemory(bytes: bytes) }
    func forgetSession() {}

    /// It is in the memory's stream: the domain is whole when that is.
    func loadDeviceState(_ state: UnsafeRawBufferPointer) throws(TurntableError) {
        guard owner != nil else { return }
        guard self.state.wait(atMost: .forever, until: { $0.hasMemory }) == true else {
            throw TurntableError(.refused, "taking domain \(domain.number)", "its memory did not come")
        }
    }

    /// Under xl, xl starts the domain, when the memory is here too.
    func resume() throws(TurntableError) {
        guard let owner else { return }
        try domain.unpause()
        owner.itRuns()
    }

    func discard() { owner?.itWillNotRun() }
    func checkAlive() throws(TurntableError) {
        guard try !domain.facts().isDying else { throw TurntableError(.hypervisor, "domain \(domain.number)", "it was destroyed") }
    }
}

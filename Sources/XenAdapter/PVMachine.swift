// The disks of a PV domain, as a machine of the engine that has no memory: that is Xen's own helpers' (XenStream), which go beside. The two are
// made to end together, without the one's end having to wait long for what was written while the other was copied:
//
//   rounds of the disks, while the saver is held in its first round ─ the saver's rounds, while the disks' writes gather in their snapshots ─
//   the saver would suspend the guest: one more round of the disks ─ suspend ─ the last of the memory, and of the disks

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
public final class PVSourceDisks: SourceMachine {
    public let name: String
    public let epoch = Epoch(0)
    public let description: [UInt8]
    public let pages: any PageSource = NoMemory()
    public let deviceCost = DeviceCost(bytes: ByteCount(0), save: .zero, load: .zero)
    public let disks: [any BlockSource]
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
        var isOver = false
    }

    /// - Parameter disks: those that go along, what LVM knows their volumes by, and what reads them.
    public init(of name: String, _ disks: [(its: XenDisk, volume: String, source: any BlockSource)]) {
        self.name = name
        self.disks = disks.map(\.source)
        itsDisks = disks.map(\.its)
        description = XenDescription(
            frames: 0, runs: [], rings: XenRings(store: 0, console: 0), processorPolicy: [], volumes: disks.map(\.volume)
        ).encoded()
    }

    // MARK: - What goes beside

    /// Returns when the memory's rounds are worth their while.
    public func awaitCopy() { _ = state.wait(atMost: .forever) { $0.areCopied || $0.isOver ? true : nil } }

    /// Returns when the guest may be suspended for the disks' sake; false if it is not to be any more.
    public func awaitPause() -> Bool {
        state.update { $0.isAwaited = true }
        return state.wait(atMost: .forever) { $0.isOver ? false : $0.mayBeSuspended ? true : nil } ?? false
    }

    /// The guest was asked to suspend: it has, or not.
    public func tell(isSuspended: Bool) { state.update { $0.isSuspended = isSuspended } }

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

    public func saveDeviceState() throws(TurntableError) -> [UInt8] { [] }
    public func reclaim(_ epoch: Epoch) throws(TurntableError) {}
    /// xl does, when the helper has failed: what goes beside cannot be done again.
    public func resume() throws(TurntableError) {
        throw TurntableError(.cancelled, "moving \(name)", "it was given up while the guest was suspended; xl resumes it here")
    }
    public func discard() {}
    public func checkAlive() throws(TurntableError) {
        guard !state.read({ $0.isOver }) else { throw TurntableError(.cancelled, "moving the disks of \(name)", "the move has ended") }
    }
}

/// At the target, for one domain.
public final class PVDisksHost: TargetHost {
    private let domain: XenDomain
    private let areReady: @Sendable () -> Bool
    private let openDisk: XenTargetHost.OpenDisk
    private let hasBegunHere = Monitor(false)

    /// Some were offered, and are on their way.
    public var hasBegun: Bool { hasBegunHere.read { $0 } }

    /// - Parameter areReady: whether libxl has made the domain's devices.
    public init(_ domain: XenDomain, areReady: @escaping @Sendable () -> Bool, openDisk: @escaping XenTargetHost.OpenDisk) {
        (self.domain, self.areReady, self.openDisk) = (domain, areReady, openDisk)
    }

    public func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        let description = try XenDescription(decoding: offer.description)
        guard offer.regions.isEmpty else { throw TurntableError(.protocol, "the offer of \(offer.machine)", "disks have no memory") }
        try domain.awaitDevices(areReady)
        let machine = PVTargetDisks(try domain.open(offer, description.volumes, by: openDisk), domain)
        hasBegunHere.update { $0 = true }
        return machine
    }

    public func find(_ offer: Offer) throws(TurntableError) -> (any TargetMachine)? { nil }
    public func isWaiting(_ machine: String, _ session: SessionID) -> Bool { false }
}

private final class PVTargetDisks: TargetMachine {
    let pages: any PageSink = NoMemory()
    let disks: [any BlockSink]
    private let domain: XenDomain

    init(_ disks: [any BlockSink], _ domain: XenDomain) { (self.disks, self.domain) = (disks, domain) }

    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try SharedMemory(bytes: bytes) }
    func forgetSession() {}
    func loadDeviceState(_ state: UnsafeRawBufferPointer) throws(TurntableError) {}
    /// xl starts the domain, when the memory is here too.
    func resume() throws(TurntableError) {}
    func discard() {}
    func checkAlive() throws(TurntableError) {
        guard try !domain.facts().isDying else { throw TurntableError(.hypervisor, "domain \(domain.number)", "it was destroyed") }
    }
}

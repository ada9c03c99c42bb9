public import MigrationEngine
public import TurntableCore
public import TurntableLinux
internal import WireFormat

/// A PVH or HVM domain that runs here and is moved under libxl, which suspends it when the engine says so.
///
/// libxl ends the domain when it runs at the target, and resumes it here if this helper fails: a helper that is killed leaves
/// a guest that runs, with its log of writes on, which costs it a little until it moves again.
public final class XenSourceMachine: SourceMachine, @unchecked Sendable {
    public let name: String
    public let epoch = Epoch(0)
    public let description: [UInt8]
    public let pages: any PageSource
    public private(set) var deviceCost: DeviceCost
    public let disks: [any BlockSource]
    /// The same, as the domain has them.
    private let itsDisks: [XenDisk]
    private let domain: XenDomain
    private let memory: XenMemory
    private let libxl: LibxlCallbacks
    // The scheduler's thread alone.
    private var dirtyLog: XenDirtyLog?

    /// How long a target takes to load a state, until it is measured: a few hypercalls.
    private static let loadTime = Nanoseconds.milliseconds(20)

    /// - Parameters:
    ///   - name: what its journal is kept under; by default the toolstack's name of it.
    ///   - disks: those that go along, what LVM knows their volumes by, and what reads them.
    public init(
        _ domain: XenDomain, _ libxl: LibxlCallbacks, name: String? = nil, disks: [(its: XenDisk, volume: String, source: any BlockSource)] = []
    ) throws(TurntableError) {
        self.domain = domain
        self.libxl = libxl
        self.disks = disks.map(\.source)
        itsDisks = disks.map(\.its)
        if let name { self.name = name } else { self.name = try domain.name() }
        let onDemand = try domain.pagesOnDemand()
        guard onDemand == 0 else {
            throw TurntableError(
                .refused, "moving \(self.name)", "\(PageCount(onDemand).bytes) of its memory come into being when it first uses them",
                remedy: "wait until its balloon has given back what is over its `memory`")
        }
        memory = try XenMemory.source(domain)
        pages = memory
        guard memory.runs.count <= Limits.xenRuns else {
            throw TurntableError(
                .unsupported, "moving \(self.name)", "its memory is in \(memory.runs.count) pieces, the limit is \(Limits.xenRuns)",
                remedy: "let its balloon grow back")
        }
        let began = Clock.now
        let state = try XenState(of: domain)
        deviceCost = DeviceCost(bytes: ByteCount(state.encoded().count), save: Clock.now - began, load: Self.loadTime)
        description = XenDescription(
            frames: memory.regions[0].pages.value, runs: memory.runs, rings: state.rings, processorPolicy: try domain.processorPolicy(),
            volumes: disks.map(\.volume)
        ).encoded()
    }

    public func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try SharedMemory(bytes: bytes) }
    public func diskMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try SharedMemory(bytes: bytes) }
    public func forgetSession() {}
    /// A helper's session ends with it.
    public func takeUp(wasRunning: Bool) throws(TurntableError) {}

    public func startDirtyLog(streams: Int, isContinued: Bool) throws(TurntableError) -> any DirtyLog {
        try libxl.setDirtyLogOfQEMU(domain.number, on: true)
        let log = try XenDirtyLog(memory)
        dirtyLog = log
        return log
    }

    public func pause() throws(TurntableError) {
        try libxl.suspend()
        guard try domain.facts().isShutDown else {
            throw TurntableError(.hypervisor, "suspending \(name)", "libxl says that it is suspended, Xen says that it is not")
        }
        dirtyLog?.isLast = true
        for disk in itsDisks { try disk.awaitRequests() }
    }

    public func saveDeviceState() throws(TurntableError) -> [UInt8] { try XenState(of: domain).encoded() }

    /// xl decides, and knows no epochs.
    public func reclaim(_ epoch: Epoch) throws(TurntableError) {}

    public func resume() throws(TurntableError) {
        dirtyLog?.isLast = false
        if try domain.hasDeviceModel() { try DeviceModel.letRunOn(of: domain.number) }
        try domain.resume()
    }

    /// xl ends it.
    public func discard() {}

    public func checkAlive() throws(TurntableError) {
        guard try !domain.facts().isDying else { throw TurntableError(.hypervisor, "domain \(domain.number)", "it was destroyed") }
    }

    /// The machine runs on here: it is left as it was.
    public func endDirtyLog() {
        try? domain.setDirtyLog(on: false)
        try? libxl.setDirtyLogOfQEMU(domain.number, on: false)
    }
}

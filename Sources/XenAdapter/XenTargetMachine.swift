public import MigrationEngine
public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// Who had libxl make the domain, where xl has no part: the domain is whole but for its memory before that comes, and the helper lets it run.
public protocol XenOwner: AnyObject, Sendable {
    /// Returns when libxl has made the devices.
    func awaitDevices() throws(TurntableError)
    func itRuns()
    /// It is not this host's: it is to be ended.
    func itWillNotRun()
}

/// The host of one move: libxl has made an empty domain, which becomes the machine that is offered.
///
/// libxl goes on with a domain, to its devices and their scripts, when its helper is done and the stream has ended. Where the
/// stream ends early (XLLine/EarlyEnd.swift) that can be before the memory comes: xl starts the domain when the source's xl says so,
/// after the source's helper has heard that all is here. The source suspends the machine when xl here waits for that (XLLine/Readiness.swift).
///
/// Disks are written only where libxl here makes them devices of this domain, by the configuration that it has of it; so
/// they come only where that is known before anything is sent. What the source says of a disk is its name and its size.
public final class XenTargetHost: TargetHost, @unchecked Sendable {
    /// Opens a disk of the domain for what comes of `size` bytes from the volume that LVM knows as `source`, or says why it is not to be written.
    /// `isMade`: the domain's own backend has it open.
    public typealias OpenDisk =
        @Sendable (_ disk: XenDisk, _ isMade: Bool, _ size: ByteCount, _ source: String, _ machine: String) throws(TurntableError) -> any BlockSink

    private let domain: XenDomain
    private let services: XenServices
    private let libxl: LibxlCallbacks
    private let early: String?
    private let owner: (any XenOwner)?
    private let configured: [XenDisk]
    private let openDisk: OpenDisk
    /// Called when libxl may go on.
    private let mayGoOn: @Sendable () -> Void

    /// - Parameters:
    ///   - early: if libxl goes on before the memory is here, the file whose byte is not zero when xl is ready to start the domain.
    ///   - owner: nil under xl, which starts the domain itself. Else nobody writes to `early`.
    ///   - configured: the disks that libxl will make, if it does only when all else is here.
    ///   - openDisk: what writes disks that come along.
    public init(
        _ domain: XenDomain, _ services: XenServices, _ libxl: LibxlCallbacks, early: String?, owner: (any XenOwner)? = nil,
        configured: [XenDisk] = [], openDisk: @escaping OpenDisk, mayGoOn: @escaping @Sendable () -> Void
    ) {
        (self.domain, self.services, self.libxl, self.early, self.owner) = (domain, services, libxl, early, owner)
        (self.configured, self.openDisk, self.mayGoOn) = (configured, openDisk, mayGoOn)
    }

    public func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        let description = try XenDescription(decoding: offer.description)
        guard offer.regions.count == 1, offer.regions[0].bytes == UInt64(description.frames * pageBytes) else {
            throw TurntableError(.protocol, "the offer of \(offer.machine)", "its memory is not what its description says")
        }
        guard offer.disks.isEmpty || early != nil || owner != nil else {
            throw TurntableError(
                .unsupported, "taking the disks of \(offer.machine)",
                "its stream does not pass `turntable xl-receive`: libxl here would say only afterwards which they are",
                remedy: "xl migrate -s 'turntable xl-connect'")
        }
        try domain.setProcessorPolicy(description.processorPolicy)
        try libxl.staticDataIsHere()
        // Whoever is at the rings' other ends uses them from then on.
        let apart = early == nil ? [] : description.rings.frames
        let machine = XenTargetMachine(
            try XenMemory.target(domain, description, apart: apart), services, libxl, early: owner == nil ? early : nil, owner, mayGoOn)
        if early != nil { try machine.letLibxlGoOn(description.rings) }
        // Only then does the source hear that this host is ready: no device is in the making while the guest stands still.
        do throws(TurntableError) {
            if early != nil, owner != nil || !offer.disks.isEmpty { try machine.awaitDevices() }
            machine.disks = try domain.open(offer, description.volumes, configured: early == nil ? configured : nil, by: openDisk)
        } catch {
            machine.discard()
            throw error
        }
        return machine
    }

    /// Whether libxl is through with what it does here before the machine is started, by ``early``. Not to know is no reason to wait.
    public static func isReady(_ early: String) -> Bool { (try? readFile(early, atMost: 1))?.first != 0 }

    /// What a helper that died made is libxl's to end.
    public func find(_ offer: Offer) throws(TurntableError) -> (any TargetMachine)? { nil }
    public func isWaiting(_ machine: String, _ session: SessionID) -> Bool { false }
}

final class XenTargetMachine: TargetMachine, @unchecked Sendable {
    let pages: any PageSink
    /// Complete before the machine is given to the engine.
    fileprivate(set) var disks: [any BlockSink] = []
    private let domain: XenDomain
    private let services: XenServices
    private let libxl: LibxlCallbacks
    private let early: String?
    private let owner: (any XenOwner)?
    private let mayGoOn: @Sendable () -> Void
    // The session's thread alone.
    private var rings: XenRings?
    private var hasGoneOn = false

    init(
        _ memory: XenMemory, _ services: XenServices, _ libxl: LibxlCallbacks, early: String?, _ owner: (any XenOwner)?,
        _ mayGoOn: @escaping @Sendable () -> Void
    ) {
        pages = memory
        domain = memory.domain
        (self.services, self.libxl, self.early, self.owner, self.mayGoOn) = (services, libxl, early, owner, mayGoOn)
    }

    var isReady: Bool { early.map(XenTargetHost.isReady) ?? true }

    /// Returns when libxl has made the domain's devices.
    func awaitDevices() throws(TurntableError) {
        if let owner { return try owner.awaitDevices() }
        try domain.awaitDevices { isReady }
    }

    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try SharedMemory(bytes: bytes) }
    func forgetSession() {}

    func loadDeviceState(_ state: UnsafeRawBufferPointer) throws(TurntableError) {
        let state = try XenState(decoding: unsafe Array(state))
        try state.apply(to: domain)
        if !hasGoneOn { try state.rings.establish(on: domain, services) }
        rings = state.rings
        guard owner != nil, !hasGoneOn else { return }
        // A device model is made with its state, which only now can come: the domain is whole with it, and not before.
        try finish(state.rings)
        try awaitDevices()
    }

    /// libxl connects console and xenstore, and prepares the devices.
    func letLibxlGoOn(_ rings: XenRings) throws(TurntableError) {
        try rings.establish(on: domain, services)
        try finish(rings)
    }

    private func finish(_ rings: XenRings) throws(TurntableError) {
        hasGoneOn = true
        try libxl.results(rings)
        try libxl.complete(failed: false)
        mayGoOn()
    }

    /// Under xl to libxl's hands: it finishes the devices, and xl starts the domain when the source's xl has agreed.
    func resume() throws(TurntableError) {
        guard let rings else { preconditionFailure("resumed without a state") }
        if !hasGoneOn { try finish(rings) }
        guard let owner else { return }
        if try domain.hasDeviceModel() { try DeviceModel.letRunOn(of: domain.number) }
        try domain.unpause()
        owner.itRuns()
    }

    /// Under xl libxl ends the domain when this helper fails.
    func discard() { owner?.itWillNotRun() }

    func checkAlive() throws(TurntableError) {
        guard try !domain.facts().isDying else { throw TurntableError(.hypervisor, "domain \(domain.number)", "it was destroyed") }
    }
}

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
/// after the source's helper has heard that all is here.
public final class XenTargetHost: TargetHost, @unchecked Sendable {
    private let domain: XenDomain
    private let services: XenServices
    private let libxl: LibxlCallbacks
    private let isEarly: Bool
    private let owner: (any XenOwner)?
    /// Called when libxl may go on.
    private let isReady: @Sendable () -> Void

    /// - Parameters:
    ///   - isEarly: libxl goes on before the memory is here.
    ///   - owner: nil under xl, which starts the domain itself. Else `isEarly` is true.
    public init(
        _ domain: XenDomain, _ services: XenServices, _ libxl: LibxlCallbacks, isEarly: Bool, owner: (any XenOwner)? = nil,
        isReady: @escaping @Sendable () -> Void
    ) {
        (self.domain, self.services, self.libxl, self.isEarly, self.owner, self.isReady) = (domain, services, libxl, isEarly, owner, isReady)
    }

    public func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        let description = try XenDescription(decoding: offer.description)
        guard offer.regions.count == 1, offer.regions[0].bytes == UInt64(description.frames * pageBytes) else {
            throw TurntableError(.protocol, "the offer of \(offer.machine)", "its memory is not what its description says")
        }
        try domain.setProcessorPolicy(description.processorPolicy)
        try libxl.staticDataIsHere()
        // Whoever is at the rings' other ends uses them from then on.
        let apart = isEarly ? description.rings.frames : []
        let machine = XenTargetMachine(try XenMemory.target(domain, description, apart: apart), services, libxl, owner, isReady)
        if isEarly { try machine.letLibxlGoOn(description.rings) }
        // Only then does the source hear that this host is ready: no device is in the making while the guest stands still.
        do { try owner?.awaitDevices() } catch {
            machine.discard()
            throw error
        }
        return machine
    }

    /// What a helper that died made is libxl's to end.
    public func find(_ offer: Offer) throws(TurntableError) -> (any TargetMachine)? { nil }
    public func isWaiting(_ machine: String, _ session: SessionID) -> Bool { false }
}

final class XenTargetMachine: TargetMachine, @unchecked Sendable {
    let pages: any PageSink
    private let domain: XenDomain
    private let services: XenServices
    private let libxl: LibxlCallbacks
    private let owner: (any XenOwner)?
    private let isReady: @Sendable () -> Void
    // The session's thread alone.
    private var rings: XenRings?
    private var hasGoneOn = false

    init(
        _ memory: XenMemory, _ services: XenServices, _ libxl: LibxlCallbacks, _ owner: (any XenOwner)?, _ isReady: @escaping @Sendable () -> Void
    ) {
        pages = memory
        domain = memory.domain
        (self.services, self.libxl, self.owner, self.isReady) = (services, libxl, owner, isReady)
    }

    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try SharedMemory(bytes: bytes) }
    func forgetSession() {}

    func loadDeviceState(_ state: UnsafeRawBufferPointer) throws(TurntableError) {
        let state = try XenState(decoding: unsafe Array(state))
        try state.apply(to: domain)
        if !hasGoneOn { try state.rings.establish(on: domain, services) }
        rings = state.rings
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
        isReady()
    }

    /// Under xl to libxl's hands: it finishes the devices, and xl starts the domain when the source's xl has agreed.
    func resume() throws(TurntableError) {
        guard let rings else { preconditionFailure("resumed without a state") }
        if !hasGoneOn { try finish(rings) }
        guard let owner else { return }
        try domain.unpause()
        owner.itRuns()
    }

    /// Under xl libxl ends the domain when this helper fails.
    func discard() { owner?.itWillNotRun() }

    func checkAlive() throws(TurntableError) {
        guard try !domain.facts().isDying else { throw TurntableError(.hypervisor, "domain \(domain.number)", "it was destroyed") }
    }
}

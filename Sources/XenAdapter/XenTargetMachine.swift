public import MigrationEngine
public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// The host of one move: libxl has made an empty domain, which becomes the machine that is offered.
///
/// libxl goes on with a domain, to its devices and their scripts, when its helper is done and the stream has ended. Where the
/// stream ends early (XLLine/EarlyEnd.swift) that can be before the memory comes: xl starts the domain when the source's xl says so,
/// after the source's helper has heard that all is here. The source suspends the machine when xl here waits for that (XLLine/Readiness.swift).
public final class XenTargetHost: TargetHost, @unchecked Sendable {
    private let domain: XenDomain
    private let services: XenServices
    private let libxl: LibxlCallbacks
    private let early: String?
    /// Called when libxl may go on.
    private let mayGoOn: @Sendable () -> Void

    /// - Parameter early: if libxl goes on before the memory is here, the file whose byte is not zero when xl is ready to start the domain.
    public init(
        _ domain: XenDomain, _ services: XenServices, _ libxl: LibxlCallbacks, early: String?, mayGoOn: @escaping @Sendable () -> Void
    ) {
        (self.domain, self.services, self.libxl, self.early, self.mayGoOn) = (domain, services, libxl, early, mayGoOn)
    }

    public func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        let description = try XenDescription(decoding: offer.description)
        guard offer.regions.count == 1, offer.regions[0].bytes == UInt64(description.frames * pageBytes) else {
            throw TurntableError(.protocol, "the offer of \(offer.machine)", "its memory is not what its description says")
        }
        try domain.setProcessorPolicy(description.processorPolicy)
        try libxl.staticDataIsHere()
        // Whoever is at the rings' other ends uses them from then on.
        let apart = early == nil ? [] : description.rings.frames
        let machine = XenTargetMachine(try XenMemory.target(domain, description, apart: apart), services, libxl, early: early, mayGoOn)
        if early != nil { try machine.letLibxlGoOn(description.rings) }
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
    private let early: String?
    private let mayGoOn: @Sendable () -> Void
    // The session's thread alone.
    private var rings: XenRings?
    private var hasGoneOn = false

    init(
        _ memory: XenMemory, _ services: XenServices, _ libxl: LibxlCallbacks, early: String?, _ mayGoOn: @escaping @Sendable () -> Void
    ) {
        pages = memory
        domain = memory.domain
        (self.services, self.libxl, self.early, self.mayGoOn) = (services, libxl, early, mayGoOn)
    }

    /// Whether libxl is through with what it does here before the machine is started. Not to know is no reason to wait.
    var isReady: Bool { early.map { (try? readFile($0, atMost: 1))?.first != 0 } ?? true }

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
        mayGoOn()
    }

    /// To libxl's hands: it finishes the devices, and xl starts the domain when the source's xl has agreed.
    func resume() throws(TurntableError) {
        guard let rings else { preconditionFailure("resumed without a state") }
        if !hasGoneOn { try finish(rings) }
    }

    /// libxl ends the domain when this helper fails.
    func discard() {}

    func checkAlive() throws(TurntableError) {
        guard try !domain.facts().isDying else { throw TurntableError(.hypervisor, "domain \(domain.number)", "it was destroyed") }
    }
}

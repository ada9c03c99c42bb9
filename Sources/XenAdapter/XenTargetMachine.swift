public import MigrationEngine
public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// The host of one move: libxl has made an empty domain, which becomes the machine that is offered.
public final class XenTargetHost: TargetHost, @unchecked Sendable {
    private let domain: XenDomain
    private let services: XenServices
    private let libxl: LibxlCallbacks
    /// Called when the domain is all that it should be and libxl may start it.
    private let isReady: @Sendable () -> Void

    public init(_ domain: XenDomain, _ services: XenServices, _ libxl: LibxlCallbacks, isReady: @escaping @Sendable () -> Void) {
        (self.domain, self.services, self.libxl, self.isReady) = (domain, services, libxl, isReady)
    }

    public func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        let description = try XenDescription(decoding: offer.description)
        guard offer.regions.count == 1, offer.regions[0].bytes == UInt64(description.frames * pageBytes) else {
            throw TurntableError(.protocol, "the offer of \(offer.machine)", "its memory is not what its description says")
        }
        try domain.setProcessorPolicy(description.processorPolicy)
        try libxl.staticDataIsHere()
        return XenTargetMachine(try XenMemory.target(domain, description), services, libxl, isReady)
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
    private let isReady: @Sendable () -> Void
    // The session's thread alone.
    private var rings: XenState.Rings?

    init(_ memory: XenMemory, _ services: XenServices, _ libxl: LibxlCallbacks, _ isReady: @escaping @Sendable () -> Void) {
        pages = memory
        domain = memory.domain
        (self.services, self.libxl, self.isReady) = (services, libxl, isReady)
    }

    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory { try SharedMemory(bytes: bytes) }
    func forgetSession() {}

    func loadDeviceState(_ state: UnsafeRawBufferPointer) throws(TurntableError) {
        rings = try XenState(decoding: unsafe Array(state)).apply(to: domain, services)
    }

    /// To libxl's hands: it finishes the devices, and xl starts the domain when the source's xl has agreed.
    func resume() throws(TurntableError) {
        guard let rings else { preconditionFailure("resumed without a state") }
        try libxl.results(rings)
        try libxl.complete(failed: false)
        isReady()
    }

    /// libxl ends the domain when this helper fails.
    func discard() {}

    func checkAlive() throws(TurntableError) {
        guard try !domain.facts().isDying else { throw TurntableError(.hypervisor, "domain \(domain.number)", "it was destroyed") }
    }
}

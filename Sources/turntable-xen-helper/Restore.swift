internal import CTurntableXen
internal import Glibc
internal import MigrationEngine
internal import Protection
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
internal import XenAdapter

/// The target's side of a move.
struct Restore {
    let invocation: Invocation
    let settings: Settings

    init(_ invocation: Invocation, _ settings: Settings) { (self.invocation, self.settings) = (invocation, settings) }

    func run() throws(TurntableError) -> Never {
        guard invocation.isPlain, let heard = try Meeting.hearGreeting(on: invocation.stream) else {
            try Helper.becomeStock(invocation, settings)
        }
        if heard.isPV { try carry(heard) }
        let domain = try XenDomain(invocation.domain)
        let libxl = LibxlCallbacks(understood: invocation.messages)
        var owner: DomainOwner?
        let front = Front(descriptor: try checked(tt_xen_split(), "starting the engine"), stream: invocation.streamDescriptor)
        do throws(TurntableError) {
            owner = try settings.owner.map { (path) throws(TurntableError) in try DomainOwner(path: path, domain.number) }
            try receive(domain, libxl, heard, front, owner)
            Front.rest()
        } catch {
            libxl.log(.error, "\(error)")
            try? libxl.complete(failed: true)
            // Never after the hand-off: whoever would end the domain may be gone.
            if error.kind == .cancelled { owner?.itWillNotRun() }
            exit(error.kind.exitCode)
        }
    }

    func listen(
        _ security: LineSecurity, _ turnedAway: @escaping @Sendable (String) -> Void
    ) throws(TurntableError) -> TCPTargetTransport {
        return try Meeting.onAllAddresses { (address) throws(TurntableError) in
            try TCPTargetTransport(listening: address, security: security, turnedAway: turnedAway)
        }
    }

    private func receive(
        _ domain: XenDomain, _ libxl: LibxlCallbacks, _ heard: Meeting.Heard, _ front: Front, _ owner: DomainOwner?
    ) throws(TurntableError) {
        let security = try settings.security()
        let transport = try listen(security) { libxl.log(.warning, "turned away \($0)") }
        let early = heard.isLast ? settings.readinessFile : nil
        let hasDeviceModel = try domain.hasDeviceModel()
        guard owner == nil || early != nil || hasDeviceModel else {
            throw TurntableError(.unsupported, "receiving a domain without xl", "its stream does not pass `turntable xl-receive`")
        }
        var options = TargetOptions()
        options.sign = security.sign
        let host = XenTargetHost(
            domain, invocation.services, libxl, early: early, owner: owner, configured: settings.configuredDisks, openDisk: settings.openDisk
        ) {
            front.letGo(keepsStream: early != nil)
        }
        let reception = Reception(
            host: host, journals: try settings.journals(), options: options, once: true,
            reports: .init(note: { libxl.log(.info, $0) }, event: Reports { libxl.log($0, $1) }.pass, ended: { _, _ in }))
        Watch.start(invocation.stream) { reception.interrupt() }
        if let owner { Watch.start(LibxlStream(descriptor: owner.descriptor)) { reception.interrupt() } }
        try heard.answer(transport.port)
        try reception.serve(transport)
    }
}

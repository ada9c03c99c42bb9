internal import CTurntableXen
internal import Glibc
internal import MigrationEngine
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
        let front = Front(descriptor: try checked(tt_xen_split(), "starting the engine"), stream: invocation.streamDescriptor)
        do throws(TurntableError) {
            try receive(domain, libxl, heard, front)
            Front.rest()
        } catch {
            libxl.log(.error, "\(error)")
            try? libxl.complete(failed: true)
            exit(error.kind.exitCode)
        }
    }

    func listen(_ turnedAway: @escaping @Sendable (String) -> Void) throws(TurntableError) -> TCPTargetTransport {
        let security = try settings.security()
        return try Meeting.onAllAddresses { (address) throws(TurntableError) in
            try TCPTargetTransport(listening: address, security: security, turnedAway: turnedAway)
        }
    }

    private func receive(
        _ domain: XenDomain, _ libxl: LibxlCallbacks, _ heard: Meeting.Heard, _ front: Front
    ) throws(TurntableError) {
        let transport = try listen { libxl.log(.warning, "turned away \($0)") }
        let early = heard.isLast ? settings.readinessFile : nil
        let host = XenTargetHost(domain, invocation.services, libxl, early: early) { front.letGo(keepsStream: early != nil) }
        let reception = Reception(
            host: host, journals: makeMemoryJournals(), options: TargetOptions(), once: true,
            reports: .init(note: { libxl.log(.info, $0) }, event: { Reports.pass($0, to: libxl) }, ended: { _, _ in }))
        Watch.start(invocation.stream) { reception.interrupt() }
        try heard.answer(transport.port)
        try reception.serve(transport)
    }
}

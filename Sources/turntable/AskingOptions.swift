import ArgumentParser
import MigrationEngine
import Protection
import Transport
import TransportTCP
import TurntableCore
import TurntableLinux
import WireFormat

/// How the target of an offer is asked what became of it.
struct AskingOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The name or address that the target's certificate must be for, as `turntable send` was told.", valueName: "host"))
    var peer: String?
    @OptionGroup var protection: ProtectionOptions

    /// What the target of an offer says became of its epoch; nil if nobody listens there.
    func answer(_ machine: String, _ offer: JournalRecord, of epoch: Epoch) throws(TurntableError) -> Resolution? {
        guard let address = Address(parsing: offer.peer, defaultPort: defaultPort) else { return nil }
        let transport = try transport(to: address)
        do throws(TurntableError) {
            let control = try transport.connectControl()
            defer { control.shutDown() }
            try control.send(.query(Query(machine: machine, epoch: epoch, session: offer.session)))
            guard case .resolution(let resolution)? = try control.receive(within: Limits.helloTime), resolution.epoch == epoch else {
                throw TurntableError(.protocol, "asking \(address) for epoch \(epoch.value) of \(machine)", "it gave no answer to it")
            }
            return resolution
        } catch {
            // Somebody who answers and cannot be understood is no host that is off.
            guard error.kind == .line, !isListening(address) else { throw error }
            return nil
        }
    }

    /// Tells the target of an offer that its answer is on disk here.
    func confirm(_ name: Query, _ offer: JournalRecord) throws(TurntableError) {
        guard let address = Address(parsing: offer.peer, defaultPort: defaultPort) else { return }
        try Confirmation.send(name, over: transport(to: address))
    }

    private func transport(to address: Address) throws(TurntableError) -> TCPSourceTransport {
        TCPSourceTransport(address: address, options: LineOptions(), security: try protection.security(), peer: peer)
    }

    /// Whether a statement is signed by the target of that address.
    func believes(_ target: String) -> ([UInt8], [UInt8]) -> Bool {
        guard let security = try? protection.security(), let address = Address(parsing: target, defaultPort: defaultPort) else {
            return { _, _ in false }
        }
        return security.believes(from: peer ?? address.host)
    }

    private func isListening(_ address: Address) -> Bool {
        do throws(TurntableError) {
            _ = try Socket.connect(to: address, within: Limits.helloTime) { (_: borrowing Descriptor) throws(TurntableError) in }
            return true
        } catch {
            return false
        }
    }
}

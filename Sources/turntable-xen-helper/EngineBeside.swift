// The engine's part of a PV domain, beside what Carry.swift carries: a migration between the same two helpers of its disks, and where xl has no part,
// of the right to run it (XenAdapter/PVMachine.swift).

internal import MigrationEngine
internal import Protection
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat
internal import XenAdapter
internal import XenStream

/// At the source, on a thread of its own.
final class EngineBeside: Sendable {
    private let machine: PVSourceMachine
    private let migration: SourceMigration
    private let thread: WorkerThread
    private let outcome: Monitor<Result<Void, TurntableError>?>
    private let report: Monitor<MigrationReport?>

    init(
        _ machine: PVSourceMachine, _ save: Save, _ met: Meeting.Met, _ security: LineSecurity, beside source: StreamSource,
        event: @escaping @Sendable (MigrationEvent) -> Void
    ) throws(TurntableError) {
        var options = save.options
        options.resumeWindow = .zero
        options.verification = .off
        save.nameTarget(met.address, security, &options)
        let target = met.disks ?? met.address
        let outcome = Monitor<Result<Void, TurntableError>?>(nil)
        let report = Monitor<MigrationReport?>(nil)
        let migration = SourceMigration(
            machine: machine, transport: TCPSourceTransport(address: target, options: save.line, security: security, peer: save.settings.peer),
            journals: try save.settings.journals(), options: options
        ) { its in
            event(its)
            if case .phase(.completed) = its { outcome.update { $0 = .success(()) } }
        }
        (self.machine, self.migration, self.outcome, self.report) = (machine, migration, outcome, report)
        thread = WorkerThread("tt-beside") {
            do throws(TurntableError) {
                guard met.disks != nil else { throw Self.cannotCome }
                // libxl there has made the devices then.
                guard source.awaitReadiness(atMost: .forever) else {
                    throw TurntableError(.cancelled, "moving the domain", "its memory did not come")
                }
                let its = try migration.run()
                report.update { $0 = its }
            } catch {
                outcome.update { $0 = .failure(error) }
                source.interrupt("\(error)")
                machine.end()
            }
        }
    }

    private static let cannotCome = TurntableError(
        .unsupported, "moving the domain's disks",
        "the target's stream does not pass `turntable xl-receive`: libxl there would say only afterwards which they are",
        remedy: "xl migrate -s 'turntable xl-connect'")

    func cancel() {
        machine.end()
        _ = migration.cancel()
    }

    /// Returns when the target has it, or nothing is left of a failure; what that was.
    func awaitCompletion() -> TurntableError? {
        guard case .failure(let error)? = outcome.wait(atMost: .forever, until: { $0 }) else { return nil }
        _ = end()
        return error
    }

    /// Returns when its snapshots are removed.
    func end() -> MigrationReport? {
        thread.join()
        return report.read { $0 }
    }
}

/// At the target.
final class ReceptionBeside: Sendable {
    let port: UInt16
    private let host: PVTargetHost
    private let owner: DomainOwner?
    private let reception: Reception
    private let thread: WorkerThread

    init(
        _ restore: Restore, _ domain: XenDomain, _ security: LineSecurity, owner: DomainOwner?, areReady: @escaping @Sendable () -> Bool
    ) throws(TurntableError) {
        let transport = try restore.listen(security) { Helper.say("turned away \($0)") }
        port = transport.port
        let host = PVTargetHost(domain, areReady: areReady, owner: owner, openDisk: restore.settings.openDisk)
        var options = TargetOptions()
        options.sign = security.sign
        let reception = Reception(
            host: host, journals: try restore.settings.journals(), options: options, once: true,
            reports: .init(note: { _ in }, event: { _ in }, ended: { _, _ in }))
        (self.host, self.owner, self.reception) = (host, owner, reception)
        thread = WorkerThread("tt-beside") { try? reception.serve(transport) }
    }

    func interrupt() { reception.interrupt() }

    /// Returns when nothing is written any more, and the domain runs here or will not.
    /// - Parameter isWhole: the memory has come, and so what was begun has, or will have.
    func end(isWhole: Bool) {
        host.tell(hasMemory: isWhole)
        if !(isWhole && host.hasBegun) { reception.interrupt() }
        thread.join()
        // Else the engine has decided, and done, what becomes of it.
        if !host.hasBegun { owner?.itWillNotRun() }
    }
}

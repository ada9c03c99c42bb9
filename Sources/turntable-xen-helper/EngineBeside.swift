// The disks of a PV domain, beside what Carry.swift carries: a migration of their own, between the same two helpers (XenAdapter/PVDisks.swift).

internal import MigrationEngine
internal import Protection
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
internal import XenAdapter
internal import XenStream

/// On their way, in a thread of its own.
final class DiskCopy: Sendable {
    private let disks: PVSourceDisks
    private let migration: SourceMigration
    private let thread: WorkerThread
    private let outcome: Monitor<Result<Void, TurntableError>?>

    init(_ disks: PVSourceDisks, _ save: Save, _ met: Meeting.Met, _ security: LineSecurity, beside source: StreamSource) {
        var options = save.options
        options.resumeWindow = .zero
        let target = met.disks ?? met.address
        let outcome = Monitor<Result<Void, TurntableError>?>(nil)
        let migration = SourceMigration(
            machine: disks, transport: TCPSourceTransport(address: target, options: save.line, security: security, peer: save.settings.peer),
            journals: makeMemoryJournals(), options: options
        ) { event in
            switch event {
            case .note(let text): Helper.say(text)
            case .phase(.completed): outcome.update { $0 = .success(()) }
            default: break
            }
        }
        (self.disks, self.migration, self.outcome) = (disks, migration, outcome)
        thread = WorkerThread("tt-disks") {
            do throws(TurntableError) {
                guard met.disks != nil else { throw Self.noneCanCome }
                // libxl there has made them then.
                guard source.awaitReadiness(atMost: .forever) else {
                    throw TurntableError(.cancelled, "moving the domain's disks", "its memory did not come")
                }
                _ = try migration.run()
            } catch {
                outcome.update { $0 = .failure(error) }
                source.interrupt("\(error)")
                disks.end()
            }
        }
    }

    private static let noneCanCome = TurntableError(
        .unsupported, "moving the domain's disks",
        "the target's stream does not pass `turntable xl-receive`: libxl there would say only afterwards which they are",
        remedy: "xl migrate -s 'turntable xl-connect'")

    func cancel() {
        disks.end()
        _ = migration.cancel()
    }

    /// Returns when the target has them, or nothing is left of a failure; what that was.
    func awaitCompletion() -> TurntableError? {
        guard case .failure(let error)? = outcome.wait(atMost: .forever, until: { $0 }) else { return nil }
        end()
        return error
    }

    /// Returns when their snapshots are removed.
    func end() { thread.join() }
}

/// Where they arrive.
final class DiskReception: Sendable {
    let port: UInt16
    private let host: PVDisksHost
    private let reception: Reception
    private let thread: WorkerThread

    init(_ restore: Restore, _ readiness: String, _ security: LineSecurity) throws(TurntableError) {
        let transport = try restore.listen(security) { Helper.say("turned away \($0)") }
        port = transport.port
        let host = PVDisksHost(
            try XenDomain(restore.invocation.domain), areReady: { XenTargetHost.isReady(readiness) }, openDisk: restore.settings.openDisk)
        let reception = Reception(
            host: host, journals: makeMemoryJournals(), options: TargetOptions(), once: true,
            reports: .init(note: { _ in }, event: { _ in }, ended: { _, _ in }))
        (self.host, self.reception) = (host, reception)
        thread = WorkerThread("tt-disks") { try? reception.serve(transport) }
    }

    /// Returns when nothing is written any more.
    /// - Parameter isWhole: all else has come, and so the disks that were begun have, or will have.
    func end(isWhole: Bool) {
        if !(isWhole && host.hasBegun) { reception.interrupt() }
        thread.join()
    }
}

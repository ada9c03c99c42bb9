internal import FoundationEssentials
internal import Glibc
public import MigrationEngine
public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// Makes QEMU machines for what arrives.
public final class QEMUHost: TargetHost {
    /// Where a target machine's QEMU comes from.
    public enum Origin: Sendable {
        /// Started from the source's description, as far as the policy lets it.
        case description(ReceivePolicy)
        /// Started with the operator's own command.
        case command([String])
        /// Started by a controller with `turntable run --incoming`; this is its monitor.
        case monitor(String)
    }

    private let origin: Origin
    private let directory: RunDirectory
    /// This program, which runs the machines so that they outlive the receiver.
    private let turntable: String

    public init(_ origin: Origin, directory: RunDirectory, turntable: String) {
        self.origin = origin
        self.directory = directory
        self.turntable = turntable
    }

    public func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        try MachineName.check(offer.machine)
        let description = try QEMUDescription(decoding: offer.description)
        let arguments: [String]
        switch origin {
        case .monitor(let path):
            return try QEMUTargetMachine(offer, description, monitorPath: path, directory: directory, lease: nil)
        case .description(let policy):
            arguments = try policy.check(description.arguments) { FileManager.default.isExecutableFile(atPath: $0) }
        case .command(let command):
            arguments = command
        }
        try checkAvailableMemory(ByteCount(Int(offer.regions.reduce(0) { $0 + $1.bytes })))
        try endForsaken(offer)
        let lease = try start(offer, arguments, resumeWindow)
        do {
            return try QEMUTargetMachine(
                offer, description, monitorPath: directory.monitor(of: offer.machine), directory: directory, lease: lease)
        } catch {
            let log = directory.logTail(of: offer.machine)
            lease.end(within: Limits.hypervisorTime)
            removeFile(directory.log(of: offer.machine))
            throw TurntableError(error.kind, error.what, log.isEmpty ? error.why : "\(error.why): \(log)", remedy: error.remedy)
        }
    }

    public func find(_ offer: Offer) throws(TurntableError) -> (any TargetMachine)? {
        try MachineName.check(offer.machine)
        var place = (directory: directory, machine: offer.machine)
        var isControllers = false
        if case .monitor(let path) = origin {
            guard let named = RunDirectory.place(ofMonitor: path) else { return nil }
            place = named
            isControllers = true
        }
        guard let record = try? place.directory.read(place.machine), record.isIncoming, record.isAlive,
            record.session == offer.session.hexadecimal
        else { return nil }
        let lock = try place.directory.lock(place.machine, "receiving")
        let leaseSocket = place.directory.leaseSocket(of: place.machine)
        let lease = MachineLease(leaseSocket)
        // A keeper that ends its machine takes the socket away first. One that was killed leaves it, and a controller's machine
        // has none.
        let isEnding = lease == nil && !isControllers && !FileManager.default.fileExists(atPath: leaseSocket)
        if isEnding, hasEnded(record, within: .seconds(5)) { return nil }
        do {
            return try QEMUTargetMachine(found: offer, record, in: place.directory, lock, lease)
        } catch {
            // One that cannot be asked may be complete: it is not for here to end it.
            if record.isAlive { throw error }
            return nil
        }
    }

    public func isWaiting(_ machine: String, _ session: SessionID) -> Bool {
        guard let record = try? directory.read(machine) else { return false }
        return record.isIncoming && record.isAlive && record.session == session.hexadecimal
    }

    private func hasEnded(_ record: MachineRecord, within limit: Nanoseconds) -> Bool {
        let deadline = Clock.now + limit
        while record.isAlive, Clock.now < deadline { Clock.sleep(.milliseconds(20)) }
        return !record.isAlive
    }

    /// A machine of that name that lost its receiver and waits for the rest of its memory makes room for a later attempt.
    private func endForsaken(_ offer: Offer) throws(TurntableError) {
        guard let old = try? directory.read(offer.machine), old.isAlive, old.isIncoming, old.epoch <= offer.epoch,
            let lock = try MachineLock(directory.directory(of: old.name)), let lease = MachineLease(directory.leaseSocket(of: old.name))
        else { return }
        // One that is complete may be the only one.
        let stage: IncomingStage
        do { stage = try IncomingStage(try QMP(path: directory.monitor(of: old.name))) } catch { return }
        if stage == .waiting { lease.end(within: Limits.hypervisorTime) }
        _ = lock
    }

    /// Starts `turntable run --incoming` in a session of its own and waits until the machine can be found.
    private func start(_ offer: Offer, _ arguments: [String], _ resumeWindow: Nanoseconds) throws(TurntableError) -> MachineLease {
        if let old = try? directory.read(offer.machine), old.isAlive {
            throw TurntableError(
                .refused, "starting \(offer.machine)", "a machine of that name runs at the target already, process \(old.process)")
        }
        directory.remove(offer.machine)
        try? FileManager.default.createDirectory(atPath: directory.path, withIntermediateDirectories: true)
        let log = try Descriptor.open(directory.log(of: offer.machine), .create, what: "opening \(directory.log(of: offer.machine))")
        let options = [
            "--incoming", "--epoch", "\(offer.epoch.value)", "--resume-window", "\(resumeWindow.value)ns", "--name", offer.machine,
            "--run-dir", directory.path,
        ]
        let child = try ChildProcess([turntable, "run"] + options + ["--"] + arguments, output: log.rawValue)
        let started = ProcessTable.startTime(of: child.identifier)
        let deadline = Clock.now + Limits.hypervisorTime
        while true {
            // The record comes last.
            if let record = try? directory.read(offer.machine), record.isIncoming, record.isAlive,
                let lease = MachineLease(directory.leaseSocket(of: offer.machine))
            {
                return lease
            }
            let hasEnded = started == nil || ProcessTable.startTime(of: child.identifier) != started
            if hasEnded || Clock.now > deadline {
                let log = directory.logTail(of: offer.machine)
                // It passes that on to its QEMU, and goes with it.
                if !hasEnded { Signals.send(SIGTERM, to: child.identifier) }
                removeFile(directory.log(of: offer.machine))
                throw TurntableError(.hypervisor, "starting \(offer.machine) at the target", "it did not come up: \(log)")
            }
            Clock.sleep(.milliseconds(5))
        }
    }
}

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
    private let disks: TargetDisks
    private let kept: KeptMemory?
    /// This program, which runs the machines so that they outlive the receiver.
    private let turntable: String

    /// - Parameter kept: where memory of earlier stays is, if that is to be used.
    public init(_ origin: Origin, directory: RunDirectory, disks: TargetDisks, kept: KeptMemory? = nil, turntable: String) {
        self.origin = origin
        self.disks = disks
        self.kept = kept
        self.directory = directory
        self.turntable = turntable
    }

    public func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        try MachineName.check(offer.machine)
        let description = try QEMUDescription(decoding: offer.description)
        if case .monitor(let path) = origin {
            return try QEMUTargetMachine(offer, description, monitorPath: path, directory: directory, lease: nil, kept: kept) {
                (monitor) throws(TurntableError) in
                try disks.open(try disks.places(for: offer, monitor), isOpenThere: true)
            }
        }
        let (arguments, places) = try commandLine(for: offer, description)
        try checkAvailableMemory(ByteCount(Int(offer.regions.reduce(0) { $0 + $1.bytes })))
        try endForsaken(offer)
        // QEMU finds them as they will be, and opens them without the right to write before the machine runs.
        var opened = try disks.open(places)
        do throws(TurntableError) {
            return try start(offer, description, arguments, opened, resumeWindow)
        } catch {
            opened.discard()
            throw error
        }
    }

    /// What is started here for an offer, and where its disks go.
    private func commandLine(for offer: Offer, _ description: QEMUDescription) throws(TurntableError) -> ([String], [DiskPlace]) {
        switch origin {
        case .monitor: return ([], [])
        case .command(let command):
            let places = try disks.places(for: offer, description) { _ in true }
            for place in places where !command.contains(where: { $0.contains(place.path.escapingCommas) }) {
                throw TurntableError(
                    .refused, "placing the disk \(place.name) at \(place.path)", "the command for the machine does not name that",
                    remedy: "say where it has it with --disk \(place.name)=PATH")
            }
            return (command, places)
        case .description(var policy):
            let places = try disks.places(for: offer, description) { [policy] in policy.isAllowed(path: $0) }
            policy.files.formUnion(places.map(\.path))
            var placement = DiskPlacement(description.arguments)
            try placement.place(places)
            return (try policy.check(placement.arguments) { FileManager.default.isExecutableFile(atPath: $0) }, places)
        }
    }

    private func start(
        _ offer: Offer, _ description: QEMUDescription, _ arguments: [String], _ opened: TargetDisks.Opened, _ resumeWindow: Nanoseconds
    ) throws(TurntableError) -> QEMUTargetMachine {
        let lease = try start(offer, arguments, resumeWindow)
        do {
            return try QEMUTargetMachine(
                offer, description, monitorPath: directory.monitor(of: offer.machine), directory: directory, lease: lease, kept: kept
            ) { _ in opened }
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
            return try QEMUTargetMachine(found: offer, record, in: place.directory, lock, lease, kept: kept) { (monitor) throws(TurntableError) in
                try disks.open(try disks.places(for: offer, monitor), isOpenThere: true, isTakenUp: true)
            }
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

internal import FoundationEssentials
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

    public func find(_ offer: Offer) -> (any TargetMachine)? { nil }
    public func isWaiting(_ session: SessionID) -> Bool { false }

    public func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
        try MachineName.check(offer.machine)
        let description = try QEMUDescription(decoding: offer.description)
        let arguments: [String]
        switch origin {
        case .monitor(let path):
            return try QEMUTargetMachine(
                offer.machine, offer.epoch, monitorPath: path, isRunning: description.isRunning, lease: nil, directory)
        case .description(let policy):
            arguments = try policy.check(description.arguments) { FileManager.default.isExecutableFile(atPath: $0) }
        case .command(let command):
            arguments = command
        }
        try checkAvailableMemory(ByteCount(Int(offer.regions.reduce(0) { $0 + $1.bytes })))
        let lease = try start(offer, arguments)
        do {
            return try QEMUTargetMachine(
                offer.machine, offer.epoch, monitorPath: directory.monitor(of: offer.machine), isRunning: description.isRunning,
                lease: lease, directory)
        } catch {
            let log = directory.logTail(of: offer.machine)
            lease.end(within: Limits.hypervisorTime)
            removeFile(directory.log(of: offer.machine))
            throw TurntableError(error.kind, error.what, log.isEmpty ? error.why : "\(error.why): \(log)", remedy: error.remedy)
        }
    }

    /// Starts `turntable run --incoming` in a session of its own and waits until the machine can be found.
    private func start(_ offer: Offer, _ arguments: [String]) throws(TurntableError) -> MachineLease {
        if let old = try? directory.read(offer.machine), old.isAlive {
            throw TurntableError(
                .refused, "starting \(offer.machine)", "a machine of that name runs at the target already, process \(old.process)")
        }
        directory.remove(offer.machine)
        try? FileManager.default.createDirectory(atPath: directory.path, withIntermediateDirectories: true)
        let log = try Descriptor.open(directory.log(of: offer.machine), .create, what: "opening \(directory.log(of: offer.machine))")
        let (ours, theirs) = try Socket.pair()
        let lease = MachineLease(owning: ours)
        let leased = Descriptor(owning: theirs)
        let options = [
            "--incoming", "--epoch", "\(offer.epoch.value)", "--lease", "\(leased.rawValue)", "--name", offer.machine, "--run-dir",
            directory.path,
        ]
        let child = try ChildProcess([turntable, "run"] + options + ["--"] + arguments, inherited: [leased.rawValue], output: log.rawValue)
        // The machine's end must be its alone, so that its end can be seen.
        _ = consume leased
        let deadline = Clock.now + Limits.hypervisorTime
        while true {
            if let record = try? directory.read(offer.machine), record.isIncoming, record.isAlive { return lease }
            let hasEnded = ProcessTable.startTime(of: child.identifier) == nil
            if hasEnded || Clock.now > deadline {
                let log = directory.logTail(of: offer.machine)
                lease.end(within: Limits.hypervisorTime)
                removeFile(directory.log(of: offer.machine))
                throw TurntableError(.hypervisor, "starting \(offer.machine) at the target", "it did not come up: \(log)")
            }
            Clock.sleep(.milliseconds(5))
        }
    }
}

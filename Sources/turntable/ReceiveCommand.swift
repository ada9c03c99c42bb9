import ArgumentParser
import Endpoint
import Foundation
import Hypervisors
import MigrationEngine
import Protection
import Transport
import TransportTCP
import TransportVerbs
import TurntableCore
import TurntableLinux
import WireFormat

struct ReceiveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "receive",
        abstract: "Wait for machines and run them here.",
        discussion: """
            A machine's QEMU is started from the source's own description, as far as it is allowed here: emulators of the \
            system's, options on a list, and paths under --allow-path. Or give the command after --; or let a controller start \
            it with `turntable run --incoming` and name its monitor with --qmp. Received machines outlive this command.

            EXAMPLES
              turntable receive --listen 10.5.0.2 --allow-path /srv/images --allow-peer alpha.example
              turntable receive --allow-path /srv/images --disk virtio0=/dev/vg/web --recycle
              turntable receive --once --listen 10.5.0.2:4906 -- qemu-system-x86_64 -m 2G -drive file=/dev/vg/web,format=raw
              turntable receive --listen 10.5.0.2 --transport rdma --fallback tcp --allow-path /srv/images
              turntable receive --allow-path /srv/images --require-token --trust-domain home=/etc/turntable/home.pem
              turntable receive --once --qmp /run/turntable/web/qmp.sock
              turntable receive --allow-path /srv/images --announce 127.0.0.1 --announce anchor.example --announce-site 1 \\
                  --announce-key /etc/turntable/web.key
            """)

    @OptionGroup var listening: ListeningOptions
    @Flag(help: "End after one machine, with its outcome as exit code.")
    var once = false
    @Option(
        name: .customLong("allow-path"),
        help: ArgumentHelp("A directory that descriptions may name paths under; repeatable.", valueName: "directory"))
    var allowPaths: [String] = []
    @Option(name: .customLong("max-memory"), help: ArgumentHelp("The most memory a described machine may have.", valueName: "size"))
    var maximumMemory: ByteCountOption?
    @Option(help: ArgumentHelp("The monitor of a QEMU that waits, started with `turntable run --incoming`.", valueName: "socket"))
    var qmp: String?
    @Flag(help: "Print one JSON object a line.")
    var json = false
    @Option(
        name: .customLong("resume-window"),
        help: ArgumentHelp("How long to keep what has come of a machine whose line is cut; the source may ask for less.", valueName: "time")
    )
    var resumeWindow = TimeOption(Limits.resumeWindow)
    @OptionGroup var tokens: TokenOptions
    @OptionGroup var carrier: TransportOptions
    @OptionGroup var announcement: AnnouncementOptions
    @OptionGroup var disks: ReceivedDisks
    @OptionGroup var protection: ProtectionOptions
    @OptionGroup var runDirectory: RunDirectoryOption
    @OptionGroup var stateDirectory: StateDirectoryOption
    @Argument(parsing: .postTerminator, help: "QEMU and its arguments for the machine that comes, after --.")
    var command: [String] = []

    func run() throws {
        try reportingErrors(json: json) {
            let address = try listening.address(protection, defaultPort: defaultPort)
            guard qmp == nil || command.isEmpty else { throw TurntableError(.usage, "receive", "--qmp and a command exclude each other") }
            guard once || (qmp == nil && command.isEmpty) else {
                throw TurntableError(.usage, "receive", "one command or monitor serves one machine", remedy: "add --once")
            }
            let security = try protection.security()
            let printer = EventPrinter(json: json)
            var options = TargetOptions()
            options.resumeWindow = resumeWindow.value
            options.sign = security.sign
            if let admit = try tokens.admission(security, stateDirectory) { options.admit = admit }
            let announcer = try announcement.announcer()
            if let (announcer, site) = announcer {
                options.announcing = { (machine, epoch) throws(TurntableError) in try announcer.prepare(machine, epoch, at: site) }
            }
            defer { announcer?.0.finish() }
            let reception = Reception(
                host: try QEMUHost(
                    origin(), directory: runDirectory.directory, disks: disks.disks(stateDirectory.sinkJournals),
                    kept: disks.isRecycling ? stateDirectory.keptMemory : nil, turntable: ownExecutable()),
                journals: try stateDirectory.journals(),
                options: options, once: once,
                reports: .init(
                    note: { printer.note($0) }, event: { printer.target($0) },
                    ended: { outcome, peer in
                        switch outcome {
                        case .success(let machine): printer.received(machine, from: peer)
                        case .failure(let error): printer.notReceived(error, from: peer)
                        }
                    }))
            Signals.onInterrupt { _ in reception.interrupt() }
            // After the signals' thread, and before any machine is started.
            Signals.ignoreChildren()
            let transport = try TCPTargetTransport(listening: address, security: security, allowedPeers: listening.allowPeers) {
                printer.note("turned away \($0)")
            }
            let served = try carried(transport, address, security.protection, printer)
            printer.listening(Address(host: address.host, port: transport.port))
            try reception.serve(served)
        }
    }

    /// What data streams come over. Over TCP they are always taken: it is the source that falls back.
    private func carried(
        _ tcp: TCPTargetTransport, _ address: Address, _ protection: LineProtection, _ printer: EventPrinter
    ) throws(TurntableError) -> any TargetTransport {
        guard case .rdma(let orTCP) = try carrier.kind() else { return tcp }
        do throws(TurntableError) {
            return try VerbsTargetTransport(tcp, listening: address, protection: protection) { printer.note("turned away \($0)") }
        } catch {
            guard orTCP else { throw error }
            printer.note("not over RDMA: \(error)")
            return tcp
        }
    }

    private func origin() -> QEMUHost.Origin {
        if let qmp { return .monitor(qmp) }
        if !command.isEmpty { return .command(command) }
        var policy = ReceivePolicy()
        policy.paths = allowPaths
        if let maximumMemory { policy.memory = maximumMemory.value }
        return .description(policy)
    }
}

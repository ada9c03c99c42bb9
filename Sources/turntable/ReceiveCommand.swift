import ArgumentParser
import Foundation
import Hypervisors
import MigrationEngine
import Transport
import TransportTCP
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
              turntable receive --listen 10.5.0.2 --allow-path /srv/images
              turntable receive --once --listen 10.5.0.2:4906 -- qemu-system-x86_64 -m 2G -drive file=/dev/vg/web,format=raw
              turntable receive --once --qmp /run/turntable/web/qmp.sock
            """)

    @Option(
        help: ArgumentHelp(
            "Address to listen on; give that of the line between the hosts. Nothing is encrypted yet.", valueName: "address:port"))
    var listen = "127.0.0.1:\(defaultPort)"
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
    @OptionGroup var runDirectory: RunDirectoryOption
    @Argument(parsing: .postTerminator, help: "QEMU and its arguments for the machine that comes, after --.")
    var command: [String] = []

    func run() throws {
        try reportingErrors(json: json) {
            guard let address = Address(parsing: listen, defaultPort: defaultPort) else {
                throw TurntableError(.usage, "--listen \(listen)", "it is no address:port")
            }
            guard qmp == nil || command.isEmpty else { throw TurntableError(.usage, "receive", "--qmp and a command exclude each other") }
            guard once || (qmp == nil && command.isEmpty) else {
                throw TurntableError(.usage, "receive", "one command or monitor serves one machine", remedy: "add --once")
            }
            let printer = EventPrinter(json: json)
            let receiver = Receiver(
                host: QEMUHost(origin(), directory: runDirectory.directory, turntable: ownExecutable()), printer: printer, once: once)
            Signals.onInterrupt { _ in receiver.interrupt() }
            // After the signals' thread, and before any machine is started.
            Signals.ignoreChildren()
            let transport = try TCPTargetTransport(listening: address) { printer.note("turned away \($0)") }
            printer.listening(Address(host: address.host, port: transport.port))
            try receiver.serve(transport)
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

/// Takes connections and gives each session a thread.
private final class Receiver: Sendable {
    private struct State {
        var sessions: [AttachmentID: TargetMigration] = [:]
        var isInterrupted = false
        var outcome: Result<Void, TurntableError>?
    }
    private let host: any TargetHost
    private let printer: EventPrinter
    private let once: Bool
    private let state = Monitor(State())

    init(host: any TargetHost, printer: EventPrinter, once: Bool) {
        self.host = host
        self.printer = printer
        self.once = once
    }

    /// Ctrl-C: what is not handed off yet ends; what is comes to its end.
    func interrupt() {
        let sessions = state.update { state in
            state.isInterrupted = true
            return Array(state.sessions.values)
        }
        for session in sessions { _ = session.cancel("the receiver was interrupted") }
    }

    func serve(_ transport: any TargetTransport) throws(TurntableError) {
        while true {
            let (isDone, isIdle) = state.read { (once && $0.outcome != nil || $0.isInterrupted, $0.sessions.isEmpty) }
            if isDone && isIdle { break }
            switch try transport.accept(within: Limits.pollTime) {
            case .control(let control, let peer): start(control, peer)
            case .data(let receiver, let preface):
                guard let session = state.read({ $0.sessions[preface.attachment] }) else {
                    printer.note("turned away a data stream of a session that is not here")
                    receiver.shutDown()
                    continue
                }
                _ = session.add(receiver, stream: Int(preface.stream))
            case nil: continue
            }
        }
        switch state.read({ $0.outcome }) {
        case .success?: return
        case .failure(let error)?: throw error
        case nil: throw TurntableError(.cancelled, "receiving", "interrupted before a machine came")
        }
    }

    private func start(_ control: any ControlChannel, _ peer: String) {
        let isFull = state.read { $0.isInterrupted || $0.sessions.count >= (once ? 1 : Limits.sessions) || (once && $0.outcome != nil) }
        if isFull {
            try? control.send(.refused(Refusal(epoch: Epoch(0), reason: "this receiver is busy")))
            return printer.note("turned away \(peer): busy")
        }
        let session = TargetMigration(control: control, host: host) { [printer] in printer.target($0) }
        state.update { $0.sessions[control.attachment] = session }
        _ = WorkerThread("tt-target") { [self] in
            let outcome: Result<Void, TurntableError>
            do throws(TurntableError) {
                let result = try session.run()
                printer.received(result, from: peer)
                outcome = .success(())
            } catch {
                printer.notReceived(error, from: peer)
                outcome = .failure(error)
            }
            control.shutDown()
            state.update {
                $0.sessions[control.attachment] = nil
                $0.outcome = outcome
            }
        }
    }
}

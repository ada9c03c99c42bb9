import ArgumentParser
import Capability
import ControlShim
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

struct SendCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "send",
        abstract: "Move a running machine to another host.",
        discussion: """
            Sends the machine's memory while it runs, pauses it when what is left fits the downtime budget, and hands it over. \
            When the budget cannot be kept the machine runs on here and the figures say why.

            EXAMPLES
              turntable send web target.example
              turntable send web 10.5.0.2:4906 --downtime 150ms --rate 1gbit --rtt 175ms
              turntable send web target.example --disk all --keep-memory
              turntable send web 10.5.0.2:4906 --peer beta.example --streams 4 --json
              turntable send web beta.example --token web.token --via link.example=link.pem
              turntable send web 10.5.0.2 --transport rdma --fallback tcp
              turntable send web 10.5.0.2 --announce 127.0.0.1 --announce anchor.example --announce-site 0 --announce-target 1 \\
                  --announce-key /etc/turntable/web.key
              turntable send web 10.5.0.2:4906 --protection none      (a line of your own, and the target says so too)
            """)

    @Argument(help: "The machine, as `turntable status` lists it.") var machine: String
    @Argument(help: ArgumentHelp("Where `turntable receive` listens.", valueName: "host:port")) var target: String
    @Option(help: ArgumentHelp("The longest the machine may stand still.", valueName: "time")) var downtime = TimeOption(.milliseconds(300))
    @Option(
        help: ArgumentHelp("The bandwidth to use, such as that of a reserved lightpath. Default: what the line gives.", valueName: "rate"))
    var rate: RateOption?
    @Option(help: ArgumentHelp("The line's round trip. Default: measured.", valueName: "time")) var rtt: TimeOption?
    @Option(help: ArgumentHelp("Data streams, 1 to \(Limits.streams).", valueName: "n")) var streams = 1
    @Option(help: ArgumentHelp("Congestion control. Default: cubic, or bbr on a long line with no --rate.", valueName: "name"))
    var congestion: String?
    @Option(
        name: .customLong("send-method"),
        help: ArgumentHelp("copied, spliced or zero-copy. Default: what costs least, measured.", valueName: "method")) var sendMethod:
        String?
    @Option(
        name: .customLong("dirty-log"),
        help: ArgumentHelp(
            "pagemap-scan (Linux 6.7) or soft-dirty (older; the machine stands still for a moment each round). Default: the first that this kernel has.",
            valueName: "method")) var dirtyLog: String?
    @Option(
        name: .customLong("resume-window"),
        help: ArgumentHelp("How long a cut line is waited for while the machine runs on; 0s gives up at once.", valueName: "time"))
    var resumeWindow = TimeOption(Limits.resumeWindow)
    @Option(
        help: ArgumentHelp(
            "before, after or off: when the target's memory is compared with the source's. Before the machine runs costs blackout.",
            valueName: "when")) var verify = "after"
    @Option(
        help: ArgumentHelp("The name or address that the target's certificate must be for. Default: the one it is reached by.", valueName: "host"))
    var peer: String?
    @Option(help: ArgumentHelp("A token that permits the move, for a target that demands one.", valueName: "file")) var token: String?
    @Option(
        help: ArgumentHelp(
            "A link element on the way, and the file with its public key; repeatable, in their order. Needs --token.", valueName: "host:port=file"))
    var via: [String] = []
    @Flag(
        name: .customLong("keep-memory"),
        help: """
            When the machine has left, keep what its memory held in the state directory: at its return `receive --recycle` has only what differs \
            sent. Takes as much of the disk as it used memory.
            """) var keepsMemory = false
    @Option(
        name: .customLong("announce-target"),
        help: ArgumentHelp("With --announce: which of the endpoint's sites the target is; its traffic goes there from the hand-off on.", valueName: "n"))
    var targetSite: UInt16?
    @Flag(help: "Print one JSON object a line.") var json = false
    @OptionGroup var announcement: AnnouncementOptions
    @OptionGroup var carrier: TransportOptions
    @OptionGroup var disks: SentDisks
    @OptionGroup var protection: ProtectionOptions
    @OptionGroup var stateDirectory: StateDirectoryOption
    @OptionGroup var runDirectory: RunDirectoryOption

    func run() throws {
        try reportingErrors(json: json) {
            let address = try targetAddress(target, defaultPort: defaultPort)
            try checkStreams(streams)
            var line = LineOptions()
            line.rate = rate?.value
            line.roundTrip = rtt?.value
            line.streams = streams
            line.congestionControl = congestion
            if let sendMethod {
                guard let method = SendMethod(rawValue: sendMethod) else {
                    throw TurntableError(
                        .usage, "--send-method \(sendMethod)", "it must be \(SendMethod.allCases.map(\.rawValue).joined(separator: ", "))")
                }
                line.sendMethod = method
            }
            if let dirtyLog, DirtyLogMethod(rawValue: dirtyLog) == nil {
                throw TurntableError(
                    .usage, "--dirty-log \(dirtyLog)", "it must be \(DirtyLogMethod.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            try disks.check()
            var options = MigrationOptions()
            options.streams = streams
            options.budget = downtime.value
            options.statedRate = rate?.value
            options.roundTrip = rtt?.value
            options.resumeWindow = resumeWindow.value
            options.verification = try verification()
            options.peer = "\(address)"
            let security = try protection.security()
            if let token { options.token = try TokenFile.read(token).encoded }
            options.believes = security.believes(from: peer ?? address.host)
            let passage = try passage(options.token, security)
            let announcer = try announcer(for: &options)
            defer { announcer?.finish() }

            let printer = EventPrinter(json: json)
            // Before anything is asked of its monitor, which has one user at a time.
            let path = runDirectory.directory.migrationSocket(of: machine)
            if (try? MigrationDoor.ask("status", at: path)) != nil {
                throw TurntableError(
                    .refused, "moving \(machine)", "it is being moved already", remedy: "see `turntable status \(machine)`")
            }
            let source = try QEMUSourceMachine(
                machine, in: runDirectory.directory, dirtyLog: dirtyLog.flatMap { DirtyLogMethod(rawValue: $0) }, disks: disks.selection,
                volume: disks.volume(of: machine) { printer.note($0) })
            if let left = disks.describe(left: source.drivesLeft) { printer.note(left) }
            let budget = PinBudget()
            let migration = SourceMigration(
                machine: source, transport: try transport(address, line, security, passage, budget, printer),
                journals: try stateDirectory.journals(),
                options: options
            ) { printer.source($0) }
            Signals.onInterrupt { _ in
                if !migration.cancel() { printer.note("too late to cancel: the right to run was handed off") }
            }
            let door = try MigrationDoor(path: path, status: { printer.lastStatus }, cancel: { migration.cancel() }) { (rate) throws(TurntableError) in
                try migration.restate(rate)
            }
            defer { door.close() }
            let report: MigrationReport
            do throws(TurntableError) { report = try migration.run() } catch {
                printer.sent(migration.sent)
                throw error
            }
            if case .rdma = try carrier.kind() { printer.note("RDMA: at most \(budget.peak) of memory was pinned here at once") }
            printer.completed(report, to: address)
            try checkMemory(report)
            if keepsMemory { keepMemory(of: source, printer) }
        }
    }

    /// Who tells the keepers of the machine's address; nil if nobody is to be told.
    private func announcer(for options: inout MigrationOptions) throws(TurntableError) -> Announcer? {
        guard let (announcer, here) = try announcement.announcer() else { return nil }
        guard let targetSite else { throw TurntableError(.usage, "announcing machines", "--announce-target is missing") }
        options.announcing = { (machine, epoch, isHere) throws(TurntableError) in
            try announcer.prepare(machine, epoch, at: isHere ? here : targetSite)
        }
        return announcer
    }

    /// For link elements on the way; nil if there are none.
    private func passage(_ token: [UInt8], _ security: LineSecurity) throws(TurntableError) -> LinkPassage? {
        guard !via.isEmpty else { return nil }
        guard via.count <= Limits.linkElements else {
            throw TurntableError(.usage, "--via", "there are \(via.count) elements, the most is \(Limits.linkElements)")
        }
        guard case .sealed(let identity) = security, !token.isEmpty else {
            throw TurntableError(
                .usage, "--via", "link elements let nobody through without a token and protection", remedy: "say --token, and not --protection none")
        }
        let elements = try via.map { (text) throws(TurntableError) -> LinkPassage.Element in
            let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2, let address = Address(parsing: parts[0], defaultPort: defaultLinkPort) else {
                throw TurntableError(.usage, "--via \(text)", "it is no host:port=FILE")
            }
            return LinkPassage.Element(address: address, key: try LinkPublicKey(file: parts[1]))
        }
        return LinkPassage(token: token, elements: elements, identity: identity)
    }

    /// The machine has left: what goes wrong here is no failure of its migration.
    private func keepMemory(of source: QEMUSourceMachine, _ printer: EventPrinter) {
        do throws(TurntableError) {
            try source.keepMemory(in: stateDirectory.keptMemory)
        } catch {
            printer.note("its memory is not kept: \(error)")
        }
    }

    private func transport(
        _ address: Address, _ line: LineOptions, _ security: LineSecurity, _ passage: LinkPassage?, _ budget: PinBudget, _ printer: EventPrinter
    ) throws(TurntableError) -> any SourceTransport {
        guard case .rdma(let orTCP) = try carrier.kind() else {
            return TCPSourceTransport(address: address, options: line, security: security, peer: peer, passage: passage)
        }
        guard passage == nil else {
            throw TurntableError(.usage, "--via", "link elements forward TCP, not RDMA", remedy: "leave out --transport rdma, or --via")
        }
        let fallback: @Sendable (TurntableError) -> Void = { why in printer.note("not over RDMA: \(why)") }
        return VerbsSourceTransport(
            address: address, options: line, security: security, peer: peer, budget: budget, fallback: orTCP ? fallback : nil)
    }

    private func verification() throws(TurntableError) -> Verification {
        switch verify {
        case "before": return .before
        case "after": return .after
        case "off": return .off
        default: throw TurntableError(.usage, "--verify \(verify)", "it must be before, after or off")
        }
    }

    private func checkMemory(_ report: MigrationReport) throws(TurntableError) {
        guard let verification = report.verification, verification.stripesDiffering > 0 else { return }
        throw TurntableError(
            .damaged, "comparing the memory of \(machine)",
            "it runs at the target, and \(verification.stripesDiffering) of its \(verification.stripesCompared) MiB are not what they were here "
                + "(\(verification.examples.joined(separator: ", "))); the machine's remains here are kept, stopped",
            remedy: "do not trust the machine; tell us, with both ends' output")
    }
}

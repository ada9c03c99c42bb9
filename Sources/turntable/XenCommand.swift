import ArgumentParser
import MigrationEngine
import Protection
import Transport
import TransportTCP
import TurntableCore
import TurntableLinux
import WireFormat
import XenMove

struct XenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "xen", abstract: "Move domains of Xen, without xl.", subcommands: [XenMigrateCommand.self])
}

struct XenMigrateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate",
        abstract: "Move a running domain to another host of Xen.",
        discussion: """
            On the target `turntable xl-receive` waits. libxl there makes the domain and its devices while the guest runs on here; then its memory \
            goes by turntable-xen-helper, and the guest runs there as soon as the last of it is there and the journal there says so. Until the hand-off \
            Ctrl-C, or any failure, leaves it running here. After one that leaves it suspended (exit code 8) the same command asks the target again, \
            and goes on or resumes it here.

            The memory of a PV domain is carried by Xen's own helpers at both ends, and its standstill is theirs but for the disks. The device model of an HVM \
            domain is started at the target while the guest stands still, which --downtime does not bound.

            The domain's journal is kept under its UUID: `turntable journal UUID`.

            EXAMPLES
              turntable xen migrate web target.example
              turntable xen migrate web 10.5.0.2 --peer beta.example --downtime 150ms --rate 1gbit --streams 4
              turntable xen migrate web target.example --disk all             (at the target: turntable xl-receive --disk all)
              turntable xen migrate web 10.5.0.2:4909 --protection none      (a line of your own, and the target says so too)
            """)

    @Argument(help: "The domain, by its name or number.") var domain: String
    @Argument(help: ArgumentHelp("Where `turntable xl-receive` listens.", valueName: "host:port")) var target: String
    @Option(help: ArgumentHelp("The longest the domain may stand still.", valueName: "time")) var downtime = TimeOption(.milliseconds(300))
    @Option(
        help: ArgumentHelp("The bandwidth to use, such as that of a reserved lightpath. Default: what the line gives.", valueName: "rate"))
    var rate: RateOption?
    @Option(help: ArgumentHelp("Data streams, 1 to \(Limits.streams).", valueName: "n")) var streams = 1
    @Option(help: ArgumentHelp("An address to be reached at by the target; repeatable. Default: all of this host's.", valueName: "address"))
    var address: [String] = []
    @Option(
        help: ArgumentHelp(
            "before, after or off: when the target's memory is compared with the source's; for PVH and HVM without devices, whose rings differ.",
            valueName: "when")) var verify = "off"
    @Option(
        help: ArgumentHelp("The name or address that the target's certificate must be for. Default: the one it is reached by.", valueName: "host"))
    var peer: String?
    @Option(
        name: .customLong("disk"),
        help: ArgumentHelp(
            "A disk that moves with the domain, or all that it writes; logical volumes only; repeatable. Default: none, its storage is the same on both hosts.",
            valueName: "name|all"))
    var disks: [String] = []
    @Flag(
        help: """
            Move it although the journal here says that another host took it over, or although something else than a move of Turntable's has \
            suspended it: you know that it runs nowhere else, and that nothing else moves or saves it.
            """) var anew = false
    @Flag(help: "Print one JSON object a line.") var json = false
    @OptionGroup var protection: ProtectionOptions
    @OptionGroup var stateDirectory: StateDirectoryOption

    func run() throws {
        try reportingErrors(json: json) {
            let address = try targetAddress(target, defaultPort: defaultXLPort)
            try checkStreams(streams)
            let security = try protection.security()
            var line = LineOptions()
            line.rate = rate?.value
            line.isControlOnly = true
            let printer = EventPrinter(json: json)
            let began = Clock.now
            let transport = TCPSourceTransport(address: address, options: line, security: security, peer: peer)
            let move = DomainMove(
                LibxlProgram(path: libxlProgramPath()),
                DomainMove.Settings(
                    domain: domain, peer: "\(address)", journals: try stateDirectory.journals(), lockDirectory: stateDirectory.path,
                    environment: environment(address), isAnew: anew, believes: security.believes(from: peer ?? address.host)),
                connect: { () throws(TurntableError) in try connectToXLReceive(transport) }, event: printer.source)
            Signals.onInterrupt { _ in move.cancel() }
            if let report = try move.run() {
                printer.completed(report, to: address)
            } else {
                printer.moved(domain, to: address, seconds: (Clock.now - began).seconds)
            }
        }
    }

    /// What the helper is to know.
    private func environment(_ address: Address) -> [String: String] {
        var values = protection.helperEnvironment
        values[HelperSetting.service] = "\(address)"
        values[HelperSetting.stateDirectory] = stateDirectory.path
        values["TURNTABLE_DOWNTIME"] = "\(downtime.value.value)ns"
        values["TURNTABLE_STREAMS"] = "\(streams)"
        values["TURNTABLE_RATE"] = rate.map { "\(Int($0.value.bitsPerSecond))bit" } ?? ""
        values["TURNTABLE_ADDRESS"] = self.address.joined(separator: " ")
        values["TURNTABLE_PEER"] = peer ?? address.host
        values["TURNTABLE_VERIFY"] = verify
        values["TURNTABLE_DISKS"] = disks.joined(separator: " ")
        return values
    }
}

extension ProtectionOptions {
    /// The same for turntable-xen-helper.
    var helperEnvironment: [String: String] { ["TURNTABLE_KEYS": keys, "TURNTABLE_PROTECTION": protection] }
}

/// What `turntable xl-receive` does for `turntable xen migrate` of other hosts.
struct DomainTaking: Sendable {
    /// What is run, in an environment that tells the helper where the keys are.
    let command: [String]
    private let stateDirectory: StateDirectory

    init(_ protection: ProtectionOptions, _ stateDirectory: StateDirectory) {
        self.stateDirectory = stateDirectory
        let settings = protection.helperEnvironment.map { "\($0.key)=\($0.value)" }.sorted()
        command = ["env"] + settings + [libxlProgramPath(), "take", stateDirectory.path]
    }

    /// The source asks when its helper has ended, so what is still undecided is refused, and never runs here.
    func resolve(_ query: Query, sign: @escaping @Sendable ([UInt8]) -> [UInt8]) throws(TurntableError) -> Resolution {
        try TargetResolver(host: NoHost(), journals: stateDirectory.journals(), sign: sign).resolve(query)
    }

    /// The helpers are hosts of one domain each; this process has none.
    private final class NoHost: TargetHost {
        func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine {
            throw TurntableError(.refused, "the offer of \(offer.machine)", "no machine is taken here")
        }
        func find(_ offer: Offer) throws(TurntableError) -> (any TargetMachine)? { nil }
        func isWaiting(_ machine: String, _ session: SessionID) -> Bool { false }
    }
}

/// turntable-xen lies beside this program.
private func libxlProgramPath() -> String { "\(ownExecutable())-xen" }

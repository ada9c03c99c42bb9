import ArgumentParser
import Orchestration
import TurntableCore
import TurntableLinux

struct LightpathsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lightpaths", abstract: "Reserve and set up lightpaths in a network of Linux links, for orchestrators.",
        discussion: """
            The network is described by a file: docs/lightpaths.md. What is set up outlives this program; started again it makes the links \
            what its store says. Runs `ip` and `tc`, as root.

            If the file names borders and peers, paths also lead into other networks: an end there is <its network>:<node>, and \
            GET /v1/networks shows which are known and why a border is not used.

            EXAMPLES
              turntable-orchestrator lightpaths network.json --user control.example
              turntable-orchestrator lightpaths network.json --user control.example --nsi-network urn:ogf:network:net.example:2026
              turntable ctl line west east --rate 400mbit --controller https://net.west.example:4909 \\
                --at amsterdam,urn:ogf:network:east.example:2026:chicago
            """)

    @Argument(help: "The file that describes nodes and links.") var topology: String
    @Option(help: ArgumentHelp("Where lightpaths are asked for.", valueName: "address:port")) var listen = "0.0.0.0:\(lightpathsPort)"
    @Option(help: ArgumentHelp("Where reservations are remembered.", valueName: "file")) var store = "/var/lib/turntable/lightpaths.sqlite"
    @Option(
        name: .customLong("user"), help: ArgumentHelp("An orchestrator that may ask, as its certificate names it; repeatable.", valueName: "host"))
    var users: [String] = []
    @Option(
        name: .customLong("nsi-network"),
        help: ArgumentHelp(
            "Answer the NSI Connection Service 2 at /v1/nsi as well, under this name; a node is <name>:<node>, this provider <name>:nsa.",
            valueName: "urn:ogf:network:…"))
    var network: String?
    @Option(
        help: ArgumentHelp(
            "A lightpath that nobody commits, or keeps, ends after this; an orchestrator keeps it every 30 s.", valueName: "seconds"))
    var lease = Int(Limits.lightpathHoldTime.seconds)
    @Flag(help: "Print one JSON object when requests are taken.") var json = false
    @OptionGroup var keys: KeysOption

    func run() async throws {
        try await reportingErrors {
            guard let address = Address(parsing: listen, defaultPort: lightpathsPort) else {
                throw TurntableError(.usage, "--listen \(listen)", "it is no address:port")
            }
            guard (1...86_400).contains(lease) else { throw TurntableError(.usage, "--lease \(lease)", "it must be 1 to 86400 seconds") }
            let service = LightpathService(
                identity: try keys.identity(), address: address, topology: topology, store: store, users: Set(users.map { $0.lowercased() }),
                network: network, holdTime: .seconds(Double(lease)), log: makeLog("lightpaths"))
            try await service.run { [json] port in sayListening(address.host, port, json) }
        }
    }
}

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

            EXAMPLES
              turntable-orchestrator lightpaths network.json --user control.example
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
    @Flag(help: "Print one JSON object when requests are taken.") var json = false
    @OptionGroup var keys: KeysOption

    func run() async throws {
        try await reportingErrors {
            guard let address = Address(parsing: listen, defaultPort: lightpathsPort) else {
                throw TurntableError(.usage, "--listen \(listen)", "it is no address:port")
            }
            let service = LightpathService(
                identity: try keys.identity(), address: address, topology: topology, store: store, users: Set(users.map { $0.lowercased() }),
                network: network, log: makeLog("lightpaths"))
            try await service.run { [json] port in sayListening(address.host, port, json) }
        }
    }
}

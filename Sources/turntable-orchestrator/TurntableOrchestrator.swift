import ArgumentParser
import Foundation
import Logging
import Orchestration
import Protection
import TurntableCore
import TurntableLinux

@main
struct TurntableOrchestrator: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "turntable-orchestrator",
        abstract: "Decides which machines move, and has that done by agents at their sites.",
        discussion: """
            One `serve`, or several that share an etcd, takes requests and carries them out. At each site an `agent` holds room, receives \
            and sends. Everybody shows a certificate (`turntable keys`). See docs/orchestrator.md.

            EXAMPLES
              At each site:    turntable-orchestrator agent --listen 10.5.0.2:4907 --receive 10.5.0.2 --orchestrator control.example \\
                                   --memory 64G --processors 32 --allow-path /srv/images
              For all:         turntable-orchestrator serve --operator alice.example
              An operator:     turntable ctl migrate web amsterdam --downtime 200ms
            """,
        version: "0.1.0", subcommands: [ServeCommand.self, AgentCommand.self, LightpathsCommand.self, ControlCommand.self, WebTokenCommand.self])

    /// As the argument parser's own, but a wrong command line ends with the code that every command of Turntable uses for it.
    static func main() async {
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand { try await command.run() } else { try command.run() }
        } catch {
            guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
            FileHandle.standardError.write(Data((fullMessage(for: error) + "\n").utf8))
            Foundation.exit(TurntableError.Kind.usage.exitCode)
        }
    }
}

struct KeysOption: ParsableArguments {
    @Option(
        name: .customLong("keys"),
        help: ArgumentHelp("Directory with the key and certificate to show, as `turntable keys` makes them; also $TURNTABLE_KEYS.", valueName: "directory"))
    var path: String = environmentValue("TURNTABLE_KEYS") ?? "/etc/turntable"

    func identity() throws(TurntableError) -> HostIdentity { try HostIdentity(directory: path) }
}

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Take requests, and carry them out while this is the master.",
        discussion: """
            EXAMPLES
              turntable-orchestrator serve --operator alice.example
              turntable-orchestrator serve --operator alice.example --store etcd://10.5.0.1:2379,10.5.0.2:2379
            """)

    @Option(help: ArgumentHelp("Where to take requests.", valueName: "address:port")) var listen = "0.0.0.0:4908"
    @Option(
        help: ArgumentHelp(
            "Where to take requests of Web clients, who show a token (`turntable token web`) and no certificate. Default: nowhere.", valueName: "address:port"))
    var web: String?
    @Option(
        help: ArgumentHelp(
            "A file, for one orchestrator; or etcd://host:port[,host:port…] for several (etcds:// with TLS).", valueName: "place"))
    var store = "/var/lib/turntable/orchestrator.sqlite"
    @Option(help: ArgumentHelp("Whose machines these are; orchestrators of one domain share them.", valueName: "name")) var domain = "home"
    @Option(
        name: .customLong("operator"),
        help: ArgumentHelp("Who may change anything, as the certificate names them; repeatable. Others only look.", valueName: "host"))
    var operators: [String] = []
    @Option(help: ArgumentHelp("Who may have which machine moved (docs/tokens.md). Default: operators, any.", valueName: "file")) var policy: String?
    @Option(
        name: .customLong("domain-key"),
        help: ArgumentHelp("The domain's key, as `turntable keys domain` makes it: migrations get tokens, which sites may demand.", valueName: "file"))
    var domainKey: String?
    @Option(
        name: .customLong("nsi-name"),
        help: ArgumentHelp("How providers of lightpaths by NSI know this domain: urn:ogf:network:…:nsa.", valueName: "urn"))
    var nsiName: String?
    @Option(
        name: .customLong("nsi-url"),
        help: ArgumentHelp(
            "How they reach this orchestrator. Default: https://, the first name in its certificate, and the port.", valueName: "https://host:port"))
    var nsiURL: String?
    @Flag(help: "Print one JSON object when requests are taken.") var json = false
    @OptionGroup var keys: KeysOption

    func run() async throws {
        try await reportingErrors {
            guard let address = Address(parsing: listen, defaultPort: orchestratorPort) else {
                throw TurntableError(.usage, "--listen \(listen)", "it is no address:port")
            }
            let web = try web.map { (text) throws(TurntableError) in
                guard let address = Address(parsing: text, defaultPort: webPort) else { throw TurntableError(.usage, "--web \(text)", "it is no address:port") }
                return address
            }
            try MachineName.check(domain)
            let identity = try keys.identity()
            let nsi = nsiName.map { NSIRequester(name: $0, url: nsiURL ?? "https://\(identity.names):\(address.port)") }
            let orchestrator = Orchestrator(
                identity: identity, address: address, web: web, domain: domain, store: store, operators: Set(operators.map { $0.lowercased() }),
                policy: policy, domainKey: try domainKey.map { (path) throws(TurntableError) in try DomainKey.read(path) }, nsi: nsi,
                log: makeLog("orchestrator"))
            try await orchestrator.run { [json] port, isForWeb in
                if isForWeb { sayListening(web?.host ?? "", port, json, "listening for Web clients") } else { sayListening(address.host, port, json) }
            }
        }
    }
}

struct AgentCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent", abstract: "Hold room, receive and send at this site, for orchestrators.",
        discussion: """
            Starts `turntable receive` and `turntable send` when an orchestrator asks for it, and says how they stand. They go on if the \
            agent is killed; started again, it finds them.

            EXAMPLES
              turntable-orchestrator agent --orchestrator control.example --receive 10.5.0.2 --memory 64G --processors 32 --allow-path /srv/images
            """)

    @Option(help: ArgumentHelp("Where orchestrators ask.", valueName: "address:port")) var listen = "0.0.0.0:4907"
    @Option(
        name: .customLong("orchestrator"),
        help: ArgumentHelp("An orchestrator that may ask, as its certificate names it; repeatable.", valueName: "host"))
    var orchestrators: [String] = []
    @Option(help: ArgumentHelp("The address at which machines arrive, each at a port of its own.", valueName: "address")) var receive: String
    @Option(help: ArgumentHelp("Memory for machines.", valueName: "size")) var memory: String
    @Option(help: ArgumentHelp("Processors for machines.", valueName: "n")) var processors: Int
    @Option(help: ArgumentHelp("Where disks of machines that come are kept. Default: machines' disks stay where they are.", valueName: "directory"))
    var disks: String?
    @Option(
        name: .customLong("allow-path"),
        help: ArgumentHelp("A directory that machines' descriptions may name paths under; repeatable.", valueName: "directory"))
    var allowPaths: [String] = []
    @Option(
        name: .customLong("trust-domain"),
        help: ArgumentHelp(
            "Hold, receive and move only with a token of this domain, whose public key is in the file; repeatable. Default: orchestrators need none.",
            valueName: "name=file"))
    var trustedDomains: [String] = []
    @Option(
        name: .customLong("announce"),
        help: ArgumentHelp(
            "A gateway to tell where machines are whose address stays, the one at this site first; repeatable. See docs/endpoint.md.",
            valueName: "address:port"))
    var keepers: [String] = []
    @Option(help: ArgumentHelp("NAME.key of each such machine; others are not announced.", valueName: "directory"))
    var announceKeys: String = "/etc/turntable/endpoints"
    @Option(help: ArgumentHelp("All sites, in the order of the gateways' lists, with commas between.", valueName: "names")) var announceSites: String?
    @Option(
        name: .customLong("state-dir"),
        help: ArgumentHelp("Where journals and the agent's own state are; also $TURNTABLE_STATE_DIR.", valueName: "directory"))
    var stateDirectory: String = environmentValue("TURNTABLE_STATE_DIR") ?? "/var/lib/turntable"
    @Option(
        name: .customLong("run-dir"),
        help: ArgumentHelp("Where this host keeps track of its machines; also $TURNTABLE_RUN_DIR.", valueName: "directory"))
    var runDirectory: String = environmentValue("TURNTABLE_RUN_DIR") ?? "/run/turntable"
    @Option(help: ArgumentHelp("The program `turntable`. Default: the one beside this.", valueName: "path")) var turntable: String?
    @Flag(help: "Print one JSON object when requests are taken.") var json = false
    @OptionGroup var keys: KeysOption

    func run() async throws {
        try await reportingErrors {
            guard let address = Address(parsing: listen, defaultPort: agentPort) else {
                throw TurntableError(.usage, "--listen \(listen)", "it is no address:port")
            }
            guard let memory = ByteCount(parsing: memory), memory.value > 0 else { throw TurntableError(.usage, "--memory \(memory)", "it is no size") }
            guard processors > 0 else { throw TurntableError(.usage, "--processors \(processors)", "it must be more than 0") }
            let sites = announceSites?.split(separator: ",").map(String.init) ?? []
            let endpoints = keepers.isEmpty && sites.isEmpty ? nil : try SiteEndpoints(keepers: keepers, keys: announceKeys, sites: sites)
            let environment = ["TURNTABLE_KEYS": keys.path, "TURNTABLE_RUN_DIR": runDirectory, "TURNTABLE_STATE_DIR": stateDirectory]
            let site = SiteService(
                identity: try keys.identity(), address: address, orchestrators: Set(orchestrators.map { $0.lowercased() }), memory: memory,
                processors: processors, disks: try diskDirectory(), receiveAddress: receive,
                receiveOptions: allowPaths.flatMap { ["--allow-path", $0] } + trustedDomains.flatMap { ["--trust-domain", $0] }
                    + (trustedDomains.isEmpty ? [] : ["--require-token"]),
                endpoints: endpoints, trustedDomains: trustedDomains, tokenDirectory: "\(stateDirectory)/tokens", directory: "\(stateDirectory)/agent",
                turntable: turntable ?? sibling("turntable"), environment: environment, log: makeLog("agent"))
            try await site.run { [json] port in sayListening(address.host, port, json) }
        }
    }
}

extension AgentCommand {
    /// As receivers and agents that are started elsewhere find it.
    private func diskDirectory() throws(TurntableError) -> String? {
        guard let disks else { return nil }
        guard let attributes = try? FileManager.default.attributesOfItem(atPath: disks), attributes[.type] as? FileAttributeType == .typeDirectory else {
            throw TurntableError(.usage, "--disks \(disks)", "there is no such directory", remedy: "make it")
        }
        return URL(filePath: disks).standardized.path
    }
}

let lightpathsPort: UInt16 = 4909
let agentPort: UInt16 = 4907
let orchestratorPort: UInt16 = 4908
let webPort: UInt16 = 4912

/// A program beside this one.
func sibling(_ name: String) -> String {
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
    return URL(filePath: own).deletingLastPathComponent().appending(path: name).path
}

func makeLog(_ label: String) -> Logger {
    var log = Logger(label: label) { StreamLogHandler.standardError(label: $0) }
    log.logLevel = environmentValue("TURNTABLE_LOG").flatMap { Logger.Level(rawValue: $0) } ?? .notice
    return log
}

func sayListening(_ host: String, _ port: UInt16, _ json: Bool, _ event: String = "listening") {
    let address = Address(host: host, port: port)
    let text = json ? #"{"address":"\#(address)","event":"\#(event)"}"# : "\(event) on \(address)"
    FileHandle.standardOutput.write(Data((text + "\n").utf8))
}

/// Runs a command's work and turns its error into one line and an exit code.
func reportingErrors(_ body: () async throws -> Void) async throws {
    do { try await body() } catch let code as ExitCode { throw code } catch {
        let known = error as? TurntableError ?? TurntableError(.unsupported, "serving", "\(error)")
        FileHandle.standardError.write(Data("turntable: \(known)\n".utf8))
        throw ExitCode(known.kind.exitCode)
    }
}

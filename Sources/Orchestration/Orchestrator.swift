// What the commands of `turntable-orchestrator` start.

internal import AsyncHTTPClient
internal import Capability
public import Crypto
internal import Foundation
internal import Lightpaths
public import Logging
internal import NIOCore
public import Protection
public import TurntableCore
public import TurntableLinux

/// An orchestrator: the API, and the work of the master while it is elected.
public struct Orchestrator: Sendable {
    public var identity: HostIdentity
    public var address: Address
    /// Where Web clients ask, who have a token and no certificate.
    public var web: Address?
    public var domain: String
    /// A path, or etcd://host:port[,host:port…]; etcds:// with TLS.
    public var store: String
    public var operators: Set<String>
    /// A file that says who may have what moved (Policy.swift).
    public var policy: String?
    /// What the domain signs tokens with.
    public var domainKey: Curve25519.Signing.PrivateKey?
    /// Who it is to providers of lightpaths by NSI.
    public var nsi: NSIRequester?
    public var log: Logger

    public init(
        identity: HostIdentity, address: Address, web: Address? = nil, domain: String, store: String, operators: Set<String>, policy: String?,
        domainKey: Curve25519.Signing.PrivateKey?, nsi: NSIRequester? = nil, log: Logger
    ) {
        self.identity = identity
        self.address = address
        self.web = web
        self.domain = domain
        self.store = store
        self.operators = operators
        self.policy = policy
        self.domainKey = domainKey
        self.nsi = nsi
        self.log = log
    }

    /// Until the process is asked to end.
    /// - Parameter listening: Told the port, and whether it is that for Web clients.
    public func run(listening: @escaping @Sendable (UInt16, _ isForWeb: Bool) -> Void) async throws {
        let gate = domainKey.map { WebGate(domain: domain, key: $0.publicKey) }
        guard web == nil || gate != nil else {
            throw TurntableError(.usage, "--web", "there is no key to check tokens with", remedy: "name it with --domain-key")
        }
        let client = try Client(identity: identity)
        let store = try await Stores.open(store, domain: domain, client)
        // Two of one name are told apart.
        let name = "\(identity.names) \(UUID().uuidString.prefix(8).lowercased())"
        let policy = try policy.map { (path) throws(TurntableError) in try StandingPolicy(file: path) }
        let authority = Authority(domain: domain, operators: operators, policy: policy, key: domainKey)
        let api = OrchestratorAPI(store: store, name: name, authority: authority, nsi: nsi)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                await Mastership(store: store, name: name, log: log).run { term in
                    await Master(store: store, client: client, domain: domain, authority: authority, term: term, log: log, nsi: nsi).run()
                }
            }
            group.addTask { try await Server(address: address, identity: identity, log: log).run(api.routes()) { listening($0, false) } }
            if let web, let gate {
                group.addTask {
                    let server = Server(address: web, identity: identity, peers: .tokens(gate), log: log)
                    try await server.run(api.routes().filter(WebGate.takes)) { listening($0, true) }
                }
            }
            if let policy { group.addTask { await reread(policy, at: HangUps.stream()) } }
            // Only the servers end by themselves.
            try await group.next()
            group.cancelAll()
        }
        await client.shutDown()
    }

    private func reread(_ policy: StandingPolicy, at hangUps: AsyncStream<Void>) async {
        for await _ in hangUps {
            do throws(TurntableError) {
                try policy.readAgain()
                log.notice("the policy was read again: \(policy.inForce.digest) is in force")
            } catch {
                log.error("the policy stays as it was read at \(policy.inForce.read.formatted(.iso8601)): \(error)")
            }
        }
    }
}

enum Stores {
    /// - Parameter place: a path, or etcd://host:port[,host:port…]; etcds:// with TLS.
    static func open(_ place: String, domain: String, _ client: Client) async throws(TurntableError) -> any Store {
        for (scheme, transport) in [("etcd://", "http://"), ("etcds://", "https://")] where place.hasPrefix(scheme) {
            let members = place.dropFirst(scheme.count).split(separator: ",").map { transport + $0 }
            let etcd = EtcdStore(members: members, domain: domain, client: client.http)
            _ = try await etcd.read(Term.key)
            return etcd
        }
        return try SQLiteStore(path: place)
    }
}

/// The agent of a site: holds, receives and moves for orchestrators.
public struct SiteService: Sendable {
    public var identity: HostIdentity
    public var address: Address
    public var orchestrators: Set<String>
    public var memory: ByteCount
    public var processors: Int
    /// A directory for the disks of machines that come; nil: none may.
    public var disks: String?
    public var receiveAddress: String
    public var receiveOptions: [String]
    public var endpoints: SiteEndpoints?
    /// The domains whose tokens are demanded, NAME=FILE each; none demands none.
    public var trustedDomains: [String]
    /// What this host remembers of tokens, as its receivers do.
    public var tokenDirectory: String
    public var directory: String
    /// The engine's program.
    public var turntable: String
    /// What the engine's commands find in their environment: where keys, machines and journals are.
    public var environment: [String: String]
    public var log: Logger

    public init(
        identity: HostIdentity, address: Address, orchestrators: Set<String>, memory: ByteCount, processors: Int, disks: String?, receiveAddress: String,
        receiveOptions: [String], endpoints: SiteEndpoints?, trustedDomains: [String], tokenDirectory: String, directory: String, turntable: String,
        environment: [String: String], log: Logger
    ) {
        self.identity = identity
        self.address = address
        self.orchestrators = orchestrators
        self.memory = memory
        self.processors = processors
        self.disks = disks
        self.receiveAddress = receiveAddress
        self.receiveOptions = receiveOptions
        self.endpoints = endpoints
        self.trustedDomains = trustedDomains
        self.tokenDirectory = tokenDirectory
        self.directory = directory
        self.turntable = turntable
        self.environment = environment
        self.log = log
    }

    private func gate() throws(TurntableError) -> TokenGate? {
        guard !trustedDomains.isEmpty else { return nil }
        return TokenGate(domains: try TrustedDomains(options: trustedDomains), ledger: try TokenLedger(directory: tokenDirectory)) {
            Int(Date.now.timeIntervalSince1970)
        }
    }

    public func run(listening: @escaping @Sendable (UInt16) -> Void) async throws {
        let agent = try SiteAgent(
            options: SiteOptions(
                host: "\(identity.names)", key: identity.keyDigest, gate: try gate(), memoryBytes: memory.value, processors: processors,
                disks: disks.map { DiskRoom(directory: $0) }, receiveAddress: receiveAddress, receiveOptions: receiveOptions, endpoints: endpoints,
                directory: directory),
            programs: TurntablePrograms(path: turntable, environment: environment), log: log)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                while !Task.isCancelled {
                    await agent.tend()
                    try? await Task.sleep(for: .nanoseconds(Limits.sitePollTime.value))
                }
            }
            group.addTask {
                try await Server(address: address, identity: identity, log: log)
                    .run(AgentAPI(agent: agent, orchestrators: orchestrators).routes()) { listening($0) }
            }
            try await group.next()
            group.cancelAll()
        }
    }
}

/// A controller of lightpaths, and the links that it sets them up on.
public struct LightpathService: Sendable {
    public var identity: HostIdentity
    public var address: Address
    /// The file that describes the network.
    public var topology: String
    /// A path: the file is this process's alone, as the links are.
    public var store: String
    /// Who may have lightpaths.
    public var users: Set<String>
    /// The network's name for NSI, if it answers that.
    public var network: String?
    /// What nobody commits or keeps ends after this.
    public var holdTime: Nanoseconds
    public var log: Logger

    public init(
        identity: HostIdentity, address: Address, topology: String, store: String, users: Set<String>, network: String?, holdTime: Nanoseconds,
        log: Logger
    ) {
        self.identity = identity
        self.address = address
        self.topology = topology
        self.store = store
        self.users = users
        self.network = network
        self.holdTime = holdTime
        self.log = log
    }

    public func run(listening: @escaping @Sendable (UInt16) -> Void) async throws {
        let topology = try Topology.read(topology)
        let store = try SQLiteStore(path: store)
        let controller = try await LightpathController(topology: topology, store: store, holdTime: holdTime, log: log)
        // What an earlier process left is as it should be before anything new is asked.
        await controller.make()
        let client = try Client(identity: identity)
        let nsi = network.map { NSIProviderAPI(controller: controller, client: client, users: users, network: $0, log: log) }
        var admission = LightpathAdmission(users: users, peers: Set((topology.peers ?? []).map { $0.host.lowercased() }))
        var networks: NetworksAPI?
        if topology.network != nil {
            let own = LightpathBook(topology: topology).document(serial: Int(Date.now.timeIntervalSince1970))
            let neighbours = Neighbours(own: own, peers: topology.peers ?? [], identity: identity, url: topology.url, usingOthers: topology.others == true,
                client: client, log: log)
            if topology.others == true { admission.others = { host, mayBegin in neighbours.admits(host, toBegin: mayBegin) } }
            let paths = try await NetworkPaths(
                topology: topology, controller: controller, neighbours: neighbours, client: client, store: store, log: log)
            networks = NetworksAPI(controller: controller, neighbours: neighbours, paths: paths, admission: admission)
        }
        var routes = LightpathAPI(controller: controller, topology: topology, admission: admission, paths: networks?.paths).routes()
        nsi?.add(to: &routes)
        networks?.add(to: &routes)
        try await withThrowingTaskGroup(of: Void.self) { [routes, networks] group in
            group.addTask { await controller.run() }
            if let nsi { group.addTask { await nsi.tellEvents() } }
            if let networks {
                if !networks.neighbours.peers.isEmpty { group.addTask { await networks.neighbours.run() } }
                group.addTask { await networks.paths.run() }
            }
            group.addTask { try await Server(address: address, identity: identity, log: log).run(routes) { listening($0) } }
            try await group.next()
            group.cancelAll()
        }
        await client.shutDown()
    }
}

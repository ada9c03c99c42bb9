// Which networks there are around this one: each peer says of itself what it is (Lightpaths/Networks.swift), and is asked again and again.
// What it said last is in force until it says something else that can be, or is too old. Others than peers are known, if at all, by what they
// have signed and peers pass on (NetworkWord.swift).

internal import Foundation
internal import Lightpaths
internal import Logging
internal import NIOHTTP1
internal import Protection
internal import Synchronization
internal import TurntableCore

/// A network as `GET /v1/networks` shows it.
struct NetworkView: Codable, Sendable {
    struct BorderView: Codable, Sendable {
        var name: String
        /// The peer's network and border.
        var to: String
        /// Why it is not used.
        var fault: String?
    }
    var network: String
    var url: String?
    /// The peer by which it is known, if it is none itself.
    var toldBy: String?
    var serial: Int?
    var ageSeconds: Double?
    /// Why it was not heard the last time.
    var fault: String?
    var borders: [BorderView]
}

actor Neighbours {
    private struct Known {
        var document: NetworkDocument?
        var heard: ContinuousClock.Instant?
        var fault: String?
    }

    let own: NetworkDocument
    nonisolated let peers: [Topology.Peer]
    /// By which words are signed and believed; nil: none are passed on.
    private let identity: HostIdentity?
    /// Where others find this controller; nil: only peers know it.
    private let url: String?
    /// Networks that are no peers are on the map.
    private let usesOthers: Bool
    private let client: Client
    /// What was heard longer ago is dropped.
    private let age: Nanoseconds
    /// Who does not answer for so long is gone round.
    private let patience: Nanoseconds
    private let log: Logger
    /// The clock by which words are said and grow old.
    private let now: @Sendable () -> Date
    private var known: [String: Known] = [:]
    /// Of peers and others, by network.
    private var words: [String: NetworkWord.Heard] = [:]
    /// Controllers that are no peers', and when their words were said.
    private nonisolated let hosts = Mutex([String: Date]())
    /// By border, as they were logged last.
    private var faults: [String: String]?

    init(
        own: NetworkDocument, peers: [Topology.Peer], identity: HostIdentity? = nil, url: String? = nil, usingOthers: Bool = false, client: Client,
        age: Nanoseconds = Limits.networkAge, patience: Nanoseconds = Limits.offerTime, log: Logger,
        now: @escaping @Sendable () -> Date = { .now }
    ) {
        self.own = own
        self.peers = peers
        self.identity = identity
        self.url = url
        usesOthers = usingOthers
        self.client = client
        self.age = age
        self.patience = patience
        self.log = log
        self.now = now
    }

    /// What is known and not too old.
    func map() -> NetworkMap {
        let oldest = ContinuousClock.now - .nanoseconds(age.value)
        return NetworkMap(
            [own] + peers.compactMap { peer in known[peer.network].flatMap { $0.heard ?? oldest > oldest ? $0.document : nil } }
                + others().map(\.document))
    }

    /// Those that are on the map by others' word.
    private func others() -> [NetworkWord.Heard] {
        guard usesOthers else { return [] }
        let peers = Set(peers.map(\.network))
        return words.values.filter { !peers.contains($0.document.network) && !$0.isTooOld(now(), age) }.sorted { $0.document.network < $1.document.network }
    }

    /// Where each network's controller answers.
    func urls() -> [String: String] {
        Dictionary((peers.map { ($0.network, $0.url) }) + others().map { ($0.document.network, $0.url) }) { first, _ in first }
    }

    /// What is passed on: this network's word, said now, and those of others.
    func told() throws(TurntableError) -> [NetworkWord] {
        guard let identity else { return [] }
        let ours = try url.map { (url) throws(TurntableError) in [try NetworkWord(own, url: url, as: identity, at: now())] } ?? []
        return ours + words.values.filter { !$0.isTooOld(now(), age) }.map(\.word)
    }

    /// Whether a controller that is no peer's may have segments here.
    /// - Parameter mayBegin: and not only go on with those that it has.
    nonisolated func admits(_ host: String, toBegin mayBegin: Bool) -> Bool {
        hosts.withLock { hosts in hosts[host].map { !mayBegin || now().timeIntervalSince($0) <= age.seconds } ?? false }
    }

    func shown() -> [NetworkView] {
        let map = map()
        func view(_ document: NetworkDocument?, _ network: String, _ peer: Topology.Peer?) -> NetworkView {
            let known = known[network]
            let borders = (document?.borders ?? []).map {
                NetworkView.BorderView(name: $0.name, to: "\($0.peer.network):\($0.peer.border)", fault: map.fault($0, of: network))
            }
            return NetworkView(
                network: network, url: peer?.url, serial: document?.serial,
                ageSeconds: known?.heard.map { (ContinuousClock.now - $0) / .seconds(1) }, fault: known?.fault, borders: borders)
        }
        return [view(own, own.network, nil)] + peers.map { view(map.document($0.network), $0.network, $0) }
            + others().map { heard in
                var view = view(heard.document, heard.document.network, nil)
                (view.url, view.toldBy, view.ageSeconds) = (heard.url, heard.teller, now().timeIntervalSince(heard.said))
                return view
            }
    }

    // MARK: - Asking

    /// Until the task is cancelled.
    func run() async {
        await withTaskGroup(of: Void.self) { group in
            for peer in peers {
                group.addTask {
                    while !Task.isCancelled {
                        let isKnown = await self.hear(peer)
                        try? await Task.sleep(for: .nanoseconds((isKnown ? Limits.networkPollTime : Limits.networkRetryTime).value))
                    }
                }
            }
        }
    }

    /// Asks a peer what it is; false if that is not learnt.
    func hear(_ peer: Topology.Peer) async -> Bool {
        var fault: String?
        do throws(TurntableError) {
            let answer = try await client.ask(.GET, "\(peer.url)/v1/network", within: patience, atMost: Limits.networkDocumentBytes)
            take(try NetworkDocument.parse(answer.body, of: peer.network), of: peer)
        } catch {
            fault = "\(error)"
        }
        if fault != known[peer.network]?.fault {
            if let fault { log.warning("network \(peer.network): \(fault)") } else { log.notice("network \(peer.network) is heard again") }
        }
        known[peer.network, default: Known()].fault = fault
        if fault == nil { await hearWords(of: peer) }
        tellOfBorders()
        return fault == nil
    }

    private func take(_ document: NetworkDocument, of peer: Topology.Peer) {
        if known[peer.network]?.document != document { log.notice("network \(peer.network) has serial \(document.serial)") }
        known[peer.network, default: Known()].document = document
        known[peer.network]?.heard = .now
    }

    /// Asks a peer what others it knows. What cannot be is left out: whoever made it up may not be the peer.
    private func hearWords(of peer: Topology.Peer) async {
        guard let identity else { return }
        let most = Limits.knownNetworks * Limits.networkWordBytes * 2
        do throws(TurntableError) {
            let answer = try await client.ask(.GET, "\(peer.url)/v1/network/words", within: patience, atMost: most)
            let told = try JSON.decode([NetworkWord].self, answer.body, "what \(peer.network) passes on")
            for word in told.prefix(Limits.knownNetworks + 1) {
                do throws(TurntableError) {
                    take(try word.heard(from: peer.network, authorities: identity, at: now(), age: age))
                } catch { log.debug("\(error)") }
            }
        } catch {
            log.debug("network \(peer.network) passes nothing on: \(error)")
        }
    }

    private func take(_ heard: NetworkWord.Heard) {
        let network = heard.document.network
        for (name, old) in words where old.isTooOld(now(), age) {
            words[name] = nil
            log.notice("network \(name) is heard of no more")
        }
        guard network != own.network, words[network].map({ $0.said < heard.said }) ?? (words.count < Limits.knownNetworks) else { return }
        if words[network]?.document != heard.document { log.notice("network \(network) has serial \(heard.document.serial), says \(heard.teller)") }
        words[network] = heard
        guard usesOthers, !peers.contains(where: { $0.network == network }) else { return }
        hosts.withLock { hosts in
            hosts[heard.host] = heard.said
            // The one that was heard of longest ago may go on with nothing then.
            if hosts.count > Limits.knownNetworks, let oldest = hosts.min(by: { $0.value < $1.value }) { hosts[oldest.key] = nil }
        }
    }

    /// Says which of our borders can be used, when that changes.
    private func tellOfBorders() {
        let map = map()
        let current = Dictionary(uniqueKeysWithValues: own.borders.map { ($0.name, map.fault($0, of: own.network) ?? "") })
        for (name, fault) in current where faults?[name] != fault {
            if fault.isEmpty { log.notice("border \(name) is in use") } else { log.warning("border \(name) is not used: \(fault)") }
        }
        faults = current
    }

    // MARK: - What is free

    /// Of this network and of each on the map that answers in time; `nodes` are the ends of the path by network.
    func offers(_ ownOffer: Offer, _ request: Offer.Request, _ nodes: [String: String], without silent: Set<String>) async -> [String: Offer] {
        let asked = map().documents.dropFirst().map(\.network).filter { !silent.contains($0) }
        let urls = urls().filter { asked.contains($0.key) }
        return await withTaskGroup(of: (String, Offer?).self) { [client, patience, log] group in
            for (network, url) in urls {
                var request = request
                request.node = nodes[network]
                group.addTask { [request] in
                    do throws(TurntableError) {
                        let answer = try await client.ask(
                            .POST, "\(url)/v1/network/offers", request, within: patience, atMost: Limits.networkDocumentBytes)
                        return (network, try Offer.parse(answer.body, of: network))
                    } catch {
                        log.notice("network \(network) offers nothing: \(error)")
                        return (network, nil)
                    }
                }
            }
            var offers = [own.network: ownOffer]
            for await (network, offer) in group { offers[network] = offer }
            return offers
        }
    }
}

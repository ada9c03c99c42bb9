// Which networks there are around this one: each peer says of itself what it is (Lightpaths/Networks.swift), and is asked again and again.
// What it said last is in force until it says something else that can be, or is too old. Nobody speaks for a third.

internal import Foundation
internal import Lightpaths
internal import Logging
internal import NIOHTTP1
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
    private let client: Client
    /// What was heard longer ago is dropped.
    private let age: Nanoseconds
    /// Who does not answer for so long is gone round.
    private let patience: Nanoseconds
    private let log: Logger
    private var known: [String: Known] = [:]
    /// By border, as they were logged last.
    private var faults: [String: String]?

    init(
        own: NetworkDocument, peers: [Topology.Peer], client: Client, age: Nanoseconds = Limits.networkAge, patience: Nanoseconds = Limits.offerTime,
        log: Logger
    ) {
        self.own = own
        self.peers = peers
        self.client = client
        self.age = age
        self.patience = patience
        self.log = log
    }

    /// What is known and not too old.
    func map() -> NetworkMap {
        let oldest = ContinuousClock.now - .nanoseconds(age.value)
        return NetworkMap(
            [own] + peers.compactMap { peer in known[peer.network].flatMap { $0.heard ?? oldest > oldest ? $0.document : nil } })
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
        tellOfBorders()
        return fault == nil
    }

    private func take(_ document: NetworkDocument, of peer: Topology.Peer) {
        if known[peer.network]?.document != document { log.notice("network \(peer.network) has serial \(document.serial)") }
        known[peer.network, default: Known()].document = document
        known[peer.network]?.heard = .now
    }

    /// Says which of our borders can be used, when that changes.
    private func tellOfBorders() {
        let map = map()
        let now = Dictionary(uniqueKeysWithValues: own.borders.map { ($0.name, map.fault($0, of: own.network) ?? "") })
        for (name, fault) in now where faults?[name] != fault {
            if fault.isEmpty { log.notice("border \(name) is in use") } else { log.warning("border \(name) is not used: \(fault)") }
        }
        faults = now
    }

    // MARK: - What is free

    /// Of this network and of each peer that answers in time; `nodes` are the ends of the path by network.
    func offers(_ ownOffer: Offer, _ request: Offer.Request, _ nodes: [String: String], without silent: Set<String>) async -> [String: Offer] {
        let asked = map().documents.dropFirst().map(\.network).filter { !silent.contains($0) }
        return await withTaskGroup(of: (String, Offer?).self) { [peers, client, patience, log] group in
            for peer in peers where asked.contains(peer.network) {
                var request = request
                request.node = nodes[peer.network]
                group.addTask { [request] in
                    do throws(TurntableError) {
                        let answer = try await client.ask(
                            .POST, "\(peer.url)/v1/network/offers", request, within: patience, atMost: Limits.networkDocumentBytes)
                        return (peer.network, try Offer.parse(answer.body, of: peer.network))
                    } catch {
                        log.notice("network \(peer.network) offers nothing: \(error)")
                        return (peer.network, nil)
                    }
                }
            }
            var offers = [own.network: ownOffer]
            for await (network, offer) in group { offers[network] = offer }
            return offers
        }
    }
}

// What a network says of itself, signed, so that others can pass it on and nobody can change it on the way.
//
//   west ── middle ── east     middle hears east, and tells west what east has signed: west knows a network that it does not meet
//
// A word is believed if an authority here vouches for whoever signed it, under the name that is part of the network's own
// (urn:ogf:network:<name>:…) or one below it. It has a time, and is dropped everywhere when it is Limits.networkAge old: what goes round in
// loops is renewed by nobody but the network itself, and one that is gone is soon forgotten. Of two words of a network the later counts.

internal import Foundation
internal import Lightpaths
internal import Protection
internal import TurntableCore

struct NetworkWord: Codable, Sendable, Equatable {
    private struct Text: Codable {
        var document: NetworkDocument
        /// Where its controller answers.
        var url: String
        var said: Date
    }
    /// A word that is believed.
    struct Heard: Sendable, Equatable {
        var document: NetworkDocument
        var url: String
        /// As its controller's certificate names it.
        var host: String
        var said: Date
        /// The peer that passed it on.
        var teller: String
        var word: NetworkWord

        func isTooOld(_ now: Date, _ age: Nanoseconds) -> Bool { now.timeIntervalSince(said) > age.seconds }
    }

    /// JSON, as it was signed.
    var text: Data
    var signature: Data

    /// As this host says it.
    init(_ document: NetworkDocument, url: String, as identity: HostIdentity, at time: Date = .now) throws(TurntableError) {
        text = try JSON.encode(Text(document: document, url: url, said: time))
        signature = Data(try Statement.sign(Array(text), as: identity))
    }

    /// From a peer, who may have it from anybody.
    func heard(from teller: String, authorities: HostIdentity, at now: Date = .now, age: Nanoseconds) throws(TurntableError) -> Heard {
        let what = "a network's word from \(teller)"
        guard text.count <= Limits.networkWordBytes else {
            throw TurntableError(.protocol, what, "it has \(ByteCount(text.count)), and may have \(ByteCount(Limits.networkWordBytes))")
        }
        let said = try JSON.decode(Text.self, text, what)
        let network = said.document.network
        let parts = network.split(separator: ":")
        guard network.hasPrefix("urn:ogf:network:"), parts.count > 3, isHost(said.url) else {
            throw TurntableError(.protocol, what, "\(network.prefix(200)) at \(said.url.prefix(200)) is no network's name and https://host:port")
        }
        guard let signer = Statement.signer(of: Array(text), Array(signature), authorities: authorities.authorities),
            let host = signer.hosts.first(where: { $0 == parts[3].lowercased() || $0.hasSuffix(".\(parts[3].lowercased())") })
        else { throw TurntableError(.protocol, what, "nobody who may speak for \(network) has signed it") }
        _ = try NetworkDocument.parse(try JSON.encode(said.document), of: network)
        let heard = Heard(document: said.document, url: said.url, host: host, said: said.said, teller: teller, word: self)
        guard !heard.isTooOld(now, age), said.said < now + Limits.clockDifference.seconds else {
            throw TurntableError(.protocol, what, "\(network) said it at \(said.said.formatted(.iso8601))", remedy: "set the hosts' clocks")
        }
        return heard
    }
}

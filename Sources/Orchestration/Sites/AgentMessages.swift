// What an orchestrator and a site's agent say to each other: HTTP with JSON, TLS with both certificates. Each request carries the
// orchestrator's domain and its master's term; the agent refuses a term below the highest that it has seen of the domain.
//
//   GET    /v1/site                          SiteState
//   GET    /v1/site/dirty-rates              DirtyRates             what its machines write; takes a second
//   GET    /v1/site/disks                    SiteDisks              room for disks, and which its machines have
//   PUT    /v1/slots/<migration>             SlotRequest -> Slot    hold memory, processors and room for disks; again: hold on
//   PUT    /v1/slots/<migration>/receiver    -> Slot                let the machine be received
//   DELETE /v1/slots/<migration>             -> Slot                give back; nothing more is held or received under that name;
//                                                                   with ?discard=true disks that were made for it are removed
//   PUT    /v1/moves/<migration>             MoveRequest -> Move    move the machine; again: how far it is, and at the rate that is said now
//   GET    /v1/moves/<migration>             -> Move
//   DELETE /v1/moves/<migration>             -> Move                do not move it, if that is still possible
//
// An agent that trusts domains (--trust-domain) holds, receives and moves only with a token of one of them; what is given back or ended
// makes its token void there.
//
// All may be repeated. What is released or ended stays so, whatever comes late.

internal import Foundation
internal import NIOHTTP1
internal import TurntableCore

struct SlotRequest: Codable, Sendable, Equatable {
    var machine: String
    var memoryBytes: Int
    var processors: Int
    /// The host that it comes from, as its certificate names it: no other may send.
    var sourceHost: String
    /// Its disks that come along.
    var disks: [MachineDisk]?
    /// What the orchestrator calls this site; endpoints list sites by these names.
    var site: String?
    /// Permission for it (Capability), where that is demanded.
    var token: String?
}

struct Slot: Codable, Sendable, Equatable {
    enum State: String, Codable, Sendable { case held, receiving, released }
    var state: State
    var request: SlotRequest
    /// It ends by itself after this, unless it is asked for again.
    var until: Date
    /// Where a sender connects.
    var address: String?
    /// The name in the certificate there.
    var host: String
}

/// How much of its memory each machine writes a second, where that could be measured.
struct DirtyRates: Codable, Sendable, Equatable {
    var bytesPerSecond: [String: Double]
    /// Of its memory, what it has ever written: the rest is zero, and costs a move nothing.
    var usedMemoryBytes: [String: Int]
}

/// What a site has for disks, and which disks its machines have, where that could be asked.
struct SiteDisks: Codable, Sendable, Equatable {
    /// Nil if it takes none.
    var freeBytes: Int?
    /// Of copies that the domain's machines left here, for which no more room is needed.
    var keptBytes: [String: Int]
    var machines: [String: [MachineDisk]]
}

struct MoveRequest: Codable, Sendable, Equatable {
    var machine: String
    /// What the orchestrator calls the two sites.
    var site: String?
    var targetSite: String?
    /// host:port of the receiver, and the name in its certificate.
    var address: String
    var targetHost: String
    var downtimeMilliseconds: Double
    var bitsPerSecond: Double?
    var roundTripMilliseconds: Double?
    var streams: Int
    /// The disks that go along, by name.
    var disks: [String]?
    /// Permission for it, which this site may demand.
    var token: String?
    /// What the receiver is shown; the same, unless one of the sites is another domain's.
    var targetToken: String?
    /// Link elements on the way, in their order.
    var elements: [LinkElementRecord]?
}

struct Move: Codable, Sendable, Equatable {
    enum State: String, Codable, Sendable { case moving, ended }
    /// Whose machine it is.
    enum Owner: String, Codable, Sendable { case source, target }
    var state: State
    var request: MoveRequest?
    var cancelled = false
    var progress: MoveProgress?
    /// Once it has ended.
    var owner: Owner?
    /// The machine's epoch after the end.
    var epoch: UInt64?
    var report: MoveReport?
    /// By all its senders, whatever became of them.
    var sent: SentBytes?
    var problem: Problem?
    var ended: Date?
}

enum TermHeader {
    static let name = "turntable-term"
    static func text(_ domain: String, _ term: Term) -> String { "\(domain) \(term.number)" }
    static func parse(_ text: String) -> (domain: String, number: Revision)? {
        let words = text.split(separator: " ")
        guard words.count == 2, let number = Revision(words[1]) else { return nil }
        return (String(words[0]), number)
    }
}

/// A site's agent as the master asks it.
struct Agent: Sendable {
    let client: Client
    let url: String
    let domain: String
    let term: Term

    private var headers: [String: String] { [TermHeader.name: TermHeader.text(domain, term)] }

    func site() async throws(TurntableError) -> SiteState {
        try await client.ask(.GET, "\(url)/v1/site", headers: headers).decoded(SiteState.self, "the state of \(url)")
    }
    func dirtyRates() async throws(TurntableError) -> DirtyRates {
        try await client.ask(.GET, "\(url)/v1/site/dirty-rates", headers: headers).decoded(DirtyRates.self, "the dirty rates of \(url)")
    }
    func disks() async throws(TurntableError) -> SiteDisks {
        try await client.ask(.GET, "\(url)/v1/site/disks", headers: headers).decoded(SiteDisks.self, "the disks of \(url)")
    }
    func hold(_ migration: String, _ request: SlotRequest) async throws(TurntableError) -> Slot {
        try await client.ask(.PUT, "\(url)/v1/slots/\(migration)", request, headers: headers).decoded(Slot.self, "a slot at \(url)")
    }
    func receive(_ migration: String) async throws(TurntableError) -> Slot {
        try await client.ask(.PUT, "\(url)/v1/slots/\(migration)/receiver", headers: headers).decoded(Slot.self, "a receiver at \(url)")
    }
    /// - Parameter isDiscarding: The machine did not come: its disks that were made for it go.
    func release(_ migration: String, discarding isDiscarding: Bool) async throws(TurntableError) {
        _ = try await client.ask(.DELETE, "\(url)/v1/slots/\(migration)\(isDiscarding ? "?discard=true" : "")", headers: headers)
    }
    func move(_ migration: String, _ request: MoveRequest) async throws(TurntableError) -> Move {
        try await client.ask(.PUT, "\(url)/v1/moves/\(migration)", request, headers: headers).decoded(Move.self, "a move at \(url)")
    }
    func move(_ migration: String) async throws(TurntableError) -> Move {
        try await client.ask(.GET, "\(url)/v1/moves/\(migration)", headers: headers).decoded(Move.self, "a move at \(url)")
    }
    func withdraw(_ migration: String) async throws(TurntableError) -> Move {
        try await client.ask(.DELETE, "\(url)/v1/moves/\(migration)", headers: headers).decoded(Move.self, "a move at \(url)")
    }
}

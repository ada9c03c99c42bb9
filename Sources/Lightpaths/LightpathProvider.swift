// What a migration asks of whoever owns the network between two sites.
//
//   (none) ─reserve─▶ held ─commit─▶ committed ─provision─▶ provisioned ─release─▶ committed
//                      └──────────────────┴──── terminate, or its lease ─────────────┴──▶ terminated
//
//   reserve      capacity in a window of time is taken out of the calendar; nothing is set up
//   commit       it is wanted. What is held and not committed ends by itself
//   provision    the data plane is set up, and traffic gets the rate; before the window begins it waits
//   change       another rate, while traffic flows
//   keep         whoever wants it still says so: what nobody keeps ends by itself
//   release      the data plane is taken down; the capacity stays reserved
//   terminate    all is given back, for good: what comes late under its name is refused
//
// A lightpath's name is its migration's: everything may be asked again, by this orchestrator or by the one that follows it, and is
// then done once.

public import Foundation
public import TurntableCore

public struct LightpathRequest: Codable, Sendable, Equatable {
    /// How an end of a segment joins the rest of its path: the label that was agreed on if it is a border, the address that a node gets.
    public struct Joint: Codable, Sendable, Equatable {
        public var label: Int?
        public var address: String?

        public init(label: Int? = nil, address: String? = nil) {
            self.label = label
            self.address = address
        }
    }
    /// The two ends, as the provider names them.
    public var ends: [String]
    /// What is wanted, and the least that is of use.
    public var bitsPerSecond: Double
    public var leastBitsPerSecond: Double?
    /// The window of time; from now on if no begin is named.
    public var from: Date?
    public var until: Date
    /// Of a segment, in the order of the ends.
    public var joints: [Joint]?

    public init(
        ends: [String], bitsPerSecond: Double, leastBitsPerSecond: Double? = nil, from: Date? = nil, until: Date, joints: [Joint]? = nil
    ) {
        self.ends = ends
        self.bitsPerSecond = bitsPerSecond
        self.leastBitsPerSecond = leastBitsPerSecond
        self.from = from
        self.until = until
        self.joints = joints
    }
}

public struct Lightpath: Codable, Sendable, Equatable {
    public enum State: String, Codable, Sendable { case held, committed, provisioned, terminated }
    public var state: State
    public var bitsPerSecond: Double
    /// As far as the provider knows it.
    public var roundTripMilliseconds: Double?
    /// Traffic gets the rate, now.
    public var isActive: Bool
    /// The addresses of the ends on it, in the order of the request's, if the provider gives any.
    public var addresses: [String]?
    /// It ends by itself after this.
    public var until: Date

    public init(
        state: State, bitsPerSecond: Double, roundTripMilliseconds: Double? = nil, isActive: Bool, addresses: [String]? = nil, until: Date
    ) {
        self.state = state
        self.bitsPerSecond = bitsPerSecond
        self.roundTripMilliseconds = roundTripMilliseconds
        self.isActive = isActive
        self.addresses = addresses
        self.until = until
    }
}

public protocol LightpathProvider: Sendable {
    func reserve(_ id: String, _ request: LightpathRequest) async throws(TurntableError) -> Lightpath
    func commit(_ id: String) async throws(TurntableError)
    /// Returns when traffic gets the rate.
    func provision(_ id: String) async throws(TurntableError) -> Lightpath
    /// Nil if there is none of that name, or none any more.
    func query(_ id: String) async throws(TurntableError) -> Lightpath?
    func change(_ id: String, bitsPerSecond: Double) async throws(TurntableError) -> Lightpath
    func keep(_ id: String) async throws(TurntableError)
    func release(_ id: String) async throws(TurntableError)
    func terminate(_ id: String) async throws(TurntableError)
}

// A keeper of one machine's address: it knows at which site the machine is, and has what is for it sent there. The rule of what it
// believes is WireFormat/Announcement.swift's.
//
// What is believed is done first and made durable after it: packets wait for the one, and a file system can take its time. A keeper
// that is killed in between comes back with the site before; the target's keeper says again what it said, every second.

public import Protection
public import TurntableCore
public import TurntableLinux
public import WireFormat

/// Where what is for a machine is sent: the kernel's tables, or our own.
public protocol Backend: Sendable {
    /// Makes ready all that a flip must not wait for. Again, it does no harm.
    func prepare() throws(TurntableError)
    /// From now on it is at this site: one operation, done when this returns.
    func point(to site: Int) throws(TurntableError)
}

public final class Keeper: Sendable {
    public let machine: String
    /// Their names, in the order that all keepers have alike.
    public let sites: [String]
    private let key: EndpointKey
    private let backend: any Backend
    private let store: any AppendStore
    private let state: Monitor<State>

    struct State: Sendable {
        var epoch = Epoch(0)
        var site: Int
        /// What was believed last, as it came; empty before the first.
        var datagram: [UInt8] = []
        var isDurable = true
        var isPointed = false
    }

    /// What a datagram did.
    public enum Verdict: Equatable, Sendable {
        case flipped(from: Int, to: Int, Epoch)
        /// Its epoch is the one that is known already: the same thing said again, or somebody's replay.
        case known
        /// Its epoch is below the highest.
        case old(Epoch)
        case forged
        /// From somebody with the key, about a site that the endpoint does not have.
        case noSuchSite(Int)
    }

    /// Reads what was believed before.
    /// - Parameter home: where the machine is before anything is announced.
    public init(
        of machine: String, sites: [String], home: Int, key: EndpointKey, backend: any Backend, store: any AppendStore
    ) throws(TurntableError) {
        self.machine = machine
        self.sites = sites
        self.key = key
        self.backend = backend
        self.store = store
        var state = State(site: home)
        let bytes = try store.contents()
        let whole = bytes.count / Announcement.bytes * Announcement.bytes
        for start in stride(from: 0, to: whole, by: Announcement.bytes) {
            let datagram = Array(bytes[start..<start + Announcement.bytes])
            guard let (said, mac) = try? Announcement.decode(datagram), key.verifies(mac, of: said), said.site < sites.count else {
                throw TurntableError(
                    .unsupported, "reading where \(machine) is",
                    "record \(start / Announcement.bytes) is damaged, of another key, or of a site that is not there",
                    remedy: "give the endpoint its key and its sites back; or remove the record, after which old announcements of this key are believed")
            }
            if said.epoch > state.epoch { state = State(epoch: said.epoch, site: Int(said.site), datagram: datagram) }
        }
        // A process that was killed within its last append.
        if whole < bytes.count { try store.truncate(to: whole) }
        self.state = Monitor(state)
    }

    public var site: Int { state.read { $0.site } }
    public var epoch: Epoch { state.read { $0.epoch } }
    /// What was believed last, for whoever missed it; empty before the first.
    public var lastDatagram: [UInt8] { state.read { $0.datagram } }

    /// Makes everything ready, and sends what is for the machine to where it is known to be.
    public func start() throws(TurntableError) {
        // Makes the file, so that no flip waits for its directory.
        try store.append([])
        try backend.prepare()
        try settle()
    }

    /// Hears what somebody announces about this machine, and turns its way if that is believed. ``settle()`` must follow then.
    /// - Throws: if it was believed, and the way could not be turned; ``settle()`` tries again.
    public func hear(_ said: Announcement, mac: [UInt8], _ datagram: [UInt8]) throws(TurntableError) -> Verdict {
        guard key.verifies(mac, of: said) else { return .forged }
        guard said.site < sites.count else { return .noSuchSite(Int(said.site)) }
        let verdict = state.update { state -> Verdict in
            guard said.epoch > state.epoch else { return said.epoch == state.epoch ? .known : .old(said.epoch) }
            defer { state = State(epoch: said.epoch, site: Int(said.site), datagram: datagram, isDurable: false) }
            return .flipped(from: state.site, to: Int(said.site), said.epoch)
        }
        if case .flipped = verdict { try turn() }
        return verdict
    }

    /// Under the lock, so that of two flips the later one is done later.
    private func turn() throws(TurntableError) {
        try state.update { (state) throws(TurntableError) in
            guard !state.isPointed else { return }
            try backend.point(to: state.site)
            state.isPointed = true
        }
    }

    /// Makes what is outside as it is known here: the way turned, the record durable. Nothing is done if it is.
    public func settle() throws(TurntableError) {
        // A disk that fails does not keep the machine from its traffic, nor does a way that cannot be turned keep it from the record.
        var failure: TurntableError?
        do throws(TurntableError) { try turn() } catch { failure = error }
        let known = state.read { $0 }
        if !known.isDurable {
            try store.append(known.datagram)
            try store.sync()
            state.update { state in if state.epoch == known.epoch { state.isDurable = true } }
        }
        if let failure { throw failure }
    }
}

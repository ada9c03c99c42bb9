// A gateway: the keepers of many machines' addresses in one process, at the anchor or at a site. One thread hears announcements and
// turns the ways; what need not be done before a packet goes right (telling others, the disk, the operator) comes after it.

internal import Foundation
internal import Protection
public import TurntableCore
internal import TurntableLinux
internal import WireFormat

public final class Gateway: Sendable {
    /// What an operator hears.
    public enum Event: Sendable {
        /// The machine's way was turned; `latency` from the datagram's arrival at this host until the kernel had done it.
        case flipped(machine: String, from: String, to: String, Epoch, latency: Nanoseconds)
        case failed(TurntableError)
    }

    /// Datagrams by what they did, since the start.
    public struct Counts: Encodable, Sendable {
        public var flipped = 0
        public var known = 0
        public var old = 0
        public var forged = 0
        /// Of a machine that has no endpoint here.
        public var unknown = 0
        /// No announcement at all, or of a site that is not there.
        public var malformed = 0
    }

    private struct Entry: Sendable {
        var keeper: Keeper
        var others: [DatagramSocket.Peer]
    }
    /// What is left to be done after a flip.
    private struct Rest: Sendable {
        var events: [Event] = []
        var unsettled: [Keeper] = []
        var isEmpty: Bool { events.isEmpty && unsettled.isEmpty }
    }

    private let socket: DatagramSocket
    private let entries: [[UInt8]: Entry]
    private let tunnel: Tunnel?
    private let translation: Translation
    private let door: String
    /// The name of the site that this is.
    private let here: String?
    private let counts = Monitor(Counts())
    private let rest = Monitor(Rest())
    private let report: @Sendable (Event) -> Void

    /// Makes all that is needed, and turns every machine's way to where it was known to be.
    public init(_ description: GatewayDescription, report: @escaping @Sendable (Event) -> Void) throws(TurntableError) {
        guard let listen = Address(parsing: description.listen, defaultPort: defaultGatewayPort) else {
            throw TurntableError(.usage, "listening on \(description.listen)", "it is no address:port")
        }
        self.report = report
        here = description.here
        door = "\(description.state)/gateway.sock"
        try makePrivateDirectory(description.state)
        let builder = try EndpointBuilder(description)
        var entries: [[UInt8]: Entry] = [:]
        for endpoint in description.endpoints {
            let store = AppendFile("\(description.state)/\(endpoint.machine).arrivals")
            let (keeper, others) = try builder.keeper(of: endpoint, store: store)
            guard entries.updateValue(Entry(keeper: keeper, others: others), forKey: Announcement.digest(of: endpoint.machine)) == nil else {
                throw TurntableError(.usage, "the endpoint of \(endpoint.machine)", "there are two of that name")
            }
        }
        self.entries = entries
        tunnel = try builder.tunnel()
        translation = builder.translation
        for entry in entries.values { try entry.keeper.start() }
        socket = try DatagramSocket(at: listen, isTimed: true)
        try translation.make()
    }

    /// Ends what the kernel does only while a gateway is there, before the process ends.
    public func close() throws(TurntableError) { try translation.remove() }

    public var port: UInt16 { socket.port }

    /// Hears announcements until the process ends.
    public func serve() throws(TurntableError) -> Never {
        tunnel?.start { [report] in report(.failed($0)) }
        _ = WorkerThread("tt-after-flip") { [self] in
            var pulse = Clock.now
            while true {
                finishFlips(before: pulse)
                guard Clock.now >= pulse else { continue }
                beat()
                pulse = Clock.now + Limits.announcementPulseTime
            }
        }
        try openDoor()
        // It has microseconds of work now and then, for which machines wait.
        makeThreadUrgent()
        // One byte more than an announcement has, so that a longer one is seen to be.
        var buffer = [UInt8](repeating: 0, count: Announcement.bytes + 1)
        while true {
            if let (count, _, arrived) = try socket.receive(into: &buffer, at: 0) {
                hear(Array(buffer.prefix(count)), arrivedUnixNanoseconds: arrived)
            } else {
                counts.update { $0.malformed += 1 }
            }
        }
    }

    private func hear(_ datagram: [UInt8], arrivedUnixNanoseconds: Int64) {
        guard let (said, mac) = try? Announcement.decode(datagram) else { return counts.update { $0.malformed += 1 } }
        guard let entry = entries[said.machine] else { return counts.update { $0.unknown += 1 } }
        var failure: TurntableError?
        var verdict = Keeper.Verdict.known
        do throws(TurntableError) { verdict = try entry.keeper.hear(said, mac: mac, datagram) } catch { failure = error }
        let latency = Nanoseconds(unixNanoseconds() - arrivedUnixNanoseconds)
        if let failure {
            counts.update { $0.flipped += 1 }
            tellOthers(entry)
            return rest.update {
                $0.events.append(.failed(failure))
                $0.unsettled.append(entry.keeper)
            }
        }
        switch verdict {
        case .known: counts.update { $0.known += 1 }
        case .old: counts.update { $0.old += 1 }
        case .forged: counts.update { $0.forged += 1 }
        case .noSuchSite: counts.update { $0.malformed += 1 }
        case .flipped(let from, let to, let epoch):
            counts.update { $0.flipped += 1 }
            tellOthers(entry)
            let sites = entry.keeper.sites
            rest.update {
                $0.events.append(.flipped(machine: entry.keeper.machine, from: sites[from], to: sites[to], epoch, latency: latency))
                $0.unsettled.append(entry.keeper)
            }
        }
    }

    private func tellOthers(_ entry: Entry) {
        let datagram = entry.keeper.lastDatagram
        for other in entry.others { socket.send(datagram, 0..<datagram.count, to: other) }
    }

    /// Says again which machines are at this site, and tries again what failed.
    private func beat() {
        do throws(TurntableError) {
            if try translation.restore() {
                let why = "somebody removed it; it is made again"
                report(.failed(TurntableError(.unsupported, "the table of nftables", why, remedy: "leave it when you load other rules")))
            }
        } catch { report(.failed(error)) }
        for entry in entries.values {
            if let here, entry.keeper.sites[entry.keeper.site] == here, !entry.keeper.lastDatagram.isEmpty { tellOthers(entry) }
            settle(entry.keeper)
        }
    }

    private func settle(_ keeper: Keeper) {
        do throws(TurntableError) { try keeper.settle() } catch { report(.failed(error)) }
    }

    private func finishFlips(before deadline: Nanoseconds) {
        let work = rest.wait(atMost: deadline - Clock.now) { rest -> Rest? in
            defer { rest = Rest() }
            return rest.isEmpty ? nil : rest
        }
        for keeper in work?.unsettled ?? [] { settle(keeper) }
        // Of what is durable by now.
        for event in work?.events ?? [] { report(event) }
    }

    // MARK: - How it stands

    struct Status: Encodable {
        struct Endpoint: Encodable {
            var machine: String
            var site: String
            var epoch: UInt64
        }
        var endpoints: [Endpoint]
        var announcements: Counts
        var packets: Tunnel.Counts?
    }

    private var status: [UInt8] {
        let endpoints = entries.values.map { entry in
            Status.Endpoint(machine: entry.keeper.machine, site: entry.keeper.sites[entry.keeper.site], epoch: entry.keeper.epoch.value)
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let status = Status(
            endpoints: endpoints.sorted { $0.machine < $1.machine }, announcements: counts.read { $0 }, packets: tunnel?.counts)
        guard let text = try? encoder.encode(status) else { preconditionFailure("a status is JSON") }
        return Array(text) + [UInt8(ascii: "\n")]
    }

    /// Whoever opens the socket hears how it stands.
    private func openDoor() throws(TurntableError) {
        let raw = try Socket.listenUnix(door).release()
        _ = WorkerThread("tt-door") { [self] in
            let listener = Descriptor(owning: raw)
            while true {
                guard let asking = try? Socket.accept(listener, within: Limits.announcementPulseTime) else { continue }
                try? Socket.setTimeouts(asking, receive: Limits.helloTime, send: Limits.helloTime)
                try? Socket.write(asking, status, what: "saying how it stands")
            }
        }
    }

    /// What a gateway says of itself: one JSON object.
    public static func status(stateDirectory: String) throws(TurntableError) -> String {
        let socket = try Socket.connectUnix("\(stateDirectory)/gateway.sock")
        try Socket.setTimeouts(socket, receive: Limits.helloTime, send: Limits.helloTime)
        var text: [UInt8] = []
        while true {
            let piece = try Socket.read(socket, atMost: 64 << 10, what: "asking the gateway")
            if piece.isEmpty { return String(decoding: text.dropLast(), as: UTF8.self) }
            text += piece
        }
    }
}

/// The UDP port of announcements, and the one after it of tunnels, unless told otherwise.
public let defaultGatewayPort: UInt16 = 4910
public let defaultTunnelPort: UInt16 = 4911

private func makePrivateDirectory(_ path: String) throws(TurntableError) {
    do {
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: NSNumber(value: 0o700)])
    } catch {
        throw TurntableError(.usage, "making \(path)", "\(error)", remedy: "run as root, or choose a directory of your own")
    }
}

// The hosts' part: says where a machine is from now on, to the keepers of its address. All is made ready before the machine is paused;
// what is left for the blackout is one send for each keeper.

public import Protection
public import TurntableCore
public import TurntableLinux
internal import WireFormat

public final class Announcer: Sendable {
    private let keepers: [DatagramSocket]
    private let key: @Sendable (String) throws(TurntableError) -> EndpointKey
    private let repeating = Monitor(0)

    /// - Parameters:
    ///   - keepers: who is told, in this order: the keeper at this site first, so that it knows when packets come.
    ///   - key: of a machine by its name.
    public init(
        to keepers: [Address], key: @escaping @Sendable (String) throws(TurntableError) -> EndpointKey
    ) throws(TurntableError) {
        guard (1...Limits.endpointKeepers).contains(keepers.count) else {
            throw TurntableError(.usage, "announcing to \(keepers.count) keepers", "it must be 1 to \(Limits.endpointKeepers)")
        }
        self.keepers = try keepers.map { (address) throws(TurntableError) in try DatagramSocket(to: DatagramSocket.Peer(address)) }
        self.key = key
    }

    /// Makes the announcement that a machine is at a site, by its place in the endpoint's list, under an epoch. What comes back says
    /// it, and waits for nothing.
    public func prepare(_ machine: String, _ epoch: Epoch, at site: UInt16) throws(TurntableError) -> @Sendable () -> Void {
        guard site < Limits.endpointSites else {
            throw TurntableError(.usage, "announcing site \(site)", "the highest is \(Limits.endpointSites - 1)")
        }
        let announcement = Announcement(
            site: site, machine: Announcement.digest(of: machine), epoch: epoch, unixNanoseconds: unixNanoseconds())
        let datagram = try key(machine).datagram(announcement)
        return { [self] in
            say(datagram)
            repeatLater(datagram, since: Clock.now)
        }
    }

    /// Returns when nothing is left to be said.
    public func finish() { _ = repeating.wait(atMost: Limits.announcementTimes.last! + Limits.pollTime) { $0 == 0 ? true : nil } }

    private func say(_ datagram: [UInt8]) { for keeper in keepers { keeper.send(datagram) } }

    private func repeatLater(_ datagram: [UInt8], since first: Nanoseconds) {
        repeating.update { $0 += 1 }
        _ = WorkerThread("tt-announce") { [self] in
            for time in Limits.announcementTimes.dropFirst() {
                Clock.sleep(first + time - Clock.now)
                say(datagram)
            }
            repeating.update { $0 -= 1 }
        }
    }
}

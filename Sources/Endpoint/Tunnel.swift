// The tunnel between keepers in user space: a TUN device at each, and UDP between them (WireFormat/TunnelHeader.swift). Each packet's
// way is looked up by its addresses; a flip changes one number that the lookup reads.
//
//   packet from       for a machine of ours                          from a machine of ours     else
//   the kernel        to the site where it is                        to the anchor              dropped
//   the tunnel        here: to the kernel; elsewhere: sent after it  to the kernel              dropped
//
// Datagrams are taken from the addresses of the other keepers only. Nothing is encrypted: that is the line's.

internal import Synchronization
public import TurntableCore
public import TurntableLinux
internal import WireFormat

public final class Tunnel: Sendable {
    /// Where a machine is, as seen from this keeper.
    public enum Hop: Sendable {
        case here
        case keeper(DatagramSocket.Peer)
    }

    /// A machine's way, which both threads look up and a flip turns.
    final class Way: Backend {
        fileprivate let hops: [Hop]
        fileprivate let site = Atomic<Int>(0)
        private let netlink: NetlinkSocket
        private let machine: String
        private let preparation: @Sendable () throws(TurntableError) -> [NetlinkMessage]

        init(
            _ hops: [Hop], of machine: String, _ netlink: NetlinkSocket,
            preparation: @escaping @Sendable () throws(TurntableError) -> [NetlinkMessage]
        ) {
            self.hops = hops
            self.machine = machine
            self.netlink = netlink
            self.preparation = preparation
        }

        func prepare() throws(TurntableError) {
            // A rule that an earlier process made is still there.
            for message in try preparation() { try netlink.perform(message, but: [Errno.exists], what: "preparing the way to \(machine)") }
        }

        func point(to site: Int) { self.site.store(site, ordering: .releasing) }

        fileprivate var hop: Hop { hops[site.load(ordering: .acquiring)] }
    }

    /// Packets, since the start.
    public struct Counts: Encodable, Sendable {
        public var toKeepers = 0
        public var toKernel = 0
        /// That came for a machine that had gone, and were sent after it.
        public var sentAfter = 0
        public var dropped = 0
    }

    public let device: TunDevice
    private let socket: DatagramSocket
    private let anchor: DatagramSocket.Peer?
    private let ways: [IPAddress: Way]
    private let keepers: Set<DatagramSocket.Peer>
    private let toKeepers = Atomic<Int>(0), toKernel = Atomic<Int>(0), sentAfter = Atomic<Int>(0), dropped = Atomic<Int>(0)

    /// - Parameters:
    ///   - anchor: where packets of machines go from here; nil at the anchor itself.
    ///   - ways: of each machine by its address.
    init(device: TunDevice, socket: DatagramSocket, anchor: DatagramSocket.Peer?, ways: [IPAddress: Way]) {
        self.device = device
        self.socket = socket
        self.anchor = anchor
        self.ways = ways
        var keepers = Set(anchor.map { [$0] } ?? [])
        for way in ways.values { for case .keeper(let peer) in way.hops { keepers.insert(peer) } }
        self.keepers = keepers
    }

    public var counts: Counts {
        Counts(
            toKeepers: toKeepers.load(ordering: .relaxed), toKernel: toKernel.load(ordering: .relaxed),
            sentAfter: sentAfter.load(ordering: .relaxed), dropped: dropped.load(ordering: .relaxed))
    }

    /// Begins to carry packets, on two threads that end with the process. `failed` is called if one of them cannot go on.
    public func start(failed: @escaping @Sendable (TurntableError) -> Void) {
        _ = WorkerThread("tt-to-keepers") { [self] in
            do throws(TurntableError) { try carryOut() } catch { failed(error) }
        }
        _ = WorkerThread("tt-to-kernel") { [self] in
            do throws(TurntableError) { try carryIn() } catch { failed(error) }
        }
    }

    // A buffer begins with the kernel's header; the tunnel's lies over its end, for only one of them is there at a time.
    private static let packetOffset = TunDevice.headerBytes
    private static let datagramOffset = packetOffset - TunnelHeader.bytes
    private static var buffer: [UInt8] { [UInt8](repeating: 0, count: packetOffset + Limits.tunnelPacketBytes) }

    private func carryOut() throws(TurntableError) {
        var buffer = Self.buffer
        while true {
            let end = try device.read(into: &buffer)
            let ends = IPAddress.ends(of: buffer, at: Self.packetOffset, count: end - Self.packetOffset)
            guard let ends, let hop = outwards(ends.source, ends.destination) else {
                count(dropped)
                continue
            }
            switch hop {
            case .here: deliver(&buffer, end)
            case .keeper(let peer): send(&buffer, end, isForwarded: false, to: peer)
            }
        }
    }

    private func outwards(_ source: IPAddress, _ destination: IPAddress) -> Hop? {
        if let way = ways[destination] { return way.hop }
        return ways[source] == nil ? nil : anchor.map { .keeper($0) }
    }

    private func carryIn() throws(TurntableError) {
        var buffer = Self.buffer
        while true {
            guard let (size, from, _) = try socket.receive(into: &buffer, at: Self.datagramOffset) else { continue }
            let end = Self.datagramOffset + size
            guard keepers.contains(from), let wasForwarded = TunnelHeader.read(buffer, at: Self.datagramOffset, count: size),
                let ends = IPAddress.ends(of: buffer, at: Self.packetOffset, count: end - Self.packetOffset)
            else {
                count(dropped)
                continue
            }
            if !wasForwarded, case .keeper(let peer)? = ways[ends.destination]?.hop {
                count(sentAfter)
                send(&buffer, end, isForwarded: true, to: peer)
            } else if ways[ends.destination] != nil || ways[ends.source] != nil {
                deliver(&buffer, end)
            } else {
                count(dropped)
            }
        }
    }

    private func send(_ buffer: inout [UInt8], _ end: Int, isForwarded: Bool, to peer: DatagramSocket.Peer) {
        TunnelHeader.write(isForwarded: isForwarded, into: &buffer, at: Self.datagramOffset)
        if socket.send(buffer, Self.datagramOffset..<end, to: peer) { count(toKeepers) } else { count(dropped) }
    }

    private func deliver(_ buffer: inout [UInt8], _ end: Int) {
        for index in 0..<Self.packetOffset { buffer[index] = 0 }
        if device.write(buffer, end) { count(toKernel) } else { count(dropped) }
    }

    private func count(_ counter: borrowing Atomic<Int>) { counter.add(1, ordering: .relaxed) }
}

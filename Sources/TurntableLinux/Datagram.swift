internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// A UDP socket. Its calls do not wait, but for ``receive(into:at:)``.
public final class DatagramSocket: Sendable {
    private let socket: Descriptor

    /// A peer, as the kernel names it.
    public struct Peer: Hashable, Sendable {
        fileprivate let address: ResolvedAddress

        /// The first address that a name resolves to here.
        public init(_ address: Address) throws(TurntableError) {
            let what = "looking for \(address)"
            guard let found = try resolve(address, passive: false, what: what).first else { throw TurntableError(.usage, what, "no address") }
            self.address = found
        }

        fileprivate init(_ address: ResolvedAddress) { self.address = address }

        public static func == (a: Peer, b: Peer) -> Bool { a.address.bytes == b.address.bytes }
        public func hash(into hasher: inout Hasher) { hasher.combine(address.bytes) }
    }

    /// Receives at an address. `isTimed`: the kernel writes down when each datagram arrives.
    public init(at address: Address, isTimed: Bool = false) throws(TurntableError) {
        let what = "receiving at \(address)"
        guard let own = try resolve(address, passive: true, what: what).first else { throw TurntableError(.usage, what, "no such address") }
        socket = try Self.open(own, what)
        let bound = unsafe own.withPointer { unsafe bind(socket.rawValue, $0, $1) }
        try checked(bound < 0 ? -errno : 0, what, remedy: "choose an address of this host, or stop what uses this one")
        if isTimed { try checked(tt_set_timestamps(socket.rawValue), what) }
    }

    /// Sends to one peer only.
    public init(to peer: Peer) throws(TurntableError) {
        socket = try Self.open(peer.address, "opening a datagram socket")
        let connected = unsafe peer.address.withPointer { unsafe connect(socket.rawValue, $0, $1) }
        try checked(connected < 0 ? -errno : 0, "choosing a way for datagrams")
    }

    private static func open(_ address: ResolvedAddress, _ what: String) throws(TurntableError) -> Descriptor {
        let number = Glibc.socket(Int32(address.family), Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        return Descriptor(owning: try checked(number < 0 ? -errno : number, what))
    }

    public var port: UInt16 { Socket.localPort(socket) }

    /// Waits for a datagram, at most `limit`.
    public func waitReadable(within limit: Nanoseconds) throws(TurntableError) -> Bool { try Socket.waitReadable(socket, within: limit) }

    /// Receives a datagram into `buffer` from `offset` on. Nil for one that does not fit, and when an earlier one could not be sent.
    public func receive(into buffer: inout [UInt8], at offset: Int) throws(TurntableError) -> (count: Int, from: Peer, arrivedUnixNanoseconds: Int64)? {
        var storage = sockaddr_storage()
        var arrived: Int64 = 0
        // The kernel writes at most what is left of the buffer.
        let result = unsafe buffer.withUnsafeMutableBytes {
            unsafe tt_receive_datagram(socket.rawValue, $0.baseAddress! + offset, $0.count - offset, &storage, &arrived)
        }
        if [-Int(EMSGSIZE), -Int(ECONNREFUSED), -Int(EHOSTUNREACH), -Int(ENETUNREACH)].contains(result) { return nil }
        let count = try checked(result, "receiving a datagram")
        return (count, Peer(ResolvedAddress(storage)), arrived)
    }

    /// Sends to the one peer, without waiting. False if it could not be sent, as a datagram may be lost.
    @discardableResult
    public func send(_ bytes: [UInt8]) -> Bool {
        // Twice: the first may only say that nobody took the datagram before it.
        for _ in 0..<2 {
            let sent = unsafe bytes.withUnsafeBytes { unsafe Glibc.send(socket.rawValue, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT)) }
            if sent == bytes.count { return true }
            if errno != ECONNREFUSED { return false }
        }
        return false
    }

    /// Sends `range` of `buffer` to a peer, without waiting. False if it could not be sent.
    @discardableResult
    public func send(_ buffer: [UInt8], _ range: Range<Int>, to peer: Peer) -> Bool {
        precondition(range.upperBound <= buffer.count)
        let sent = unsafe buffer.withUnsafeBytes { bytes in
            unsafe peer.address.withPointer { address, length in
                unsafe sendto(socket.rawValue, bytes.baseAddress! + range.lowerBound, range.count, Int32(MSG_DONTWAIT), address, length)
            }
        }
        return sent == range.count
    }
}

/// Time for people, and between hosts whose clocks are set together: nanoseconds since 1970.
public func unixNanoseconds() -> Int64 { tt_unix_nanoseconds() }

/// A TUN device: the kernel's end is a network interface, ours takes and gives whole IP packets. It goes with its owner.
public final class TunDevice: Sendable {
    private let device: Descriptor
    public let name: String
    /// Bytes before each packet, which are zero of one that is written.
    public static let headerBytes = Int(TT_TUN_FRAME_HEADER_BYTES)

    /// Makes the interface and sets it up.
    public init(_ name: String, mtuBytes: Int) throws(TurntableError) {
        let what = "making the network device \(name)"
        device = Descriptor(owning: try checked(unsafe tt_tun_create(name), what, remedy: "take another name, or stop what uses this one"))
        self.name = name
        let socket = Descriptor(owning: try checked(tt_tun_socket(), what))
        try checked(unsafe tt_tun_set_mtu(socket.rawValue, name, Int32(mtuBytes)), "setting the MTU of \(name) to \(mtuBytes)")
        try checked(unsafe tt_tun_set_up(socket.rawValue, name), "setting \(name) up")
    }

    /// Waits for a packet that the kernel sends; reads it and its header into `buffer`, which has room for the MTU and both headers.
    /// - Returns: how many bytes, the header's among them.
    public func read(into buffer: inout [UInt8]) throws(TurntableError) -> Int {
        var result: Int
        repeat {
            result = unsafe buffer.withUnsafeMutableBytes { unsafe Glibc.read(device.rawValue, $0.baseAddress!, $0.count) }
        } while result < 0 && errno == EINTR
        return try checked(result < 0 ? -Int(errno) : result, "reading from \(name)")
    }

    /// Gives the kernel the first `count` bytes, a header of zeroes and a packet. False if it took them for none.
    @discardableResult
    public func write(_ buffer: [UInt8], _ count: Int) -> Bool {
        precondition(count <= buffer.count)
        return unsafe buffer.withUnsafeBytes { unsafe Glibc.write(device.rawValue, $0.baseAddress!, count) } == count
    }
}

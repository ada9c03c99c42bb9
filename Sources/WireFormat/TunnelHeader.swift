// The tunnel between the keepers of machines' addresses: a UDP datagram that holds one IP packet.
//
//   datagram = magic u16 (0x5454) | version u8 | hops u8 | IP packet
//
// hops is 0 of a packet that comes from where its sender wrote it to, and 1 of one that found the machine gone and was sent after it.
// One that has been sent after its machine is delivered where it arrives, and never sent on again: two keepers that disagree for a
// moment pass nothing to and fro.

internal import TurntableCore

public enum TunnelHeader {
    public static let bytes = 4
    static let magic: UInt16 = 0x5454
    static let version: UInt8 = 1

    /// Writes the header of a packet into `datagram` at `offset`, which has room for it.
    public static func write(isForwarded: Bool, into datagram: inout [UInt8], at offset: Int) {
        datagram[offset] = UInt8(truncatingIfNeeded: magic)
        datagram[offset + 1] = UInt8(truncatingIfNeeded: magic >> 8)
        datagram[offset + 2] = version
        datagram[offset + 3] = isForwarded ? 1 : 0
    }

    /// Whether the packet was sent after its machine before. Nil if the `count` bytes at `offset` are no datagram of the tunnel.
    public static func read(_ datagram: [UInt8], at offset: Int, count: Int) -> Bool? {
        guard count > bytes, datagram[offset] == UInt8(truncatingIfNeeded: magic), datagram[offset + 1] == UInt8(truncatingIfNeeded: magic >> 8),
            datagram[offset + 2] == version, datagram[offset + 3] <= 1
        else { return nil }
        return datagram[offset + 3] == 1
    }
}

/// An IPv4 or IPv6 address, for looking up.
public struct IPAddress: Hashable, Sendable {
    let high: UInt64
    let low: UInt64
    public let isV6: Bool

    /// Of 4 or 16 bytes.
    public init?(_ bytes: [UInt8]) {
        guard bytes.count == 4 || bytes.count == 16 else { return nil }
        self.init(bytes, at: 0, isV6: bytes.count == 16)
    }

    init(_ bytes: [UInt8], at offset: Int, isV6: Bool) {
        var high: UInt64 = 0, low: UInt64 = 0
        for byte in bytes[offset..<offset + (isV6 ? 8 : 4)] { high = high << 8 | UInt64(byte) }
        if isV6 { for byte in bytes[offset + 8..<offset + 16] { low = low << 8 | UInt64(byte) } }
        (self.high, self.low, self.isV6) = (high, low, isV6)
    }

    /// Whence and whither the packet of `count` bytes at `offset` goes; nil if it is no IP packet.
    public static func ends(of packet: [UInt8], at offset: Int, count: Int) -> (source: IPAddress, destination: IPAddress)? {
        guard count >= 20 else { return nil }
        switch packet[offset] >> 4 {
        case 4: return (IPAddress(packet, at: offset + 12, isV6: false), IPAddress(packet, at: offset + 16, isV6: false))
        case 6 where count >= 40: return (IPAddress(packet, at: offset + 8, isV6: true), IPAddress(packet, at: offset + 24, isV6: true))
        default: return nil
        }
    }
}

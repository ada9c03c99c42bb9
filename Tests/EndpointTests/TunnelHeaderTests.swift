internal import Testing
internal import TurntableCore
internal import WireFormat

/// What the tunnel reads of packets.
struct TunnelHeaderTests {
    @Test(arguments: [true, false])
    func aHeaderIsReadAsItWasWritten(isForwarded: Bool) {
        var datagram = [UInt8](repeating: 0xaa, count: 40)
        TunnelHeader.write(isForwarded: isForwarded, into: &datagram, at: 6)
        #expect(TunnelHeader.read(datagram, at: 6, count: 34) == isForwarded)
        #expect(datagram[..<6].allSatisfy { $0 == 0xaa } && datagram[10...].allSatisfy { $0 == 0xaa })
    }

    @Test func anythingElseIsNone() {
        var datagram = [UInt8](repeating: 0, count: 40)
        TunnelHeader.write(isForwarded: false, into: &datagram, at: 0)
        #expect(TunnelHeader.read(datagram, at: 0, count: 4) == nil, "no packet in it")
        for (index, value) in [(0, UInt8(0)), (1, 0), (2, 2), (3, 2)] {
            var changed = datagram
            changed[index] = value
            #expect(TunnelHeader.read(changed, at: 0, count: 40) == nil, "byte \(index)")
        }
    }

    @Test func theEndsOfAPacketAreFound() throws {
        var packet = [UInt8](repeating: 0, count: 60)
        packet[10] = 0x45
        packet.replaceSubrange(22..<26, with: [192, 0, 2, 1])
        packet.replaceSubrange(26..<30, with: [10, 1, 1, 2])
        let ends = try #require(IPAddress.ends(of: packet, at: 10, count: 20))
        #expect(ends.source == IPAddress([192, 0, 2, 1]) && ends.destination == IPAddress([10, 1, 1, 2]))
        #expect(IPAddress.ends(of: packet, at: 10, count: 19) == nil)

        let six = (0..<16).map { UInt8($0 + 1) }, other = (0..<16).map { UInt8($0 + 100) }
        packet[10] = 0x60
        packet.replaceSubrange(18..<34, with: six)
        packet.replaceSubrange(34..<50, with: other)
        let long = try #require(IPAddress.ends(of: packet, at: 10, count: 40))
        #expect(long.source == IPAddress(six) && long.destination == IPAddress(other))
        #expect(IPAddress.ends(of: packet, at: 10, count: 39) == nil)
        packet[10] = 0x50
        #expect(IPAddress.ends(of: packet, at: 10, count: 40) == nil)
    }

    @Test func addressesOfDifferentKindsDiffer() {
        #expect(IPAddress([0, 0, 0, 0]) != IPAddress([UInt8](repeating: 0, count: 16)))
        #expect(IPAddress([1, 2, 3]) == nil)
    }
}

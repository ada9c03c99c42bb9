internal import Endpoint
internal import Foundation
internal import Protection
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// One datagram of one size, which proves itself.
struct AnnouncementTests {
    let key = EndpointKey.random()
    let announcement = Announcement(site: 1, machine: Announcement.digest(of: "web"), epoch: Epoch(7), unixNanoseconds: 1_234_567_890)

    /// Bytes that another program made by the specification, with the key 00 01 … 1f.
    @Test func theFormatIsTheSpecifications() throws {
        let path = try temporary("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n", mode: 0o600)
        defer { removeFile(path) }
        let expected =
            "545441525249564501000100000000004b5e57f6eb2f42b9039b3d1e13929295f231749c510cbe341cd68036d9af97e2"
            + "0700000000000000d202964900000000a8530fd0d2f20d383d8eccfce506331e44b8b3fbf40ab6b7804f0a683c879e0f"
        let datagram = try EndpointKey(file: path).datagram(announcement)
        #expect(datagram.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() == expected)
        #expect(datagram.count == Announcement.bytes)
    }

    @Test func itIsReadAsItWasWritten() throws {
        let datagram = key.datagram(announcement)
        let (read, mac) = try Announcement.decode(datagram)
        #expect(read == announcement && key.verifies(mac, of: read))
        #expect(!EndpointKey.random().verifies(mac, of: read))
    }

    @Test func everyChangedBitIsFound() {
        let datagram = key.datagram(announcement)
        for bit in 0..<datagram.count * 8 {
            var changed = datagram
            changed[bit / 8] ^= 1 << (bit % 8)
            guard let (read, mac) = try? Announcement.decode(changed) else { continue }
            #expect(!key.verifies(mac, of: read), "bit \(bit)")
        }
    }

    @Test(arguments: [0, 1, 8, 63, 64, 95, 97, 1500])
    func anotherLengthIsRefused(count: Int) {
        let datagram = key.datagram(announcement)
        let bytes = Array((datagram + [UInt8](repeating: 0, count: 1500)).prefix(count))
        #expect(throws: WireError.self) { try Announcement.decode(bytes) }
    }

    @Test func aSiteBeyondTheLimitIsRefused() {
        var far = announcement
        far.site = UInt16(Limits.endpointSites)
        #expect(throws: WireError(.tooMany, value: UInt64(Limits.endpointSites), limit: UInt64(Limits.endpointSites), offset: 10)) {
            try Announcement.decode(key.datagram(far))
        }
    }

    // MARK: - Keys

    private func temporary(_ text: String, mode: Int) throws -> String {
        let path = "/tmp/tt-endpoint-\(UUID().uuidString)"
        #expect(FileManager.default.createFile(atPath: path, contents: Data(text.utf8), attributes: [.posixPermissions: mode]))
        return path
    }

    @Test func aKeyIsReadAsItWasWrittenByItsOwnerAlone() throws {
        let path = "/tmp/tt-endpoint-\(UUID().uuidString)"
        defer { removeFile(path) }
        try key.write(to: path)
        #expect(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int == 0o600)
        let (read, mac) = try Announcement.decode(key.datagram(announcement))
        #expect(try EndpointKey(file: path).verifies(mac, of: read))
        #expect(failure { () throws(TurntableError) in try key.write(to: path) }?.kind == .usage, "a key is never written over")
    }

    @Test(arguments: [
        ("", 0o600), ("00", 0o600), (String(repeating: "0", count: 63), 0o600), (String(repeating: "0", count: 66), 0o600),
        (String(repeating: "0g", count: 32), 0o600), (String(repeating: "00", count: 32), 0o644),
    ])
    func aFileThatIsNoKeyIsRefused(text: String, mode: Int) throws {
        let path = try temporary(text, mode: mode)
        defer { removeFile(path) }
        #expect(failure { () throws(TurntableError) in try EndpointKey(file: path) }?.kind == .usage)
    }

    // MARK: - Saying it

    /// Each keeper hears it four times, the first time before the call returns.
    @Test func itIsSaidFourTimes() throws {
        let keepers = try (0..<2).map { _ in try DatagramSocket(at: Address(host: "127.0.0.1", port: 0), isTimed: true) }
        let key = key
        let announcer = try Announcer(to: keepers.map { Address(host: "127.0.0.1", port: $0.port) }) { _ in key }
        let say = try announcer.prepare("web", Epoch(7), at: 1)
        #expect(try !keepers[0].waitReadable(within: .milliseconds(30)), "nothing is said before it is time")
        say()
        var buffer = [UInt8](repeating: 0, count: 200)
        var times: [Int64] = []
        for keeper in keepers {
            #expect(try keeper.waitReadable(within: .zero), "the first is there at once")
            times = []
            while try keeper.waitReadable(within: .milliseconds(500)) {
                let (count, _, arrived) = try #require(try keeper.receive(into: &buffer, at: 0))
                let (read, mac) = try Announcement.decode(Array(buffer.prefix(count)))
                #expect(key.verifies(mac, of: read))
                #expect(read.site == 1 && read.epoch == Epoch(7) && read.machine == Announcement.digest(of: "web"))
                times.append(arrived)
            }
            #expect(times.count == Limits.announcementTimes.count)
            // Never early; a busy computer is late.
            for (time, due) in zip(times, Limits.announcementTimes) { #expect(time - times[0] >= due.value - 1_000_000) }
        }
        announcer.finish()
    }

    /// A gateway that is not there yet when it is first said hears all that follow.
    @Test func aKeeperThatComesLateHearsTheRest() throws {
        let place = try DatagramSocket(at: Address(host: "127.0.0.1", port: 0))
        let address = Address(host: "127.0.0.1", port: place.port)
        let sender = try DatagramSocket(to: DatagramSocket.Peer(address))
        withExtendedLifetime(consume place) {}
        sender.send([1])
        let keeper = try DatagramSocket(at: address)
        sender.send([2])
        var buffer = [UInt8](repeating: 0, count: 8)
        #expect(try keeper.waitReadable(within: .seconds(1)))
        #expect(try keeper.receive(into: &buffer, at: 0)?.count == 1 && buffer[0] == 2)
    }

    /// A machine whose key is missing is refused while its source can still keep it.
    @Test func withoutAKeyNothingIsPrepared() throws {
        let announcer = try Announcer(to: [Address(host: "127.0.0.1", port: 9)]) { (_) throws(TurntableError) in
            try EndpointKey(file: "/nowhere/web.key")
        }
        #expect(failure { () throws(TurntableError) in _ = try announcer.prepare("web", Epoch(2), at: 0) }?.kind == .usage)
    }

    @Test func thereMustBeSomebodyToTellAndAPlace() throws {
        let key = key
        #expect(failure { () throws(TurntableError) in try Announcer(to: []) { _ in key } }?.kind == .usage)
        let announcer = try Announcer(to: [Address(host: "127.0.0.1", port: 9)]) { _ in key }
        let site = UInt16(Limits.endpointSites)
        #expect(failure { () throws(TurntableError) in _ = try announcer.prepare("web", Epoch(2), at: site) }?.kind == .usage)
    }
}

internal import Endpoint
internal import Protection
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What a keeper believes, does, and remembers.
struct KeeperTests {
    /// What was done outside, in order.
    final class Outside: Backend {
        let done = Monitor<[String]>([])
        let isBroken = Monitor(false)
        func prepare() throws(TurntableError) { done.update { $0.append("prepare") } }
        func point(to site: Int) throws(TurntableError) {
            if isBroken.read({ $0 }) { throw TurntableError(.unsupported, "turning", "the device is gone") }
            done.update { $0.append("point \(site)") }
        }
        var last: String? { done.read { $0.last } }
    }

    let key = EndpointKey.random()
    let outside = Outside()
    let disk = MemoryStore()

    private func keeper(key: EndpointKey? = nil, sites: [String] = ["amsterdam", "sandiego"]) throws(TurntableError) -> Keeper {
        let keeper = try Keeper(of: "web", sites: sites, home: 0, key: key ?? self.key, backend: outside, store: disk)
        try keeper.start()
        return keeper
    }

    private func datagram(_ epoch: UInt64, site: UInt16 = 1, key: EndpointKey? = nil) -> [UInt8] {
        (key ?? self.key).datagram(
            Announcement(site: site, machine: Announcement.digest(of: "web"), epoch: Epoch(epoch), unixNanoseconds: 0))
    }

    private func hear(_ keeper: Keeper, _ datagram: [UInt8], isSettled: Bool = true) throws -> Keeper.Verdict {
        let (said, mac) = try Announcement.decode(datagram)
        let verdict = try keeper.hear(said, mac: mac, datagram)
        if isSettled { try keeper.settle() }
        return verdict
    }

    @Test func aHigherEpochTurnsTheWayAndNothingElseDoes() throws {
        let keeper = try keeper()
        #expect(outside.done.read { $0 } == ["prepare", "point 0"])
        #expect(try hear(keeper, datagram(2)) == .flipped(from: 0, to: 1, Epoch(2)))
        #expect(outside.last == "point 1" && keeper.site == 1 && keeper.epoch == Epoch(2))
        #expect(try hear(keeper, datagram(2)) == .known, "the repetition")
        #expect(try hear(keeper, datagram(2, site: 0)) == .known, "an epoch has one site")
        #expect(try hear(keeper, datagram(1, site: 0)) == .old(Epoch(1)))
        #expect(try hear(keeper, datagram(3, site: 0, key: .random())) == .forged)
        #expect(try hear(keeper, datagram(3, site: 2)) == .noSuchSite(2))
        #expect(outside.done.read { $0 } == ["prepare", "point 0", "point 1"])
        #expect(try hear(keeper, datagram(3, site: 0)) == .flipped(from: 1, to: 0, Epoch(3)))
        #expect(keeper.lastDatagram == datagram(3, site: 0))
    }

    /// Packets do not wait for the disk.
    @Test func itIsDoneBeforeItIsWritten() throws {
        let keeper = try keeper()
        _ = try hear(keeper, datagram(2), isSettled: false)
        #expect(outside.last == "point 1" && disk.contents() == [])
        _ = try hear(keeper, datagram(3, site: 0), isSettled: false)
        try keeper.settle()
        try keeper.settle()
        #expect(disk.contents() == datagram(3, site: 0), "of two in a row the later one, once")
        disk.crash()
        #expect(disk.contents() == datagram(3, site: 0), "and it is durable")
    }

    /// A way that cannot be turned is no reason to forget where the machine is.
    @Test func itIsWrittenAlsoIfItCannotBeDone() throws {
        let keeper = try keeper()
        outside.isBroken.update { $0 = true }
        #expect(throws: TurntableError.self) { try hear(keeper, datagram(2)) }
        #expect(throws: TurntableError.self) { try keeper.settle() }
        #expect(disk.contents() == datagram(2))
    }

    @Test func aKilledKeeperComesBackWithItsEpoch() throws {
        let first = try keeper()
        for epoch in UInt64(2)...5 { _ = try hear(first, datagram(epoch, site: UInt16(epoch % 2))) }
        let again = try keeper()
        #expect(again.epoch == Epoch(5) && again.site == 1 && outside.last == "point 1")
        #expect(again.lastDatagram == datagram(5))
        #expect(try hear(again, datagram(4, site: 0)) == .old(Epoch(4)), "a replay after the restart")
        #expect(try hear(again, datagram(5)) == .known)
    }

    /// A process that was killed within its last append.
    @Test(arguments: [1, 8, 64, 95])
    func aTornRecordIsForgotten(count: Int) throws {
        _ = try hear(try keeper(), datagram(2))
        try disk.append(Array(datagram(3, site: 0).prefix(count)))
        let again = try keeper()
        #expect(again.epoch == Epoch(2) && again.site == 1)
        #expect(disk.contents() == datagram(2))
        #expect(try hear(again, datagram(3, site: 0)) == .flipped(from: 1, to: 0, Epoch(3)))
        #expect(try keeper().epoch == Epoch(3))
    }

    /// Rather none than an old epoch that is believed.
    @Test func aDamagedRecordStopsTheKeeper() throws {
        var bytes = datagram(2) + datagram(3)
        bytes[50] ^= 1
        try disk.append(bytes)
        #expect(failure { () throws(TurntableError) in try keeper() }?.kind == .unsupported)
    }

    @Test func theRecordOfAnotherKeyStopsTheKeeper() throws {
        _ = try hear(try keeper(), datagram(2))
        #expect(failure { () throws(TurntableError) in try keeper(key: .random()) }?.kind == .unsupported)
    }

    @Test func theRecordOfASiteThatIsGoneStopsTheKeeper() throws {
        _ = try hear(try keeper(), datagram(2))
        #expect(failure { () throws(TurntableError) in try keeper(sites: ["amsterdam"]) }?.kind == .unsupported)
    }

    @Test func whatFailedIsTriedAgain() throws {
        let keeper = try keeper()
        outside.isBroken.update { $0 = true }
        #expect(throws: TurntableError.self) { try hear(keeper, datagram(2)) }
        #expect(throws: TurntableError.self) { try keeper.settle() }
        #expect(keeper.epoch == Epoch(2))
        outside.isBroken.update { $0 = false }
        try keeper.settle()
        try keeper.settle()
        #expect(outside.done.read { $0 } == ["prepare", "point 0", "point 1"])
    }

    /// A disk that fails does not cut a machine off.
    @Test func aFullDiskIsToldAndTheWayIsTurned() throws {
        let keeper = try keeper()
        disk.fill()
        #expect(throws: TurntableError.self) { try hear(keeper, datagram(2)) }
        #expect(throws: TurntableError.self, "as long as it is not durable") { try keeper.settle() }
        #expect(outside.last == "point 1" && keeper.site == 1)
        #expect(try hear(keeper, datagram(2), isSettled: false) == .known)
    }

    /// A host that crashes before its disk knew comes back with the site before, and believes what is said again.
    @Test func aCrashedHostHearsItAgain() throws {
        let first = try keeper()
        _ = try hear(first, datagram(2))
        _ = try hear(first, datagram(3, site: 0), isSettled: false)
        disk.crash()
        let again = try keeper()
        #expect(again.epoch == Epoch(2) && again.site == 1)
        #expect(try hear(again, datagram(3, site: 0)) == .flipped(from: 1, to: 0, Epoch(3)))
    }
}

internal import MigrationEngine
internal import TestSupport
internal import Testing
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// Machines that move with a disk, which is written all the time.
@Suite(.serialized) struct DiskTests {
    /// Not a multiple of a page, of which a third is never written.
    private static let diskBytes = 6 << 20 | 512

    private func content(_ seed: UInt64) -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        var bytes = [UInt8](repeating: 0, count: Self.diskBytes)
        for page in 0..<bytes.count / pageBytes where page % 3 != 0 {
            bytes.replaceSubrange(page * pageBytes..<(page + 1) * pageBytes, with: generator.bytes(pageBytes))
        }
        return bytes
    }

    private func stage(seed: UInt64, writes: Int = 4, rate: BitRate? = nil) throws -> (Stage, FakeDisk) {
        let stage = try Stage(seed: seed, rate: rate)
        let disk = FakeDisk(content(seed))
        stage.source.attach(disk, seed: seed, writes: writes)
        return (stage, disk)
    }

    private func expectSame(_ stage: Stage, _ disk: FakeDisk, _ seed: UInt64) throws {
        let machine = try #require(stage.host.machine)
        #expect(machine.memory.differences(from: stage.source.memory) == [], "seed \(seed)")
        let sink = try #require(stage.host.sinks.first)
        // Not both within #expect, which would look for the shortest way from one to the other, for hours.
        let isSame = sink.bytes == disk.bytes
        #expect(isSame, "seed \(seed)")
        #expect(machine.isRunning)
    }

    @Test(arguments: [UInt64(1), 2, 3], [1, 3])
    func theDiskArrivesByteForByte(seed: UInt64, streams: Int) throws {
        let (stage, disk) = try stage(seed: seed)
        stage.options.streams = streams
        let report = try stage.run().source.get()
        try expectSame(stage, disk, seed)
        #expect(report.diskBytes == Self.diskBytes && report.blocksSent > 900)
        #expect(disk.isEnded)
    }

    /// Of a machine whose memory goes another way.
    @Test(arguments: [1, 3]) func aDiskNeedsNoMemoryBesideIt(streams: Int) throws {
        let stage = try Stage(seed: 11, regionPages: [], writes: 0)
        let disk = FakeDisk(content(11))
        stage.source.attach(disk, seed: 11, writes: 4)
        stage.options.streams = streams
        let report = try stage.run().source.get()
        try expectSame(stage, disk, 11)
        #expect(report.memoryBytes == 0 && report.diskBytes == Self.diskBytes && disk.isEnded)
    }

    @Test(arguments: [UInt64(4), 5])
    func whatTheTargetsDiskHeldIsGone(seed: UInt64) throws {
        let (stage, disk) = try stage(seed: seed)
        stage.host.targetContent = [UInt8](repeating: 0xee, count: Self.diskBytes)
        _ = try stage.run().source.get()
        try expectSame(stage, disk, seed)
    }

    /// What is on the target's disk before its machine runs would survive a crash.
    @Test func theDiskIsDurableBeforeTheMachineRuns() throws {
        let (stage, disk) = try stage(seed: 6)
        let wasDurable = Monitor(false)
        stage.host.whenResuming = { () throws(TurntableError) in
            let isDurable = stage.host.sinks[0].isDurable
            wasDurable.update { $0 = isDurable }
        }
        _ = try stage.run().source.get()
        try expectSame(stage, disk, 6)
        #expect(wasDurable.read { $0 })
    }

    /// A return trip with one page in twenty changed: not more than eight parts of a hundred travel.
    @Test func onlyWhatDiffersFromAnOlderCopyTravels() throws {
        let (stage, disk) = try stage(seed: 7, writes: 0)
        var generator = SeededGenerator(seed: 70)
        var older = disk.bytes
        let pages = older.count / pageBytes
        for _ in 0..<pages / 20 {
            let page = Int.random(in: 0..<pages, using: &generator)
            older.replaceSubrange(page * pageBytes..<(page + 1) * pageBytes, with: generator.bytes(pageBytes))
        }
        stage.host.targetContent = older
        stage.host.isOlder = true
        let report = try stage.run().source.get()
        try expectSame(stage, disk, 7)
        #expect(report.blocksSent * 100 <= pages * 8, "\(report.blocksSent) of \(pages)")
        #expect(report.olderPages > pages * 9 / 10)
    }

    /// A page that is what the older copy was, but not what was sent since.
    @Test func aPageThatTurnsBackIsSentAgain() throws {
        let (stage, disk) = try stage(seed: 8, writes: 0)
        let first = Array(disk.bytes[pageBytes..<2 * pageBytes])
        stage.host.targetContent = disk.bytes
        stage.host.isOlder = true
        disk.write([UInt8](repeating: 7, count: pageBytes), at: pageBytes)
        stage.whenReported = { event, _ in
            // Sent with the sevens by now.
            if case .round(let round) = event, round.round == 0 { disk.write(first, at: pageBytes) }
        }
        _ = try stage.run().source.get()
        try expectSame(stage, disk, 8)
    }

    @Test(arguments: [UInt64(10), 11, 12])
    func aCutLineLosesNothingOfTheDisk(seed: UInt64) throws {
        let (stage, disk) = try stage(seed: seed, rate: BitRate(bitsPerSecond: 200e6))
        stage.options.resumeWindow = .seconds(20)
        stage.options.streams = 2
        let isCut = Monitor(false)
        stage.host.whenMade = { sink in
            _ = WorkerThread("cutter") {
                while sink.blocksWritten < 2 { Clock.sleep(.milliseconds(1)) }
                stage.killSource()
                isCut.update { $0 = true }
            }
        }
        let report = try stage.run().source.get()
        try expectSame(stage, disk, seed)
        #expect(report.attachments == 2)
    }

    @Test func aTargetWhoseDiskFailsRefuses() throws {
        let (stage, disk) = try stage(seed: 13)
        stage.host.whenMade = { $0.fail(after: 3) }
        let (sent, received) = stage.run()
        #expect(sent.error?.kind == .refused && "\(sent.error!)".contains("as the test wants"), "\(sent)")
        #expect(received?.error != nil)
        #expect(stage.source.isRunning && !stage.source.isDiscarded && disk.isEnded)
        #expect(stage.host.machine?.isDiscarded == true)
    }

    /// After the hand-off: the target never ran the machine, and gives it back.
    @Test func aDiskThatDoesNotBecomeDurableGivesTheMachineBack() throws {
        let (stage, _) = try stage(seed: 14)
        stage.host.whenMade = { $0.failToFlush() }
        let (sent, _) = stage.run()
        #expect(sent.error?.kind == .refused && stage.source.isRunning && stage.source.resumes == 1)
        #expect(stage.source.epoch == Epoch(43))
    }

    @Test func changesThatWereLostCostAWholePassAndNothingElse() throws {
        let (stage, disk) = try stage(seed: 15)
        let notes = Monitor([String]())
        stage.whenReported = { event, _ in
            if case .round(let round) = event, round.round == 0 { disk.lose("the snapshot overflowed") }
            if case .note(let note) = event { notes.update { $0.append(note) } }
        }
        _ = try stage.run().source.get()
        try expectSame(stage, disk, 15)
        #expect(notes.read { $0 }.contains { $0.contains("the snapshot overflowed") })
    }

    @Test func changesThatAreLostAgainAndAgainEndTheMigration() throws {
        let (stage, disk) = try stage(seed: 16)
        disk.lose("overflow")
        stage.whenReported = { event, _ in if case .round = event { disk.lose("overflow") } }
        let error = stage.run().source.error
        #expect(error?.kind == .refused && stage.source.isRunning && disk.isEnded, "\(error as Any)")
    }

    /// A chunk that is written all the time is not sent all the time.
    @Test func hotChunksWaitForThePause() throws {
        let (stage, disk) = try stage(seed: 17, writes: 0)
        // Rounds that never fit, until the disk's hot chunk was seen often enough.
        stage.options.budget = .milliseconds(400)
        stage.options.statedRate = BitRate(bitsPerSecond: 4e6)
        let rounds = Monitor(0)
        let sentAfterLearning = Monitor(0)
        stage.whenReported = { event, _ in
            guard case .round(let round) = event else { return }
            rounds.update { $0 = round.round }
            if round.round >= 3 { sentAfterLearning.update { $0 += round.blocksSent } }
        }
        stage.source.whenTicked { disk.write([UInt8](repeating: UInt8.random(in: 0...255), count: 512), at: 3 * disk.chunkBytes) }
        _ = stage.run()
        #expect(disk.deltas > 0)
        #expect(sentAfterLearning.read { $0 } <= 2 * rounds.read { $0 })
    }

    @Test func aTargetWithoutTheDiskIsRefused() throws {
        let (stage, _) = try stage(seed: 18)
        stage.host.hasDisks = false
        let error = stage.run().source.error
        #expect(error?.kind == .refused && "\(error!)".contains("disks"))
        #expect(stage.source.isRunning)
    }

    /// Memory that the target kept of the machine's last stay.
    @Test func onlyWhatDiffersFromKeptMemoryTravels() throws {
        let stage = try Stage(seed: 19, writes: 0)
        stage.options.verification = .after
        stage.host.keptMemory = stage.source.memory
        stage.host.whenPreparing = { () throws(TurntableError) in
            for page in 0..<60 { stage.source.memory.mutableAddress(page * 20, 0).storeBytes(of: UInt64(page), as: UInt64.self) }
        }
        let report = try stage.run().source.get()
        #expect(try #require(stage.host.machine).memory.differences(from: stage.source.memory) == [])
        #expect(report.pagesSent <= 60 && report.olderPages > 2000)
        // Also what never arrived is compared.
        #expect(report.verification?.stripesDiffering == 0)
    }
}

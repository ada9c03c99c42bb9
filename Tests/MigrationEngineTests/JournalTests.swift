internal import TestSupport
internal import Testing
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

@testable import MigrationEngine

/// What a journal remembers, and what it proves on which boot.
struct JournalTests {
    private static let here = BootID(high: 1, low: 1), later = BootID(high: 1, low: 2)
    private let disk = MemoryStore()

    private func open(_ boot: BootID = here) throws -> Journal { try Journal(of: "m", store: disk, boot: boot) { 7 } }
    private func record(_ role: JournalRecord.Role, _ kind: JournalRecord.Kind, _ epoch: UInt64) -> JournalRecord {
        JournalRecord(role: role, kind: kind, epoch: Epoch(epoch), session: SessionID(high: 3, low: epoch), peer: "there", detail: "why")
    }

    @Test func whatIsWrittenIsReadAgainWithItsBootAndTime() throws {
        try open().log(record(.source, .offer, 2))
        let found = try open(Self.later).history().records
        var expected = record(.source, .offer, 2)
        (expected.boot, expected.unixSeconds) = (Self.here, 7)
        #expect(found == [expected])
    }

    /// However much of the last record a crash left, what was there before it stands, and what is written next is read.
    @Test func aTornEndIsCutOff() throws {
        let whole = MemoryStore()
        let first = try Journal(of: "m", store: whole, boot: Self.here) { 7 }
        try first.log(record(.source, .offer, 2))
        let length = whole.contents().count
        try first.write(record(.source, .handoff, 2))
        let lost = whole.contents().count - length
        for kept in 0..<lost {
            let disk = MemoryStore()
            try disk.append(Array(whole.contents().prefix(length + kept)))
            let journal = try Journal(of: "m", store: disk, boot: Self.here) { 7 }
            #expect(try journal.history().records.map(\.kind) == [.offer], "\(kept) bytes")
            try journal.log(record(.source, .withdrawn, 2))
            #expect(try journal.history().records.map(\.kind) == [.offer, .withdrawn], "\(kept) bytes")
        }
    }

    /// Blocks of the last record may be on the disk without those before them. Found by the simulation.
    @Test func anEndWithoutItsBeginningIsCutOff() throws {
        let journal = try open()
        try journal.log(record(.source, .offer, 2))
        let length = disk.contents().count
        try journal.write(record(.source, .handoff, 2))
        for missing in 1...disk.contents().count - length {
            let torn = MemoryStore()
            var bytes = disk.contents()
            for index in length..<length + missing { bytes[index] = 0 }
            try torn.append(bytes)
            let again = try Journal(of: "m", store: torn, boot: Self.here) { 7 }
            #expect(try again.history().records.map(\.kind) == [.offer], "\(missing) bytes missing")
        }
    }

    /// The first write makes the file: whatever a crash left of it, nothing was there before. Found by the simulation.
    @Test func aTornBeginningIsNoJournal() throws {
        let journal = try open()
        try journal.write(record(.source, .offer, 2))
        let whole = disk.contents()
        for missing in [0..<64] + (0..<whole.count).map({ $0..<whole.count }) {
            let torn = MemoryStore()
            var bytes = whole
            for index in missing { bytes[index] = 0 }
            // A record may end with zeroes.
            guard bytes != whole else { continue }
            try torn.append(bytes)
            let again = try Journal(of: "m", store: torn, boot: Self.here) { 7 }
            #expect(try again.history().records.isEmpty, "\(missing) missing")
            try again.log(record(.source, .offer, 3))
            #expect(try again.history().records.map(\.epoch) == [Epoch(3)])
        }
    }

    /// Only the last record may be torn: one that another process wrote is durable before the next is appended. Found by the
    /// simulation.
    @Test func whatAnotherProcessWroteIsDurableBeforeTheNext() throws {
        let mine = try open(), other = try open()
        try mine.log(record(.source, .offer, 2))
        try other.write(record(.target, .confirmed, 1))
        try mine.write(record(.source, .handoff, 2))
        disk.crash()
        #expect(try open(Self.later).history().records.map(\.kind) == [.offer, .confirmed])
    }

    /// Bytes 16 to 19 are a record's length, byte 60 is in its body.
    @Test(arguments: [16, 17, 18, 19, 60])
    func damageInTheMiddleIsNotTakenForAnEnd(at byte: Int) throws {
        let journal = try open()
        for epoch in 2...4 { try journal.log(record(.target, .offered, UInt64(epoch))) }
        var bytes = disk.contents()
        bytes[byte] ^= 1
        let damaged = MemoryStore()
        try damaged.append(bytes)
        #expect(
            failure { () throws(TurntableError) in _ = try Journal(of: "m", store: damaged, boot: Self.here) { 7 } }?.kind == .unsupported)
    }

    /// What was written and not made durable is gone with the host, unless somebody believed it: then it was made durable first.
    @Test func whatWasBelievedIsDurable() throws {
        try open().write(record(.target, .offered, 2))
        disk.crash()
        #expect(try open(Self.later).history().records.isEmpty)
        try open(Self.later).write(record(.target, .offered, 3))
        _ = try open(Self.later)
        disk.crash()
        #expect(try open(Self.here).history().records.count == 1)
    }

    @Test func anEpochIsDecidedOnce() throws {
        let journal = try open()
        try journal.log(record(.target, .offered, 2))
        #expect(try journal.decide(record(.target, .committed, 2)) == .owning)
        #expect(try journal.decide(record(.target, .refused, 2)) == .owning)
        #expect(try journal.decide(record(.target, .refused, 3)) == .refused)
        #expect(try journal.decide(record(.target, .committed, 3)) == .refused)
        #expect(try journal.history().records.count == 3)
    }

    @Test func onlyTheBootThatWroteItProvesThatNothingFollowed() throws {
        try open().log(record(.target, .offered, 2))
        try open().log(record(.source, .offer, 5))
        let here = try open().history(), later = try open(Self.later).history()
        #expect(here.mayRefuse(Epoch(2)) && !later.mayRefuse(Epoch(2)))
        #expect(here.elsewhere == nil && later.elsewhere?.kind == .offer)
    }

    @Test func rightsFollowTheRecords() throws {
        let journal = try open()
        func source() throws -> SourceRight { try journal.history().source(Epoch(2)) }
        #expect(try source() == .owning)
        for (kind, right) in [(JournalRecord.Kind.offer, SourceRight.offering), (.handoff, .relinquished), (.refused, .reclaimed)] {
            try journal.log(record(.source, kind, 2))
            #expect(try source() == right)
        }
        // The source runs under the next one.
        #expect(try journal.history().highestEpoch == Epoch(3))
        #expect(try journal.history().elsewhere == nil)
        try journal.log(record(.source, .offer, 4))
        try journal.log(record(.source, .handoff, 4))
        #expect(try journal.history().elsewhere?.epoch == Epoch(4))
        try journal.log(record(.target, .committed, 5))
        #expect(try journal.history().elsewhere == nil)
    }

    @Test func aFullDiskStopsAHandoffBeforeItIsSaid() throws {
        let stage = try Stage()
        stage.source.whenSaving = { [unowned stage] () throws(TurntableError) in stage.sourceDisk.fill() }
        let (sent, _) = stage.run()
        #expect(sent.error?.why.contains("disk is full") == true, "\(sent)")
        #expect(stage.source.isRunning && !stage.conversation.contains("S handoff"))
    }
}

/// The line is cut, and comes back.
@Suite(.serialized) struct ResumeTests {
    @Test(arguments: [1, 3])
    func aCutInTheCopyCostsWhatWasOnItsWay(streams: Int) throws {
        let stage = try Stage(rate: BitRate(bitsPerSecond: 30e6))
        stage.options.streams = streams
        stage.options.resumeWindow = .seconds(10)
        let isFirst = Monitor(true)
        stage.whenReported = { event, stage in
            guard case .progress = event,
                isFirst.update({ isFirst in
                    defer { isFirst = false }; return isFirst
                })
            else { return }
            stage.loopback.cut()
        }
        let report = try stage.run().source.get()
        #expect(report.attachments == 2)
        #expect(report.pagesSentAgain < 600, "\(report.pagesSentAgain)")
        // What went over the line that was cut counts too.
        #expect(report.bytesOnWire >= report.rounds[0].bytesOnWire + report.pagesSentAgain * pageBytes, "\(report.bytesOnWire)")
        #expect(try #require(stage.host.machine).memory.differences(from: stage.source.memory) == [])
        #expect(stage.source.isDiscarded && stage.source.isForgotten)
    }

    /// From the hand-off on the machine stays still, and the line is waited for.
    @Test func aCutAfterHandoffEndsWithOneMachine() throws {
        let stage = try Stage(seed: 4)
        stage.options.resumeWindow = .seconds(10)
        let isFirst = Monitor(true)
        stage.fromSource = { [unowned stage] message in
            if case .handoff = message,
                isFirst.update({ isFirst in
                    defer { isFirst = false }; return isFirst
                })
            {
                stage.loopback.cut()
            }
            return [message]
        }
        let report = try stage.run().source.get()
        #expect(report.attachments == 2 && stage.source.resumes == 0)
        let machine = try #require(stage.host.machine)
        #expect(machine.isRunning && machine.memory.differences(from: stage.source.memory) == [])
    }

    /// The answer is lost: the journal at the target gives it again.
    @Test func aLostAnswerIsAskedForAgain() throws {
        let stage = try Stage(seed: 5)
        stage.options.resumeWindow = .seconds(10)
        let isFirst = Monitor(true)
        stage.fromTarget = { [unowned stage] message in
            guard case .committed = message,
                isFirst.update({ isFirst in
                    defer { isFirst = false }; return isFirst
                })
            else { return [message] }
            stage.loopback.cut()
            return []
        }
        let began = Clock.now
        _ = try stage.run().source.get()
        #expect(stage.source.isDiscarded && stage.source.resumes == 0)
        #expect(stage.conversation.filter { $0 == "S handoff" }.count == 1)
        // A target that answers from its journal and leaves compares nothing: that is not waited for.
        #expect(Clock.now - began < Limits.stallTime)
    }

    /// The source gave up while the line was dead: the target waits for it, and does not know. A new offer says so.
    @Test func aNewOfferEndsTheOneThatWasGivenUp() throws {
        let stage = try Stage(seed: 7, rate: BitRate(bitsPerSecond: 30e6))
        stage.options.resumeWindow = .seconds(60)
        let isCut = Monitor(false)
        stage.whenReported = { event, stage in
            switch event {
            case .progress where !isCut.read({ $0 }):
                isCut.update { $0 = true }
                stage.loopback.cut()
            case .interrupted: _ = stage.migration.cancel()
            default: break
            }
        }
        let serving = stage.receive()
        #expect(stage.send().error?.kind == .cancelled)
        let report = try stage.send().get()
        stage.reception.interrupt()
        _ = serving.outcome()
        stage.source.end()
        #expect(report.epoch == 43 && report.attachments == 1)
        // Never two at once.
        #expect(try stage.targetJournals().open("fake").history().records.map(\.kind) == [.offered, .refused, .offered, .committed, .confirmed])
        #expect(try #require(stage.host.machine).memory.differences(from: stage.source.memory) == [])
    }

    /// Killed when COMMITTED was on record and the machine's remains were not gone: the target need not be asked again.
    @Test func whatIsLeftOfACommittedMachineIsTakenAway() throws {
        let stage = try Stage(seed: 6)
        stage.host.whenLoading = { [unowned stage] () throws(TurntableError) in stage.loopback.cut() }
        #expect(stage.run().source.error?.kind == .relinquished)
        let record = JournalRecord(role: .source, kind: .committed, epoch: Epoch(42), session: .none)
        #expect(try stage.sourceJournals().open("fake").settle(record) == .committed)
        let said = stage.conversation.count
        let report = try stage.send().get()
        #expect(report.epoch == 42 && report.verification == nil)
        #expect(stage.source.isDiscarded && stage.source.isForgotten && stage.source.resumes == 0)
        #expect(stage.conversation.count == said)
    }
}

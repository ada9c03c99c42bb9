internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat
@testable internal import XenStream

/// A target where libxl goes on before the end.
struct EarlyTests {
    /// A target's calls of what is done early, in order, and what it is told.
    private final class EarlyCourse: Sendable {
        let calls = Monitor<[String]>([])
        let isReady = Monitor(false)
        let restorer = Monitor<Result<Void, TurntableError>?>(nil)

        var early: StreamTarget.Early {
            StreamTarget.Early(
                begin: { (rings) throws(TurntableError) in self.calls.update { $0.append("begin \(rings.store) \(rings.console)") } },
                isReady: { self.isReady.read { $0 } },
                awaitRestorer: { () throws(TurntableError) in
                    self.calls.update { $0.append("restorer") }
                    try self.restorer.wait(atMost: patience, until: { $0 })?.get()
                })
        }
    }

    /// The restorer gets the rings' pages empty in every version, libxl goes on while the domain still runs, the source hears when it is
    /// through with that, and of the end when the restorer is done.
    @Test(arguments: [1, 3], [true, false]) func libxlGoesOnBeforeTheEnd(streams: Int, isWell: Bool) throws {
        let seed = UInt64.random(in: 0 ... .max)
        let image = SavedImage(seed: seed, frames: 2000, rounds: 4, ordinary: [rings.store, rings.console])
        let course = EarlyCourse()
        let (saver, saverEnd) = try Socket.pair(), (restorer, restorerEnd) = try Socket.pair()
        let held = Descriptor(owning: saverEnd)
        let ends = try Ends(.sealed, streams: streams)
        let source = StreamSource(saver: Descriptor(owning: saver), transport: ends.source, streams: streams, token: token, rings: rings)
        let target = StreamTarget(restorer: Descriptor(owning: restorer), token: token, early: course.early)
        let reader = FakeHelper.reader(of: restorerEnd)
        let targetOutcome = Background { () throws(TurntableError) in try target.run(ends.target) }
        let sourceOutcome = Background { () throws(TurntableError) in try source.run() }
        try Socket.write(held, Array(image.bytes.prefix(image.endStart)), what: "saving")
        // As a helper that wants to suspend.
        #expect(course.calls.wait(atMost: patience, until: { $0.isEmpty ? nil : $0 }) == ["begin 7 900"], "seed \(seed)")
        #expect(!source.awaitReadiness(atMost: .milliseconds(200)))
        course.isReady.update { $0 = true }
        #expect(source.awaitReadiness(atMost: patience))
        try Socket.write(held, Array(image.bytes[image.endStart...]), what: "saving")
        #expect(course.calls.wait(atMost: patience, until: { $0.count == 2 ? $0 : nil })?.last == "restorer")
        #expect(sourceOutcome.outcome(within: .milliseconds(200)) == nil)
        let failure = TurntableError(.hypervisor, "restoring the domain", "no memory for it")
        course.restorer.update { $0 = isWell ? .success(()) : .failure(failure) }
        let outcome = try #require(sourceOutcome.outcome(within: patience))
        if isWell {
            #expect(try outcome.get().pages == image.pages)
            try targetOutcome.value(within: patience)
            target.end()
        } else {
            #expect("\(try #require(#expect(throws: TurntableError.self) { try outcome.get() }))".contains("no memory for it"))
        }
        let restored = try reader.value(within: patience)
        let isTheSame = restored == image.blanked([rings.store, rings.console])
        #expect(isTheSame, "seed \(seed)")
    }

    /// A target that needs no time is ready when it has met the source.
    @Test func othersAreReadyAtOnce() throws {
        let image = SavedImage(seed: 7, frames: 10, rounds: 1)
        let way = try Way(image.bytes, try Ends(.plain, streams: 1), streams: 1)
        #expect(way.source.awaitReadiness(atMost: patience))
        _ = try way.sourceOutcome.value(within: patience)
    }

    @Test func ringsThatNeverComeAreRefused() throws {
        let image = SavedImage(seed: 8, frames: 100, rounds: 1)
        let course = EarlyCourse()
        let ends = try Ends(.plain, streams: 1)
        let (saver, saverEnd) = try Socket.pair(), (restorer, restorerEnd) = try Socket.pair()
        let source = StreamSource(saver: Descriptor(owning: saver), transport: ends.source, streams: 1, token: token, rings: rings)
        let target = StreamTarget(restorer: Descriptor(owning: restorer), token: token, early: course.early)
        let writer = FakeHelper.writer(image.bytes, to: saverEnd)
        let reader = FakeHelper.reader(of: restorerEnd)
        let targetOutcome = Background { () throws(TurntableError) in try target.run(ends.target) }
        let error = #expect(throws: TurntableError.self) { try source.run() }
        #expect("\(error!)".contains("the domain's rings are not in it"))
        #expect(throws: TurntableError.self) { try targetOutcome.value(within: patience) }
        #expect(course.calls.read { $0 } == [])
        _ = (try writer.value(within: patience), try reader.value(within: patience))
    }
}

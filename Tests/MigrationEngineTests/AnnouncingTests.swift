internal import MigrationEngine
internal import TestSupport
internal import Testing
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// When the keepers of a machine's address are told that it is at the target.
@Suite(.serialized) struct AnnouncingTests {
    private func stage(_ events: Monitor<[String]>) throws -> Stage {
        let stage = try Stage()
        stage.announcing = { machine, epoch in
            events.update { $0.append("prepare \(machine) \(epoch.value)") }
            return { events.update { $0.append("say") } }
        }
        stage.source.whenPaused = { events.update { if $0.last != "pause" { $0.append("pause") } } }
        stage.fromTarget = { message in
            if case .committed = message { events.update { $0.append("committed") } }
            return [message]
        }
        return stage
    }

    @Test func itIsPreparedBeforeThePauseAndSaidOnceBeforeTheSourceHears() throws {
        let events = Monitor<[String]>([])
        let stage = try stage(events)
        let epoch = stage.source.epoch.next.value
        _ = try stage.run().source.get()
        #expect(events.read { $0 } == ["prepare fake \(epoch)", "pause", "say", "committed"])
    }

    @Test func theSourceSaysSoAfterTheHandOff() throws {
        let events = Monitor<[String]>([])
        let stage = try Stage()
        let epoch = stage.source.epoch.next.value
        stage.options.announcing = { machine, epoch, isHere in
            events.update { $0.append("prepare \(machine) \(epoch.value) \(isHere ? "here" : "there")") }
            return { events.update { $0.append("say") } }
        }
        stage.source.whenPaused = { events.update { if $0.last != "pause" { $0.append("pause") } } }
        stage.afterSource = { message, _ in if case .handoff = message { events.update { $0.append("handoff") } } }
        _ = try stage.run().source.get()
        #expect(events.read { $0 } == ["prepare fake \(epoch) there", "pause", "handoff", "say"])
    }

    /// What was given back is announced again, under the epoch that it runs under.
    @Test func aMachineThatIsGivenBackIsAnnouncedHere() throws {
        let said = Monitor<[String]>([])
        let stage = try Stage()
        let epoch = stage.source.epoch.next
        stage.options.announcing = { _, epoch, isHere in { said.update { $0.append("\(epoch.value) \(isHere ? "here" : "there")") } } }
        stage.host.whenLoading = { () throws(TurntableError) in throw TurntableError(.hypervisor, "loading", "it does not like the state") }
        #expect(stage.run().source.error?.kind == .refused)
        #expect(stage.source.isRunning && stage.source.epoch == epoch.next)
        #expect(said.read { $0 } == ["\(epoch.value) there", "\(epoch.next.value) here"])
    }

    @Test func aSourceThatCannotTellDoesNotPause() throws {
        let stage = try Stage()
        stage.options.announcing = { (_, _, _) throws(TurntableError) in throw TurntableError(.usage, "reading web.key", "it is not there") }
        #expect(stage.run().source.error?.kind == .usage)
        #expect(stage.source.pauses == 0 && stage.source.isRunning)
    }

    /// A target that cannot tell is refused while the machine runs at its source.
    @Test func whatCannotBePreparedIsRefusedBeforeThePause() throws {
        let stage = try Stage()
        stage.announcing = { (_, _) throws(TurntableError) in throw TurntableError(.usage, "reading web.key", "it is not there") }
        let error = try #require(stage.run().source.error)
        #expect(error.kind == .refused && error.description.contains("web.key"), "\(error)")
        #expect(stage.source.pauses == 0 && stage.source.isRunning)
        #expect(try #require(stage.host.machine).isDiscarded)
    }

    @Test func aMachineThatDoesNotComeIsNotAnnounced() throws {
        let events = Monitor<[String]>([])
        let stage = try stage(events)
        stage.source.whenSaving = { () throws(TurntableError) in throw TurntableError(.hypervisor, "saving", "it failed") }
        #expect(stage.run().source.error != nil)
        #expect(events.read { $0.contains { $0.hasPrefix("prepare") } && !$0.contains("say") })
        #expect(stage.source.isRunning)
    }
}

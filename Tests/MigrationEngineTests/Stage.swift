internal import MigrationEngine
internal import TestSupport
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A migration between fakes over a loopback: everything that a test can stop, break or listen to.
final class Stage: @unchecked Sendable {
    let loopback: Loopback
    let source: FakeSource
    let host = FakeHost()
    var options = MigrationOptions()
    /// Called with what the target reports, on its thread.
    var whenTargetReported: @Sendable (MigrationEvent, Stage) -> Void = { _, _ in }
    /// Called with what the source reports, on its thread.
    var whenReported: @Sendable (MigrationEvent, Stage) -> Void = { _, _ in }
    /// What becomes of a message that the target, or the source, sends.
    var fromTarget: @Sendable (ControlMessage) -> [ControlMessage] = { [$0] }
    var fromSource: @Sendable (ControlMessage) -> [ControlMessage] = { [$0] }
    /// What becomes of a message that an end receives; it may take its time.
    var toSource: @Sendable (ControlMessage) -> [ControlMessage] = { [$0] }
    var toTarget: @Sendable (ControlMessage) -> [ControlMessage] = { [$0] }
    /// What is made ready at the target to tell the keepers of the machine's address.
    var announcing = TargetOptions().announcing
    /// Whether the target takes an offer, and how many bytes of it.
    var admit = TargetOptions().admit
    /// Called after the source has sent a message.
    var afterSource: @Sendable (ControlMessage, Stage) -> Void = { _, _ in }

    private let said = Monitor([String]())
    private let migrations = Monitor<SourceMigration?>(nil)
    private let receptions = Monitor<Reception?>(nil)
    private let targetOutcome = Monitor<Result<TargetMigration.Outcome, TurntableError>?>(nil)
    private let controls = Monitor<(source: (any ControlChannel)?, target: (any ControlChannel)?)>((nil, nil))
    private let senders = Monitor([any FrameSender]())
    /// Streams over which the source may not write the machine's memory by itself any more.
    let accessesEnded = Monitor(0)
    let sourceDisk = MemoryStore(), targetDisk = MemoryStore()
    /// The boot that each end's kernel is on.
    var sourceBoot = BootID(high: 1, low: 1), targetBoot = BootID(high: 1, low: 2)
    let targetHost = HostID.random()

    init(seed: UInt64 = 1, regionPages: [Int] = [1500, 600, 3], writes: Int = 20, rate: BitRate? = nil) throws {
        loopback = Loopback(queueBytes: 256 << 10, rate: rate)
        source = try FakeSource(seed: seed, regionPages: regionPages, writes: writes)
        // Wide enough that a busy test machine is no reason to fail; what fails here fails for a cause.
        options.budget = .seconds(3)
        options.statedRate = BitRate(bitsPerSecond: 10e9)
        options.resumeWindow = .zero
    }

    /// Everything said on the control stream but heartbeats, in order.
    var conversation: [String] { said.read { $0 } }
    var migration: SourceMigration { migrations.read { $0! } }
    var reception: Reception { receptions.read { $0! } }
    var targetControl: (any ControlChannel)? { controls.read { $0.target } }

    func cancelTarget() -> Bool { reception.interrupt() }

    func sourceJournals() -> Journals {
        Journals(host: HostID(high: 5, low: 5)) { [sourceDisk, sourceBoot] (name) throws(TurntableError) in
            try Journal(of: name, store: sourceDisk, boot: sourceBoot) { 0 }
        }
    }
    func targetJournals() -> Journals {
        Journals(host: targetHost) { [targetDisk, targetBoot] (name) throws(TurntableError) in
            try Journal(of: name, store: targetDisk, boot: targetBoot) { 0 }
        }
    }

    func run() -> (source: Result<MigrationReport, TurntableError>, target: Result<TargetMigration.Outcome, TurntableError>?) {
        let serving = receive()
        let outcome = send()
        let received = conversation.contains("S offer") ? targetOutcome.wait(atMost: .seconds(10)) { $0 } : nil
        reception.interrupt()
        _ = serving.outcome()
        source.end()
        return (outcome, received)
    }

    /// The target's process, on a thread of its own, until its reception is interrupted.
    func receive() -> Background<Void> {
        var options = TargetOptions()
        options.waits = self.options.waits
        options.announcing = announcing
        options.resumeWindow = self.options.resumeWindow
        options.admit = admit
        targetOutcome.update { $0 = nil }
        let reception = Reception(
            host: host, journals: targetJournals(), options: options, once: false,
            reports: .init(
                note: { _ in }, event: { [self] in whenTargetReported($0, self) },
                ended: { [targetOutcome] outcome, _ in targetOutcome.update { $0 = outcome } }))
        receptions.update { $0 = reception }
        return Background { [self] () throws(TurntableError) in try? reception.serve(StagedTarget(self)) }
    }

    /// The source's process, on this thread.
    func send() -> Result<MigrationReport, TurntableError> {
        let migration = SourceMigration(
            machine: source, transport: StagedTransport(self), journals: sourceJournals(), options: options
        ) { [self] in whenReported($0, self) }
        migrations.update { $0 = migration }
        do throws(TurntableError) { return .success(try migration.run()) } catch { return .failure(error) }
    }

    /// The source's process ends: what it has sent can still be read.
    func killSource() {
        controls.read { $0.source }?.shutDown()
        for sender in senders.read({ $0 }) { sender.shutDown() }
    }

    private func hear(_ who: String, _ messages: [ControlMessage]) -> [ControlMessage] {
        for message in messages {
            let word = "\(message)".prefix { $0 != "(" }
            if word != "ping", word != "pong" { said.update { $0.append("\(who) \(word)") } }
        }
        return messages
    }

    /// The target's transport, listened to.
    private final class StagedTarget: TargetTransport {
        private let stage: Stage
        init(_ stage: Stage) { self.stage = stage }

        func accept(within limit: Nanoseconds) throws(TurntableError) -> IncomingConnection? {
            let stage = stage
            let connection = try stage.loopback.accept(within: .milliseconds(20))
            if case .data(let receiver, let preface)? = connection {
                return .data(StagedReceiver(receiver) { stage.accessesEnded.update { $0 += 1 } }, preface)
            }
            guard case .control(let control, let peer)? = connection else { return connection }
            stage.controls.update { $0.target = control }
            return .control(
                StagedChannel(control, send: { stage.hear("T", stage.fromTarget($0)) }, receive: { stage.toTarget($0) }, after: { _ in }),
                peer: peer)
        }
    }

    /// The source's transport, listened to.
    private final class StagedTransport: SourceTransport {
        private let stage: Stage
        init(_ stage: Stage) { self.stage = stage }

        func connectControl() throws(TurntableError) -> any ControlChannel {
            let stage = stage
            let control = try stage.loopback.connectControl()
            stage.controls.update { $0.source = control }
            return StagedChannel(
                control, send: { stage.hear("S", stage.fromSource($0)) }, receive: { stage.toSource($0) },
                after: { stage.afterSource($0, stage) })
        }
        func connectStream(_ index: Int, attachment: AttachmentID, pages: any PageSource) throws(TurntableError) -> any FrameSender {
            let sender = try stage.loopback.connectStream(index, attachment: attachment, pages: pages)
            stage.senders.update { $0.append(sender) }
            return sender
        }
    }
}

/// A data stream of a target whose engine is listened to.
final class StagedReceiver: FrameReceiver {
    private let inner: any FrameReceiver
    private let ended: @Sendable () -> Void
    init(_ inner: any FrameReceiver, ended: @escaping @Sendable () -> Void) {
        self.inner = inner
        self.ended = ended
    }
    func receive(into sink: any FrameSink) throws(TurntableError) -> FrameHeader? { try inner.receive(into: sink) }
    func endAccess() {
        inner.endAccess()
        ended()
    }
    func shutDown() { inner.shutDown() }
}

/// A control stream whose messages a test sees and changes.
final class StagedChannel: ControlChannel {
    var attachment: AttachmentID { inner.attachment }
    var peerName: String { inner.peerName }
    var peerKey: [UInt8] { inner.peerKey }
    private let inner: any ControlChannel
    private let sending: @Sendable (ControlMessage) -> [ControlMessage]
    private let receiving: @Sendable (ControlMessage) -> [ControlMessage]
    private let after: @Sendable (ControlMessage) -> Void
    private let waiting = Monitor([ControlMessage]())

    init(
        _ inner: any ControlChannel, send: @escaping @Sendable (ControlMessage) -> [ControlMessage],
        receive: @escaping @Sendable (ControlMessage) -> [ControlMessage], after: @escaping @Sendable (ControlMessage) -> Void
    ) {
        self.inner = inner
        sending = send
        receiving = receive
        self.after = after
    }

    func send(_ message: ControlMessage) throws(TurntableError) {
        for message in sending(message) { try inner.send(message) }
        after(message)
    }
    func receive(within limit: Nanoseconds) throws(TurntableError) -> ControlMessage? {
        if let message = waiting.update({ $0.isEmpty ? nil : $0.removeFirst() }) { return message }
        guard let message = try inner.receive(within: limit) else { return nil }
        var messages = receiving(message)
        guard !messages.isEmpty else { return nil }
        let first = messages.removeFirst()
        waiting.update { $0 += messages }
        return first
    }
    func shutDown() { inner.shutDown() }
}

extension Result where Failure == TurntableError {
    var error: TurntableError? { if case .failure(let error) = self { error } else { nil } }
}

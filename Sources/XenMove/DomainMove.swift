// A move of a domain by libxl without xl, at the source:
//
//   journal and Xen say whose it is ─ libxl saves it into our line, where the target's libxl makes it ─ the journal says whose it is
//
// Memory, pause and hand-off are the engine's, in the helpers that both libxl start (LIBXL_SAVE_HELPER): HANDOFF is in the journal here
// before the hand-off's first byte leaves, COMMITTED in the target's before the domain runs there. What libxl says of success or
// failure decides nothing here; after whatever end, the journal does, when no process of the move lives that could still write it.

internal import Glibc
public import MigrationEngine
public import Transport
public import TurntableCore
internal import TurntableLinux
internal import WireFormat
internal import XLLine

public final class DomainMove: Sendable {
    public struct Settings: Sendable {
        /// As the operator names the domain.
        public var domain: String
        /// The target's service, as the journal names it and as it can be asked again.
        public var peer: String
        public var journals: Journals
        public var lockDirectory: String
        /// What the helper is told besides.
        public var environment: [String: String]
        /// The operator says that it is this host's, whatever the journal here or a suspend by somebody else says.
        public var isAnew: Bool
        public var believes: @Sendable (_ statement: [UInt8], _ signature: [UInt8]) -> Bool

        public init(
            domain: String, peer: String, journals: Journals, lockDirectory: String, environment: [String: String], isAnew: Bool,
            believes: @escaping @Sendable (_ statement: [UInt8], _ signature: [UInt8]) -> Bool
        ) {
            (self.domain, self.peer, self.journals, self.lockDirectory) = (domain, peer, journals, lockDirectory)
            (self.environment, self.isAnew, self.believes) = (environment, isAnew, believes)
        }
    }

    private struct State {
        var isCancelled = false
        /// Our end of libxl's stream, while there is one.
        var stream: Int32?
    }
    private let libxl: LibxlProgram
    private let settings: Settings
    private let connect: @Sendable () throws(TurntableError) -> any ControlChannel
    private let event: @Sendable (MigrationEvent) -> Void
    private let state = Monitor(State())

    /// - Parameters:
    ///   - connect: a line to the target's service.
    ///   - event: told what happens, here and in the helper.
    public init(
        _ libxl: LibxlProgram, _ settings: Settings, connect: @escaping @Sendable () throws(TurntableError) -> any ControlChannel,
        event: @escaping @Sendable (MigrationEvent) -> Void
    ) {
        (self.libxl, self.settings, self.connect, self.event) = (libxl, settings, connect, event)
    }

    /// Asks for an end before the hand-off: the helper sees that nobody reads the stream's other end, and knows whether it is too late.
    public func cancel() {
        state.update { state in
            state.isCancelled = true
            if let stream = state.stream { shutdown(stream, Int32(SHUT_WR)) }
        }
    }

    /// Moves the domain, or goes on with a move that was cut off. Returns if it is the target's; else the error says where it is.
    /// - Returns: nil if that is from an earlier move, or if the helper did not live to say it.
    public func run() throws(TurntableError) -> MigrationReport? {
        let uuid = try libxl.describe(settings.domain).uuid
        let lock = try MoveLock(of: uuid, in: settings.lockDirectory, within: Limits.xenLockTime)
        let journal = try settings.journals.open(uuid)
        guard try settle(journal, Limits.helloTime) else { return nil }
        let domain = try libxl.describe(settings.domain)
        let reports = try ReportDoor(path: helperSocketPath(), heard: event)
        let failure = move(domain, lock.descriptor, reports)
        // libxl may be done with it before the target has said that it runs there.
        if case .ask = try MoveDecision(journal.history(), .suspended) { _ = reports.lastWord(within: Limits.commitTime) }
        // Before libxl's last word: the domain is the target's, and what is here can go.
        if try MoveDecision(journal.history(), .suspended) == .end {
            try end(domain.number)
            guard case .success(var report)? = reports.lastWord(within: Limits.hypervisorTime) else { return nil }
            report.machine = settings.domain
            return report
        }
        // From here on nobody but this process writes of it.
        do { _ = consume lock }
        let again = try MoveLock(of: uuid, in: settings.lockDirectory, within: Limits.xenLockTime)
        defer { _ = again.descriptor }
        guard try settle(journal, Limits.xenAskTime, afterMove: true) else { return nil }
        throw failure
    }

    // MARK: - Whose it is

    /// Brings the domain to where its journal says that it belongs. True if it runs here; throws if that is not known, or not to be.
    private func settle(_ journal: Journal, _ patience: Nanoseconds, afterMove: Bool = false) throws(TurntableError) -> Bool {
        let deadline = Clock.now + patience
        while true {
            let domain = try libxl.describe(settings.domain)
            let history = try journal.history()
            switch MoveDecision(history, domain.standing, wasOurs: afterMove) {
            case .move: return true
            case .resume:
                try resume(domain.number, "was suspended by a move that did not come to its end")
                return true
            case .end:
                try end(domain.number)
                return false
            case .ask(let offer): try ask(offer, journal, until: deadline)
            case .refuse where settings.isAnew && domain.standing == .runs:
                try journal.log(JournalRecord(role: .source, kind: .started, epoch: history.highestEpoch.next, session: .none))
            case .refuse where settings.isAnew && domain.standing == .suspended:
                try resume(domain.number, "was suspended, which --anew undoes")
                return true
            case .refuse(let why):
                throw TurntableError(
                    .refused, "moving \(settings.domain)", why,
                    remedy: domain.standing.canBeOverruled
                        ? "if you know that it runs nowhere else, and that nothing else moves or saves it, add --anew"
                        : "see `xl list` and `turntable journal \(domain.uuid)`")
            }
        }
    }

    private func resume(_ domain: UInt32, _ why: String) throws(TurntableError) {
        try libxl.resume(domain)
        event(.note("\(settings.domain) \(why), and runs on here"))
    }

    private func end(_ domain: UInt32) throws(TurntableError) {
        do throws(TurntableError) { try libxl.destroy(domain) } catch {
            throw TurntableError(
                .hypervisor, "ending what is left of \(settings.domain) here", "\(error.why); it is the target's", remedy: "`xl destroy \(domain)`")
        }
    }

    /// Has the target say what became of an offer, and writes that down.
    private func ask(_ offer: JournalRecord, _ journal: Journal, until deadline: Nanoseconds) throws(TurntableError) {
        while true {
            do throws(TurntableError) {
                let resolution = try resolution(of: offer, journal.machine)
                switch try journal.history().hear(resolution, of: offer, of: journal.machine, believing: settings.believes) {
                case .outcome(let record):
                    _ = try journal.settle(record)
                    return try journal.sync()
                case .waiting, .unknown: throw unknown(offer, journal, resolution.detail)
                case .anotherHost: throw unknown(offer, journal, "another host answers there than the one that it was handed to")
                case .unsigned: throw unknown(offer, journal, "it says that it never ran there, and did not sign that")
                }
            } catch where error.kind == .line {
                guard Clock.now < deadline else { throw unknown(offer, journal, error.description) }
                Clock.sleep(Limits.pollTime)
            }
        }
    }

    private func resolution(of offer: JournalRecord, _ machine: String) throws(TurntableError) -> Resolution {
        let control = try connect()
        defer { control.shutDown() }
        try control.send(.query(Query(machine: machine, epoch: offer.epoch, session: offer.session)))
        guard case .resolution(let resolution)? = try control.receive(within: Limits.helloTime), resolution.epoch == offer.epoch else {
            throw TurntableError(.line, "asking \(offer.peer)", "it gave no answer")
        }
        return resolution
    }

    private func unknown(_ offer: JournalRecord, _ journal: Journal, _ why: String) -> TurntableError {
        TurntableError(
            .relinquished, "asking \(offer.peer) for \(settings.domain)",
            "\(why); it was handed off, stays suspended here, and must not be resumed before that is known",
            remedy: "`turntable xen migrate` again asks again; if that host is gone, see `turntable fence \(journal.machine)`")
    }

    // MARK: - Moving it

    /// Has libxl move it. What is given is the error that counts if it did not.
    private func move(_ domain: DomainFacts, _ lock: Int32, _ reports: ReportDoor) -> TurntableError {
        do throws(TurntableError) {
            let control = try connect()
            defer { control.shutDown() }
            let (ours, theirs) = try Socket.pair()
            let stream = Descriptor(owning: ours)
            let theirEnd = Descriptor(owning: theirs)
            let input = try stream.duplicate().release()
            let answer = Monitor<Result<Int32, TurntableError>?>(nil)
            let line = WorkerThread("xen-line") {
                let result = Result { () throws(TurntableError) in
                    try RemoteProgram.run(LibxlProgram.takeWords, over: control, input: Descriptor(owning: input), output: 2, errors: 2)
                }
                answer.update { $0 = result }
                // Nobody takes the stream there: the helper sees that, and knows whether it is too late.
                if result != .success(0) { shutdown(ours, Int32(SHUT_RDWR)) }
            }
            defer {
                control.shutDown()
                line.join()
            }
            var environment = settings.environment
            environment[HelperSetting.machine] = domain.uuid
            environment[HelperSetting.reports] = reports.path
            let child = try libxl.save(domain.number, to: theirEnd.rawValue, holding: lock, environment)
            let isCancelled = state.update { state in
                state.stream = ours
                return state.isCancelled
            }
            if isCancelled { cancel() }
            defer { state.update { $0.stream = nil } }
            let code = child.wait()
            Socket.endWriting(theirEnd)
            return failure(code, answer.wait(atMost: Limits.hypervisorTime) { $0 }, reports)
        } catch { return error }
    }

    private func failure(_ code: Int32, _ answer: Result<Int32, TurntableError>?, _ reports: ReportDoor) -> TurntableError {
        let what = "moving \(settings.domain)"
        if state.read({ $0.isCancelled }) { return TurntableError(.cancelled, what, "cancelled; it runs on here") }
        if case .failure(let error)? = answer { return error }
        if code != 0, case .failure(let error)? = reports.lastWord(within: Limits.heartbeatTime) { return error }
        return TurntableError(.hypervisor, what, "libxl gave up (\(code)); it runs on here", remedy: "see what was said above")
    }
}

// One move from this site: `turntable send`, as often as it takes until somebody knows whose the machine is.
//
//   the sender ended with        then
//   completed, or damaged        the target's
//   an error                     `turntable resolve` says: the source's; the target's; or nobody knows, and it is sent again
//   nothing (it was killed)      it is sent again: that goes on, whatever state the machine was left in (docs/promise.md)

internal import Capability
internal import Foundation
internal import Logging
internal import TurntableCore

actor MoveKeeper {
    struct Kept: Codable {
        var move: Move
        var senders = 0
    }

    private let id: String
    private var kept: Kept
    private let files: Files
    private let programs: TurntablePrograms
    private let options: SiteOptions
    private let log: Logger
    /// The rate that the sender at work was told; nil if an earlier agent told it.
    private var told: Double?

    /// Attempts to end what is left of a machine that the target has, before that is left to somebody else.
    private static let lastAttempts = 5
    private static let retryTime = Duration.seconds(1)

    init(_ id: String, _ kept: Kept, _ files: Files, _ programs: TurntablePrograms, _ options: SiteOptions, _ log: Logger) {
        self.id = id
        self.kept = kept
        self.files = files
        self.programs = programs
        self.options = options
        self.log = log
    }

    var move: Move { kept.move }

    func save() throws(TurntableError) { try files.write(kept, "moves/\(id).json") }

    func begin() throws(TurntableError) {
        try save()
        Task { await carryOn() }
    }

    /// Not to be moved, if that is still possible; the sender decides.
    func cancel() throws(TurntableError) {
        guard kept.move.state == .moving, !kept.move.cancelled else { return }
        kept.move.cancelled = true
        try save()
    }

    /// Another rate from now on.
    func restate(_ bitsPerSecond: Double?) throws(TurntableError) {
        guard kept.move.state == .moving, let bitsPerSecond, kept.move.request?.bitsPerSecond != bitsPerSecond else { return }
        kept.move.request?.bitsPerSecond = bitsPerSecond
        try save()
    }

    /// Until it is over.
    func carryOn() async {
        while kept.move.state == .moving {
            do { try await attempt() } catch {
                log.warning("moving \(id): \(error)")
                try? await Task.sleep(for: Self.retryTime)
            }
        }
    }

    private func attempt() async throws(TurntableError) {
        guard let request = kept.move.request else { return end(.source, nil) }
        var program = kept.senders == 0 ? nil : TurntablePrograms.find(output: files.output(id, "send", kept.senders))
        var output = ProgramOutput(path: files.output(id, "send", kept.senders))
        if program == nil {
            output.read()
            if kept.senders == 0 && kept.move.cancelled { return end(.source, nil) }
            if output.report == nil && output.failure == nil {
                kept.senders += 1
                // Its output's name is known before it is there.
                try save()
                output = ProgramOutput(path: files.output(id, "send", kept.senders))
                program = try programs.start(try arguments(request), output: output.path)
                told = request.bitsPerSecond
            }
        }
        if let program { output = await follow(program, output, request.machine) }
        try await conclude(output, request)
    }

    private func arguments(_ request: MoveRequest) throws(TurntableError) -> [String] {
        var words = ["send", request.machine, request.address, "--json", "--peer", request.targetHost, "--streams", "\(request.streams)"]
        words += (request.disks ?? []).flatMap { ["--disk", $0] }
        words += ["--downtime", "\(request.downtimeMilliseconds)ms"]
        if let rate = request.bitsPerSecond { words += ["--rate", "\(Int(rate))bit"] }
        if let time = request.roundTripMilliseconds { words += ["--rtt", "\(time)ms"] }
        if let token = request.targetToken ?? request.token { words += ["--token", try files.write(text: token, id, "send-token", 0)] }
        for (index, element) in (request.elements ?? []).enumerated() {
            words += ["--via", "\(element.address)=\(try files.write(text: element.key, id, "send-link", index))"]
        }
        words += try options.endpoints?.options(request.machine, at: request.site, to: request.targetSite) ?? []
        return words
    }

    private func follow(_ program: RunningProgram, _ begun: ProgramOutput, _ machine: String) async -> ProgramOutput {
        var output = begun
        while program.isAlive {
            output.read()
            kept.move.progress = output.progress ?? MoveProgress(phase: "connecting")
            if kept.move.cancelled { _ = try? await programs.run(["cancel", machine]) }
            await tellRate(machine)
            try? await Task.sleep(for: .nanoseconds(Limits.agentPollTime.value))
        }
        program.reap()
        output.read()
        return output
    }

    /// It may not listen yet: then it is told the next time.
    private func tellRate(_ machine: String) async {
        guard let rate = kept.move.request?.bitsPerSecond, rate != told else { return }
        if let answer = try? await programs.run(["rate", machine, "\(Int(rate))bit"]), answer.code == 0 { told = rate }
    }

    /// By all its senders, as they said themselves.
    private var sent: SentBytes {
        var sum = SentBytes()
        for number in 0..<kept.senders {
            var output = ProgramOutput(path: files.output(id, "send", number + 1))
            output.read()
            sum.bytesOnWire += output.sent.bytesOnWire
            sum.diskBytes += output.sent.diskBytes
        }
        return sum
    }

    private func conclude(_ output: ProgramOutput, _ request: MoveRequest) async throws(TurntableError) {
        if let report = output.report {
            kept.move.report = report
            return end(.target, nil, epoch: report.epoch)
        }
        guard let failure = output.failure else {
            log.warning("the sender of \(id) was killed: it is started again")
            try? await Task.sleep(for: Self.retryTime)
            return
        }
        if failure.kind == .damaged { return end(.target, failure) }
        switch try await programs.right(to: request.machine, targetHost: request.targetHost) {
        case .source:
            let epoch = try await programs.machines().first { $0.name == request.machine }?.epoch
            end(.source, failure, epoch: epoch)
        case .target(let epoch):
            if kept.senders >= Self.lastAttempts { return end(.target, failure, epoch: epoch) }
            try await again("the target has it; what is left here is ended")
        case .unknown(let why):
            kept.move.progress = MoveProgress(phase: "unanswered")
            try await again(why)
        }
    }

    /// Another sender: the next attempt finds that this one has printed nothing.
    private func again(_ why: String) async throws(TurntableError) {
        log.warning("\(id) is sent again: \(why)")
        try? await Task.sleep(for: Self.retryTime)
        kept.senders += 1
        try save()
    }

    private func end(_ owner: Move.Owner, _ failure: TurntableError?, epoch: UInt64? = nil) {
        kept.move.state = .ended
        kept.move.owner = owner
        kept.move.epoch = epoch
        kept.move.ended = .now
        kept.move.sent = sent
        kept.move.problem = failure.map { Problem($0) }
        do { try options.gate?.revoke(kept.move.request?.token) } catch { log.error("revoking the token of \(id): \(error.why)") }
        do { try save() } catch { log.error("remembering what became of \(id): \(error)") }
    }
}

import Foundation
import MigrationEngine
import TurntableCore
import TurntableLinux

/// Says what happens: a live line on a terminal, plain lines elsewhere, JSON objects when asked.
final class EventPrinter: Sendable {
    private struct State {
        var lineIsOpen = false
        var status = #"{"phase":"connecting"}"#
        var lastPlainProgress = Nanoseconds.zero
    }
    private let json: Bool
    private let isTerminal: Bool
    private let state = Monitor(State())

    /// Without a terminal a progress line is printed this often.
    private static let plainProgressTime = Nanoseconds.seconds(2)

    init(json: Bool) {
        self.json = json
        isTerminal = !json && isatty(1) == 1
    }

    /// The latest event as JSON, for `turntable status`.
    var lastStatus: String { state.read { $0.status } }

    func note(_ text: String) { say(["event": .text("note"), "text": .text(text)], "\(text)") }

    func listening(_ address: Address) { say(["event": .text("listening"), "address": .text("\(address)")], "listening on \(address)") }

    // MARK: - Source

    func source(_ event: MigrationEvent) {
        switch event {
        case .note(let text): note(text)
        case .phase(let phase):
            remember(["event": .text("phase"), "phase": .text(phase.rawValue)])
            if json { say(["event": .text("phase"), "phase": .text(phase.rawValue)], "") }
        case .progress(let progress):
            let members: [String: EventValue] = ["event": .text("progress"), "progress": .object(progress)]
            remember(members)
            showProgress(progress, members)
        case .round(let round):
            say(["event": .text("round"), "round": .object(round)], describe(round))
        case .interrupted(let why, let seconds): interrupted(why, seconds)
        case .resumed(let pages):
            let text = pages == 0 ? "nothing was lost" : "\(PageCount(pages).bytes) that were on their way are sent again"
            say(["event": .text("resumed"), "pagesSentAgain": .number(Double(pages))], "the line is back: \(text)")
        }
    }

    private func interrupted(_ why: String, _ seconds: Double) {
        let members: [String: EventValue] = ["event": .text("interrupted"), "why": .text(why), "secondsLeft": .number(seconds)]
        remember(members)
        say(members, "interrupted: \(why); it goes on if the line comes back within \(Nanoseconds.seconds(seconds))")
    }

    private func describe(_ round: RoundReport) -> String {
        let standstill = round.standstillMilliseconds > 0 ? ", stood still \(time(round.standstillMilliseconds)) for the dirty log" : ""
        let rate = BitRate(bitsPerSecond: round.rateBitsPerSecond)
        return "round \(round.round): \(round.pagesSent) pages, \(ByteCount(round.bytesOnWire)) in \(time(round.milliseconds)) at \(rate); "
            + "\(round.pagesLeft) pages left, guest dirties \(ByteCount(Int(round.dirtyBytesPerSecond)))/s, "
            + "predicted blackout \(time(round.predictedBlackoutMilliseconds))\(standstill)"
    }

    private func time(_ milliseconds: Double) -> Nanoseconds { .milliseconds(milliseconds) }

    func completed(_ report: MigrationReport, to address: Address) {
        let blackout = report.blackout
        let bulk = BitRate(bitsPerSecond: report.bulkRateBitsPerSecond)
        let phases = [
            "pause \(time(blackout.pauseMilliseconds))", "scan \(time(blackout.lastScanMilliseconds))",
            "\(blackout.lastPages) last pages and \(ByteCount(blackout.deviceStateBytes)) of device state \(time(blackout.lastPagesMilliseconds))",
            "one way \(time(blackout.oneWayMilliseconds))", "arrival \(time(blackout.drainMilliseconds))",
            "devices \(time(blackout.deviceLoadMilliseconds))", "resume \(time(blackout.resumeMilliseconds))",
        ]
        let lines = [
            "\(report.machine) \(report.isRunning ? "runs" : "is, paused as it was,") at \(address) (epoch \(report.epoch))",
            "  moved \(ByteCount(report.memoryBytes)) of memory in \(Nanoseconds.seconds(report.totalSeconds)): \(report.pagesSent) pages, "
                + "\(ByteCount(report.bytesOnWire)) on the wire, \(report.rounds.count) rounds, bulk \(bulk), round trip \(time(report.roundTripMilliseconds))",
            "  stood still \(time(blackout.totalMilliseconds)) of \(time(blackout.budgetMilliseconds)) allowed "
                + "(predicted \(time(blackout.predictedMilliseconds))): \(phases.joined(separator: ", "))",
            "  streams: \(report.streams.joined(separator: "; "))"
                + (report.attachments > 1
                    ? "; the line was cut \(report.attachments - 1) times, \(PageCount(report.pagesSentAgain).bytes) sent twice" : ""),
            "  memory: \(describe(report.verification))",
        ]
        say(["event": .text("completed"), "report": .object(report)], lines.joined(separator: "\n"))
        if blackout.totalMilliseconds > blackout.budgetMilliseconds {
            note("the budget of \(time(blackout.budgetMilliseconds)) was exceeded after the hand-off, when it could not be taken back")
        }
    }

    /// Of a migration that failed.
    func sent(_ sent: SentReport) {
        say(["event": .text("sent"), "sent": .object(sent)], "\(ByteCount(sent.bytesOnWire)) were sent until then")
    }

    private func describe(_ verification: VerificationReport?) -> String {
        guard let verification else { return "not compared" }
        return verification.stripesDiffering == 0
            ? "compared with the source's, \(verification.stripesCompared) MiB the same"
            : "DIFFERS from the source's in \(verification.stripesDiffering) of \(verification.stripesCompared) MiB: "
                + verification.examples.joined(separator: ", ")
    }

    // MARK: - Target

    func target(_ event: MigrationEvent) {
        switch event {
        case .phase(let phase) where json: say(["event": .text("phase"), "phase": .text(phase.rawValue)], "")
        case .note(let text): note(text)
        case .interrupted(let why, let seconds): interrupted(why, seconds)
        default: break
        }
    }

    /// A domain that libxl moved.
    func moved(_ domain: String, to address: Address, seconds: Double) {
        say(
            ["event": .text("completed"), "machine": .text(domain), "target": .text("\(address)"), "seconds": .number(seconds)],
            "\(domain) runs at \(address), after \(Nanoseconds.seconds(seconds))")
    }

    func received(_ outcome: TargetMigration.Outcome, from peer: String) {
        say(
            [
                "event": .text("received"), "machine": .text(outcome.machine), "from": .text(peer),
                "epoch": .number(Double(outcome.epoch.value)),
            ],
            "\(outcome.machine) from \(peer) \(outcome.isRunning ? "runs" : "is, paused as it was,") here (epoch \(outcome.epoch.value)); "
                + "memory \(describe(outcome.verification))")
    }

    func notReceived(_ error: TurntableError, from peer: String) {
        say(
            ["event": .text("notReceived"), "from": .text(peer), "kind": .text(error.kind.rawValue), "why": .text(error.description)],
            "nothing received from \(peer): \(error)")
    }

    // MARK: - Output

    private func remember(_ members: [String: EventValue]) { state.update { $0.status = jsonLine(members) } }

    private func say(_ members: [String: EventValue], _ text: String) {
        state.update { state in
            let clear = state.lineIsOpen ? "\r\u{1b}[K" : ""
            state.lineIsOpen = false
            write(clear + (json ? jsonLine(members) : text) + "\n")
        }
    }

    private func showProgress(_ progress: ProgressReport, _ members: [String: EventValue]) {
        let predicted =
            progress.predictedBlackoutMilliseconds > 0
            ? Nanoseconds.milliseconds(progress.predictedBlackoutMilliseconds).description : "not known yet"
        let text =
            "round \(progress.round)  \(progress.pagesLeft) pages left  dirty \(ByteCount(Int(progress.dirtyBytesPerSecond)))/s  "
            + "\(BitRate(bitsPerSecond: progress.rateBitsPerSecond))  blackout \(predicted)  \(Nanoseconds.seconds(progress.secondsLeft)) left"
        state.update { state in
            if json { return write(jsonLine(members) + "\n") }
            if isTerminal {
                state.lineIsOpen = true
                return write("\r\u{1b}[K" + text)
            }
            guard Clock.now - state.lastPlainProgress >= Self.plainProgressTime else { return }
            state.lastPlainProgress = Clock.now
            write(text + "\n")
        }
    }

    private func write(_ text: String) { FileHandle.standardOutput.write(Data(text.utf8)) }
}

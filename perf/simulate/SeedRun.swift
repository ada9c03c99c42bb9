// Many seeds, in parts, over several processes.

import FoundationEssentials
import Glibc
import Simulation
import TurntableCore
import TurntableLinux

final class SeedRun: Sendable {
    /// A part that takes longer hangs, and is ended.
    static let mostSeconds: UInt32 = 300
    private static let seedsOfPart: UInt64 = 250

    private struct State {
        var next: UInt64
        var tally = Tally()
        var failures: [(seed: UInt64, what: String)] = []
        var failure: TurntableError?
    }
    private let end: UInt64
    private let jobs: Int
    private let arguments: [String]
    private let state: Monitor<State>

    init(first: UInt64, seeds: UInt64, jobs: Int, arguments: [String]) {
        end = first + seeds
        self.jobs = jobs
        self.arguments = arguments
        state = Monitor(State(next: first))
    }

    /// Returns the seeds that failed, and prints what there is to know.
    func run() throws -> [UInt64] {
        let started = Clock.now
        let threads = (0..<jobs).map { _ in WorkerThread("seeds") { [self] in takeParts() } }
        for thread in threads { thread.join() }
        let (tally, failures, failure) = state.read { ($0.tally, $0.failures, $0.failure) }
        if let failure { throw failure }
        print(SimulationSummary.text(tally, seconds: (Clock.now - started).seconds, jobs: jobs))
        for failure in failures.sorted(by: { $0.seed < $1.seed }).prefix(20) {
            print(
                "FAILED seed \(failure.seed): \(failure.what)\n    again: turntable-simulate --seed \(failure.seed) \(arguments.joined(separator: " "))"
            )
        }
        let failed = Set(failures.map(\.seed)).count
        print("\(tally.seeds - min(failed, tally.seeds)) passed, \(failed) failed")
        return failures.map(\.seed)
    }

    private func takeParts() {
        while true {
            let part = state.update { state -> Range<UInt64>? in
                guard state.next < end, state.failure == nil else { return nil }
                defer { state.next = min(state.next + Self.seedsOfPart, end) }
                return state.next..<min(state.next + Self.seedsOfPart, end)
            }
            guard let part else { return }
            do throws(TurntableError) { try run(part) } catch { state.update { $0.failure = error } }
        }
    }

    private func run(_ part: Range<UInt64>) throws(TurntableError) {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw TurntableError(.unsupported, "making a pipe", String(cString: strerror(errno))) }
        // Another part's process that kept them would keep the end of this one from being seen.
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let output = Descriptor(owning: ends[0])
        var text: [UInt8] = []
        do {
            let input = Descriptor(owning: ends[1])
            let child = try ChildProcess(
                [ownProgram, "--worker", "--first", "\(part.lowerBound)", "--seeds", "\(part.count)"] + arguments,
                environment: ["SWIFT_DETERMINISTIC_HASHING": "1"], output: input.rawValue)
            close(input.release())
            while true {
                let piece = try Socket.read(output, atMost: 64 << 10, what: "hearing from a part")
                if piece.isEmpty { break }
                text += piece
            }
            note(String(decoding: text, as: UTF8.self), code: child.wait())
        }
    }

    private func note(_ text: String, code: Int32) {
        var seed: UInt64 = 0
        var isWhole = false
        state.update { state in
            for line in text.split(separator: "\n") {
                let words = line.split(separator: " ", maxSplits: 2).map(String.init)
                switch words.first {
                case "begin": seed = UInt64(words[1]) ?? 0
                case "failed": state.failures.append((UInt64(words[1]) ?? 0, words.count > 2 ? words[2] : ""))
                case "tally":
                    guard let more = try? JSONDecoder().decode(Tally.self, from: Data(words[1].utf8)) else { break }
                    state.tally += more
                    isWhole = true
                default: break
                }
            }
            if !isWhole {
                state.failures.append((seed, "the program ended in it, with code \(code)"))
                state.tally.seeds += 1
            }
        }
    }
}

enum SimulationSummary {
    static func text(_ tally: Tally, seconds: Double, jobs: Int) -> String {
        let rate = Double(tally.seeds) / max(seconds, 0.001)
        return """
            \(tally.seeds) seeds in \(rounded(seconds)) s, \(rounded(rate)) a second on \(jobs) processes; \
            \(rounded(tally.seconds / 3600)) hours of their time in \(tally.steps) steps
            migrations  \(tally.sends) sends: \(tally.completed) completed (\(tally.resumed) over more than one line), \(list(tally.ends)), \
            killed \(tally.killed)
            sessions    \(tally.takenUp) taken up by another process; \(tally.reclaimed) machines given back by the target
            faults      \(list(tally.faults)); \(tally.losses) losses on the line
            answers     \(list(tally.answers))
            invariants  looked at \(tally.checks) times, besides those of every step
            """
    }

    private static func list(_ counts: [String: Int]) -> String {
        counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
    }
    private static func rounded(_ value: Double) -> String { "\((value * 10).rounded() / 10)" }
}

// The simulation from the command line: one seed step by step, or many of them over several processes. A process's memory
// grows with every thread that is killed in it, so each does a part of the seeds; one that ends by a trap says at which seed.

public import ArgumentParser
import FoundationEssentials
import Glibc
public import Simulation
import TurntableLinux

@main struct Simulate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "turntable-simulate",
        abstract: "Run the migration engine in a simulated world where everything that can fail does, and look whether its promises hold.",
        discussion: """
            EXAMPLES
              turntable-simulate --seeds 10000
              turntable-simulate --seed 4711
              turntable-simulate --seeds 200 --mutation reclaimsAfterTimeout
            """)

    @Option(help: "Run this one and print its steps.") var seed: UInt64?
    @Option(help: "How many.") var seeds: UInt64 = 1000
    @Option(help: "The first of them.") var first: UInt64 = 1
    @Option(help: "Processes at a time.") var jobs = 2
    @Option(help: "A mistake to make, which is to be found: \(Mutation.allCases.map(\.rawValue).joined(separator: ", ")).")
    var mutation: Mutation?
    @Flag(help: ArgumentHelp("Run them in this process, for the one that counts.", visibility: .hidden)) var worker = false

    func validate() throws {
        guard seeds > 0, jobs > 0, first > 0 else { throw ValidationError("--seeds, --first and --jobs are at least 1") }
    }

    func run() throws {
        if let seed { try replay(seed) }
        if worker { return work() }
        let run = SeedRun(first: first, seeds: seeds, jobs: jobs, arguments: mutation.map { ["--mutation", $0.rawValue] } ?? [])
        let failures = try run.run()
        if !failures.isEmpty { throw ExitCode(1) }
    }

    /// The order of what is hashed differs between processes unless that is asked for before they start; a seed needs the same.
    private func replay(_ seed: UInt64) throws {
        guard environmentValue("SWIFT_DETERMINISTIC_HASHING") != nil else {
            let child = try ChildProcess(
                [ownProgram, "--seed", "\(seed)"] + (mutation.map { ["--mutation", $0.rawValue] } ?? []),
                environment: ["SWIFT_DETERMINISTIC_HASHING": "1"])
            throw ExitCode(child.wait())
        }
        let outcome = Simulator().run(seed: seed, mutation: mutation) { print($0) }
        print("seed \(seed), fingerprint \(String(outcome.fingerprint, radix: 16)): \(outcome.failure ?? "every promise was kept")")
        throw ExitCode(outcome.failure == nil ? 0 : 1)
    }

    /// Says on standard output what it begins, what failed, and at last what it has done.
    private func work() {
        alarm(SeedRun.mostSeconds)
        let simulator = Simulator()
        var tally = Tally()
        for seed in first..<first + seeds {
            say("begin \(seed)")
            let outcome = simulator.run(seed: seed, mutation: mutation)
            tally += outcome.tally
            say("ended \(seed) \(String(outcome.fingerprint, radix: 16))")
            if let failure = outcome.failure { say("failed \(seed) \(failure)") }
        }
        let encoded = (try? JSONEncoder().encode(tally)).map { String(decoding: $0, as: UTF8.self) }
        say("tally \(encoded ?? "")")
    }

    /// At once, so that it is known when the process traps; and so that the process ends when nobody listens any more.
    private func say(_ line: String) { _ = Array("\(line)\n".utf8).withUnsafeBytes { write(1, $0.baseAddress, $0.count) } }
}

extension Mutation: ExpressibleByArgument {}

var ownProgram: String { (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0] }

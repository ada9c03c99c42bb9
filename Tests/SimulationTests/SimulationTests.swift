internal import Foundation
internal import Simulation
internal import Testing

/// What `make simulate` does with thousands of seeds, with a few; and that it finds what it is to find.
struct SimulationTests {
    @Test(arguments: [1, 101, 201] as [UInt64])
    func promisesAreKept(from first: UInt64) {
        let simulator = Simulator()
        var tally = Tally()
        for seed in first..<first + 40 {
            let outcome = simulator.run(seed: seed)
            #expect(outcome.failure == nil, "again: turntable-simulate --seed \(seed)")
            tally += outcome.tally
        }
        // They are about something.
        #expect(tally.completed > 20 && tally.checks > 300 && tally.faults.values.reduce(0, +) > 20)
    }

    /// Every mistake is found, and soon.
    @Test(arguments: Mutation.allCases)
    func aMistakeIsFound(_ mutation: Mutation) {
        let simulator = Simulator()
        let found = (1...300 as ClosedRange<UInt64>).first { simulator.run(seed: $0, mutation: mutation).failure != nil }
        #expect(found != nil, "\(mutation) goes unnoticed")
    }

    /// For each mistake the promise that it breaks, in words that name it.
    @Test(arguments: [
        (Mutation.reclaimsAfterTimeout, ["two owners", "rolled back"]), (.buffersJournal, ["two owners"]), (.sameBoot, ["ran as"]),
        (.lyingDisk, ["taken back"]), (.clearsMarksLate, ["rolled back", "and it was"]), (.countsEarly, ["stripes differ", "and it was"]),
    ])
    func aMistakeBreaksItsPromise(_ mutation: Mutation, _ words: [String]) {
        let simulator = Simulator()
        let failures = (1...200 as ClosedRange<UInt64>).lazy.compactMap { simulator.run(seed: $0, mutation: mutation).failure }
        #expect(failures.contains { failure in words.contains { failure.contains($0) } })
    }
}

/// The program, as it is used after a failure.
struct ReplayTests {
    private static let program =
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .path + "/.build/debug/turntable-simulate"

    private func output(_ arguments: [String]) throws -> (text: String, code: Int32) {
        let process = Process()
        process.executableURL = URL(filePath: Self.program)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(["SWIFT_DETERMINISTIC_HASHING": "1"]) { $1 }
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (String(decoding: data, as: UTF8.self), process.terminationStatus)
    }

    private func fingerprint(_ text: String, of seed: UInt64) -> Substring? {
        // "seed 7, fingerprint 2a: ..." alone, "ended 7 2a" among others.
        let line = text.split(separator: "\n").last { $0.hasPrefix("seed \(seed),") || $0.hasPrefix("ended \(seed) ") }
        return line?.split(separator: ":").first?.split(separator: " ").last
    }

    /// A seed goes the same way, step by step, again and among others.
    @Test(arguments: [12, 103, 159] as [UInt64])
    func aSeedGoesTheSameWayAgain(seed: UInt64) throws {
        let first = try output(["--seed", "\(seed)"]), second = try output(["--seed", "\(seed)"])
        #expect(first.text == second.text && first.text.split(separator: "\n").count > 50 && first.code == 0)
        let others = try output(["--worker", "--first", "\(seed - 5)", "--seeds", "8"])
        let alone = fingerprint(first.text, of: seed)
        #expect(alone != nil && alone == fingerprint(others.text, of: seed))
    }

    /// A failure names the seed with which it comes again.
    @Test func aFailureComesAgain() throws {
        let found = try output(["--seeds", "40", "--mutation", "pausesLate"])
        #expect(found.code == 1)
        let line = try #require(found.text.split(separator: "\n").first { $0.hasPrefix("FAILED seed") })
        let seed = try #require(UInt64(line.dropFirst("FAILED seed ".count).prefix { $0 != ":" }))
        let again = try output(["--seed", "\(seed)", "--mutation", "pausesLate"])
        #expect(again.code == 1)
        #expect(again.text.contains(String(line.drop { $0 != ":" }.dropFirst(2))))
    }
}

// What a migration says while it runs and when it is over. Encodable: `--json` prints these as they are.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// One round of pre-copy, after it.
public struct RoundReport: Sendable, Codable, Equatable {
    public var round: Int
    public var pagesSent: Int
    public var zeroPages: Int
    /// Pages of disks.
    public var blocksSent = 0
    /// Pages, of memory or disks, that the target has in an older copy.
    public var olderPages = 0
    public var bytesOnWire: Int
    public var milliseconds: Double
    public var rateBitsPerSecond: Double
    /// Pages written meanwhile, which are left to send.
    public var pagesLeft: Int
    public var dirtyBytesPerSecond: Double
    public var predictedBlackoutMilliseconds: Double
    /// How long the machine stood still for the dirty log at the end of the round; most logs need none.
    public var standstillMilliseconds = 0.0
}

/// Where a round stands.
public struct ProgressReport: Sendable, Codable, Equatable {
    public var round: Int
    public var pagesLeft: Int
    public var rateBitsPerSecond: Double
    public var dirtyBytesPerSecond: Double
    /// Zero until the first round ends.
    public var predictedBlackoutMilliseconds: Double
    /// Until this round ends.
    public var secondsLeft: Double
    /// So far, by this process.
    public var sent: SentReport

    public init(
        round: Int, pagesLeft: Int, rateBitsPerSecond: Double, dirtyBytesPerSecond: Double, predictedBlackoutMilliseconds: Double,
        secondsLeft: Double, sent: SentReport
    ) {
        (self.round, self.pagesLeft, self.rateBitsPerSecond, self.dirtyBytesPerSecond) = (round, pagesLeft, rateBitsPerSecond, dirtyBytesPerSecond)
        (self.predictedBlackoutMilliseconds, self.secondsLeft, self.sent) = (predictedBlackoutMilliseconds, secondsLeft, sent)
    }
}

/// What has left for the line.
public struct SentReport: Sendable, Codable, Equatable {
    public var bytesOnWire: Int
    /// Pages of disks.
    public var blocksSent: Int

    public init(bytesOnWire: Int, blocksSent: Int) { (self.bytesOnWire, self.blocksSent) = (bytesOnWire, blocksSent) }
}

/// The machine's standstill by phase, from its pause at the source to its resume at the target. No two clocks are compared: the
/// hand-off's way is what a heartbeat behind it, or the target's word that it runs the machine, took there and back, less the time at the target and half
/// the line's round trip for the way back.
public struct BlackoutReport: Sendable, Codable, Equatable {
    public var pauseMilliseconds: Double
    public var lastScanMilliseconds: Double
    /// Last pages and device state, which are sent side by side.
    public var lastPagesMilliseconds: Double
    /// Asking the disks what was written last, while the last pages are sent.
    public var lastDeltaMilliseconds: Double
    public var deviceSaveMilliseconds: Double
    /// Of the source's memory, if it is compared before the hand-off.
    public var digestMilliseconds: Double
    public var oneWayMilliseconds: Double
    /// At the target, until every stream had delivered.
    public var drainMilliseconds: Double
    public var deviceLoadMilliseconds: Double
    public var resumeMilliseconds: Double
    public var totalMilliseconds: Double
    public var predictedMilliseconds: Double
    public var budgetMilliseconds: Double
    public var lastPages: Int
    public var lastBlocks: Int
    public var deviceStateBytes: Int
}

/// A finished migration.
public struct MigrationReport: Sendable, Codable, Equatable {
    public var machine: String
    public var epoch: UInt64
    public var streams: [String]
    public var roundTripMilliseconds: Double
    public var totalSeconds: Double
    public var memoryBytes: Int
    public var pagesSent: Int
    /// Of the disks that came along.
    public var diskBytes: Int
    /// Pages of disks.
    public var blocksSent: Int
    /// Pages that the target had in an older copy, and that were not sent.
    public var olderPages: Int
    public var bytesOnWire: Int
    /// Of the first round, over its whole length.
    public var bulkRateBitsPerSecond: Double
    public var rounds: [RoundReport]
    public var blackout: BlackoutReport
    public var retransmissions: Int
    /// Attempts at the pause that turned out longer than the budget and were taken back.
    public var withdrawnPauses: Int
    /// False if the machine was paused, and stayed so.
    public var isRunning = true
    /// Attachments: one, and one more for each time that the line came back.
    public var attachments = 1
    /// Pages that were on their way when the line was cut.
    public var pagesSentAgain = 0
    /// Nil if memory was not compared.
    public var verification: VerificationReport?
}

/// What the comparison of the target's memory with the source's gave.
public struct VerificationReport: Sendable, Codable, Equatable {
    public var stripesCompared: Int
    public var stripesDiffering: Int
    /// The first of those that differ: region and stripe of 1 MiB.
    public var examples: [String]

    init(_ verified: Verified, _ regions: [MemoryRegion]) {
        stripesCompared = Int(clamping: verified.stripesCompared)
        stripesDiffering = Int(clamping: verified.stripesDiffering)
        examples = verified.examples.map { example in
            let region = Int(example.region)
            return "\(region < regions.count ? regions[region].name : "region \(region)") + \(example.stripe) MiB"
        }
    }
}

extension SourceMigration {
    func makeReport(_ session: SourceSession, _ target: Committed, _ senders: [StripeSender]) -> MigrationReport {
        let roundTrip = state.read { $0.meter.roundTrip }
        let oneWay = handOffWay(session, target, roundTrip)
        let source = session.blackout
        let sum = allSent
        let blackout = BlackoutReport(
            pauseMilliseconds: (source.paused - source.began).milliseconds,
            lastScanMilliseconds: (source.scanned - source.paused).milliseconds,
            lastPagesMilliseconds: (source.handedOff - source.scanned).milliseconds,
            lastDeltaMilliseconds: (source.deltasTold - source.scanned).milliseconds,
            deviceSaveMilliseconds: (source.deviceSaved - source.deltasTold).milliseconds,
            digestMilliseconds: (source.digested - source.deviceSaved).milliseconds,
            oneWayMilliseconds: oneWay.milliseconds,
            drainMilliseconds: target.waitedForStreams.milliseconds,
            deviceLoadMilliseconds: target.loadedDeviceState.milliseconds,
            resumeMilliseconds: target.resumed.milliseconds,
            totalMilliseconds: (source.handedOff - source.began + oneWay + target.waitedForStreams + target.loadedDeviceState
                + target.resumed).milliseconds,
            predictedMilliseconds: (session.prediction?.total ?? .zero).milliseconds, budgetMilliseconds: options.budget.milliseconds,
            lastPages: source.lastPages.value, lastBlocks: source.lastBlocks.value, deviceStateBytes: session.deviceState.count)
        return MigrationReport(
            machine: machine.name, epoch: session.epoch.value, streams: senders.map(\.summary),
            roundTripMilliseconds: roundTrip.milliseconds, totalSeconds: (Clock.now - session.started).seconds,
            memoryBytes: machine.pages.regions.reduce(0) { $0 + $1.pages.bytes.value }, pagesSent: sum.pages,
            diskBytes: machine.disks.reduce(0) { $0 + $1.size.value }, blocksSent: sum.blocks, olderPages: sum.olderPages,
            bytesOnWire: sum.bytesOnWire,
            bulkRateBitsPerSecond: session.rounds.first?.rateBitsPerSecond ?? 0, rounds: session.rounds, blackout: blackout,
            retransmissions: senders.reduce(0) { $0 + $1.status.retransmissions }, withdrawnPauses: session.withdrawnPauses,
            isRunning: machine.isRunning, attachments: session.attachments, pagesSentAgain: session.pagesSentAgain,
            verification: session.verification.map { VerificationReport($0, machine.pages.regions) })
    }

    /// How long the hand-off was on its way, with the queues that it met: by two answers of the target's, each of which a busy host may
    /// give late.
    private func handOffWay(_ session: SourceSession, _ target: Committed, _ roundTrip: Nanoseconds) -> Nanoseconds {
        // The answer comes with the target's word, unless the line is cut or the hand-off was another process's.
        let measured = state.wait(atMost: Limits.lastWordTime) { state in
            let isComing = state.handOffPing != nil && state.control != nil && state.lost == nil
            return state.handOffRoundTrip ?? (isComing ? nil : roundTrip)
        }
        let atTarget = target.waitedForStreams + target.loadedDeviceState + target.resumed
        let committed = state.read { $0.committedAt }.map { $0 - session.blackout.handedOff - atTarget }
        return max(min(measured ?? roundTrip, committed ?? .forever), roundTrip) - roundTrip / 2
    }
}

public enum MigrationEvent: Sendable, Codable {
    case note(String)
    case phase(MigrationPhase)
    case progress(ProgressReport)
    case round(RoundReport)
    /// The line is cut; the migration goes on when it comes back within so many seconds.
    case interrupted(String, secondsLeft: Double)
    /// The line came back; so many pages had been on their way and are sent again.
    case resumed(pagesSentAgain: Int)
}

/// Where a migration stands, in order.
public enum MigrationPhase: String, Sendable, Codable, Comparable {
    case connecting, preparing, copying, paused, handedOff, completed

    private var order: Int {
        switch self {
        case .connecting: 0
        case .preparing: 1
        case .copying: 2
        case .paused: 3
        case .handedOff: 4
        case .completed: 5
        }
    }
    public static func < (a: MigrationPhase, b: MigrationPhase) -> Bool { a.order < b.order }
}

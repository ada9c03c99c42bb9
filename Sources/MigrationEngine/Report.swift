// What a migration says while it runs and when it is over. Encodable: `--json` prints these as they are.

/// One round of pre-copy, after it.
public struct RoundReport: Sendable, Codable, Equatable {
    public var round: Int
    public var pagesSent: Int
    public var zeroPages: Int
    public var bytesOnWire: Int
    public var milliseconds: Double
    public var rateBitsPerSecond: Double
    /// Pages written meanwhile, which are left to send.
    public var pagesLeft: Int
    public var dirtyBytesPerSecond: Double
    public var predictedBlackoutMilliseconds: Double
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
}

/// The machine's standstill by phase, from its pause at the source to its resume at the target. The one-way delay is
/// half the measured round trip, so that no two clocks are compared.
public struct BlackoutReport: Sendable, Codable, Equatable {
    public var pauseMilliseconds: Double
    public var lastScanMilliseconds: Double
    /// Last pages and device state, which are sent side by side.
    public var lastPagesMilliseconds: Double
    public var deviceSaveMilliseconds: Double
    public var oneWayMilliseconds: Double
    /// At the target, until every stream had delivered.
    public var drainMilliseconds: Double
    public var deviceLoadMilliseconds: Double
    public var resumeMilliseconds: Double
    public var totalMilliseconds: Double
    public var predictedMilliseconds: Double
    public var budgetMilliseconds: Double
    public var lastPages: Int
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
}

public enum MigrationEvent: Sendable {
    case note(String)
    case phase(MigrationPhase)
    case progress(ProgressReport)
    case round(RoundReport)
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

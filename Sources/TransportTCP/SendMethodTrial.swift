internal import TurntableCore

/// Chooses how a stream sends by trying each method on the first large frames of the first round and comparing the
/// processor time they cost per byte. Small frames are copied whatever wins.
struct SendMethodTrial {
    /// Frames a method is given.
    static let frames = 24
    /// Frames whose extents are shorter than this on average are copied and tell nothing.
    static let smallestExtentBytes = 64 << 10

    private(set) var method: SendMethod
    /// What was measured, for people; empty until decided.
    private(set) var report = ""
    private var pending: [SendMethod]
    private var costs: [(method: SendMethod, time: Nanoseconds, bytes: Int)] = []
    private var framesLeft = frames
    private var time = Nanoseconds.zero
    private var bytes = 0

    init(candidates: [SendMethod]) {
        precondition(!candidates.isEmpty)
        method = candidates[0]
        pending = Array(candidates.dropFirst())
        if candidates.count == 1 { report = "\(method.rawValue) (the only choice)" }
    }

    var isDecided: Bool { !report.isEmpty }

    /// A large frame went out by ``method``.
    mutating func sent(_ frameBytes: Int, cost: Nanoseconds) {
        guard !isDecided else { return }
        time += cost
        bytes += frameBytes
        framesLeft -= 1
        if framesLeft == 0 { finishMethod() }
    }

    /// ``method`` does not work here, or does not do what it is for.
    mutating func exclude(_ reason: String) {
        time = .forever
        bytes = 1
        if isDecided {
            method = .copied
            report += ", then copied: \(reason)"
        } else {
            finishMethod()
        }
    }

    private mutating func finishMethod() {
        costs.append((method, time, max(bytes, 1)))
        (time, bytes, framesLeft) = (.zero, 0, Self.frames)
        if pending.isEmpty {
            method = costs.min { Self.cost($0) < Self.cost($1) }!.method
            let figures = costs.map { "\($0.method.rawValue) " + ($0.time == .forever ? "unfit" : "\(Int(Self.cost($0) * 1e3)) ns/KiB") }
            report = "\(method.rawValue) (\(figures.joined(separator: ", ")))"
        } else {
            method = pending.removeFirst()
        }
    }

    private static func cost(_ entry: (method: SendMethod, time: Nanoseconds, bytes: Int)) -> Double {
        Double(entry.time.value) / Double(entry.bytes) * 1.024
    }
}

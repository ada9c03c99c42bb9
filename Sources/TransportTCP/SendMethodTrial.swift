internal import TurntableCore

/// Chooses how a stream sends by trying each method on the first large frames of the first round. Where the processor is
/// the limit the fastest wins; where the line is, all are as fast, and the one that costs the least processor time wins.
/// Small frames are copied whatever wins.
struct SendMethodTrial {
    /// Frames a method is given.
    static let frames = 24
    /// Frames whose extents are shorter than this on average are copied and tell nothing.
    static let smallestExtentBytes = 64 << 10
    /// A method that takes longer than this many times its processor time waits for the line.
    static let waiting = 2.0

    private struct Cost {
        var method: SendMethod
        var wall = Nanoseconds.zero
        var processor = Nanoseconds.zero
        var bytes = 0
        var isUnfit = false

        func perKibibyte(_ time: Nanoseconds) -> Double { Double(time.value) / Double(max(bytes, 1)) * 1024 }
    }

    private(set) var method: SendMethod
    /// What was measured, for people; empty until decided.
    private(set) var report = ""
    private var pending: [SendMethod]
    private var finished: [Cost] = []
    private var current: Cost
    private var framesLeft = frames

    init(candidates: [SendMethod]) {
        precondition(!candidates.isEmpty)
        method = candidates[0]
        current = Cost(method: method)
        pending = Array(candidates.dropFirst())
        if candidates.count == 1 { report = "\(method.rawValue) (the only choice)" }
    }

    var isDecided: Bool { !report.isEmpty }

    /// A large frame went out by ``method``.
    mutating func sent(_ frameBytes: Int, wall: Nanoseconds, processor: Nanoseconds) {
        current.wall += wall
        current.processor += processor
        current.bytes += frameBytes
        framesLeft -= 1
        if framesLeft == 0 { finishMethod() }
    }

    /// ``method`` does not work here, or does not do what it is for.
    mutating func exclude(_ reason: String) {
        if isDecided {
            method = .copied
            report += ", then copied: \(reason)"
        } else {
            current.isUnfit = true
            finishMethod()
        }
    }

    private mutating func finishMethod() {
        finished.append(current)
        framesLeft = Self.frames
        if pending.isEmpty {
            decide()
        } else {
            method = pending.removeFirst()
            current = Cost(method: method)
        }
    }

    private mutating func decide() {
        let fit = finished.filter { !$0.isUnfit }
        let isLineBound = fit.contains { $0.perKibibyte($0.wall) > $0.perKibibyte($0.processor) * Self.waiting }
        let time = { (cost: Cost) in cost.perKibibyte(isLineBound ? cost.processor : cost.wall) }
        let best = fit.min { time($0) < time($1) }
        method = best?.method ?? .copied
        let figures = finished.map { cost in
            cost.isUnfit
                ? "\(cost.method.rawValue) unfit"
                : "\(cost.method.rawValue) \(Int(cost.perKibibyte(cost.wall))) ns/KiB, \(Int(cost.perKibibyte(cost.processor))) of processor"
        }
        report = "\(method.rawValue) (\(figures.joined(separator: "; ")))"
    }
}

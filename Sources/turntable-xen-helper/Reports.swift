internal import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import XenAdapter
internal import XenMove

/// Where the course of a move is told.
struct Reports: Sendable {
    /// Where xl's user reads it.
    private let log: @Sendable (LibxlCallbacks.Level, String) -> Void
    /// To `turntable xen migrate`, in the place of xl's user.
    private let line: ReportLine?

    /// - Parameter path: of the socket where it is told to `turntable xen migrate`.
    init(path: String? = nil, log: @escaping @Sendable (LibxlCallbacks.Level, String) -> Void) {
        self.log = log
        // Whoever started the move may be gone, which is no reason to end it.
        line = path.flatMap { try? ReportLine(path: $0) }
    }

    func pass(_ event: MigrationEvent) {
        if let line { line.say(.event(event)) } else { write(event) }
    }

    func note(_ text: String) { pass(.note(text)) }

    func completed(_ report: MigrationReport) {
        line?.say(.completed(report))
        line?.close()
    }

    func failed(_ error: TurntableError) {
        guard let line else { return log(.error, "\(error)") }
        line.say(.failed(error))
        line.close()
    }

    /// Rounds and phases only with `xl -v`.
    private func write(_ event: MigrationEvent) {
        switch event {
        case .note(let text): log(.info, text)
        case .phase(let phase): log(.detail, "\(phase.rawValue) at \(Clock.now.seconds) s")
        case .progress: break
        case .round(let round):
            log(
                .detail,
                "round \(round.round): \(round.pagesSent) pages and \(round.zeroPages) of zeroes in \(Int(round.milliseconds)) ms, "
                    + "\(round.pagesLeft) written meanwhile, standstill predicted \(Int(round.predictedBlackoutMilliseconds)) ms")
        case .interrupted(let why, let secondsLeft): log(.warning, "\(why); waiting for the line, \(Int(secondsLeft)) s at most")
        case .resumed(let pages): log(.info, "the line is back; \(pages) pages are sent again")
        }
    }
}

internal import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import XenAdapter
internal import XenMove

/// Where the course of a move is told.
struct Reports: Sendable {
    private let libxl: LibxlCallbacks
    /// To `turntable xen migrate`. Nil: xl's user reads it in what libxl says.
    private let line: ReportLine?

    /// - Parameter path: of the socket where it is told to `turntable xen migrate`.
    init(_ libxl: LibxlCallbacks, path: String? = nil) {
        self.libxl = libxl
        // Whoever started the move may be gone, which is no reason to end it.
        line = path.flatMap { try? ReportLine(path: $0) }
    }

    func pass(_ event: MigrationEvent) {
        if let line { line.say(.event(event)) } else { log(event) }
    }

    func completed(_ report: MigrationReport) {
        line?.say(.completed(report))
        line?.close()
    }

    func failed(_ error: TurntableError) {
        guard let line else { return libxl.log(.error, "\(error)") }
        line.say(.failed(error))
        line.close()
    }

    /// Rounds and phases only with `xl -v`.
    private func log(_ event: MigrationEvent) {
        switch event {
        case .note(let text): libxl.log(.info, text)
        case .phase(let phase): libxl.log(.detail, "\(phase.rawValue) at \(Clock.now.seconds) s")
        case .progress: break
        case .round(let round):
            libxl.log(
                .detail,
                "round \(round.round): \(round.pagesSent) pages and \(round.zeroPages) of zeroes in \(Int(round.milliseconds)) ms, "
                    + "\(round.pagesLeft) written meanwhile, standstill predicted \(Int(round.predictedBlackoutMilliseconds)) ms")
        case .interrupted(let why, let secondsLeft): libxl.log(.warning, "\(why); waiting for the line, \(Int(secondsLeft)) s at most")
        case .resumed(let pages): libxl.log(.info, "the line is back; \(pages) pages are sent again")
        }
    }
}

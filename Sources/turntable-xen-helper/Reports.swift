internal import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import XenAdapter

/// What xl's user reads of a move; rounds and phases only with `xl -v`.
enum Reports {
    static func pass(_ event: MigrationEvent, to libxl: LibxlCallbacks) {
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

internal import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import XenStream

/// What is told of a PV domain's memory, which passes the engine by: by what Xen's own helper says of its rounds, and what left for the line.
final class CarriedMemory: Sendable {
    private struct Round {
        var number = -1
        var done = 0
        var began = Clock.now
        var bytesBefore = ByteCount(0)
    }
    private let pages: PageCount
    private let source: StreamSource
    private let reports: Reports
    private let round = Monitor(Round())
    private let began = Clock.now

    init(of pages: PageCount, by source: StreamSource, _ reports: Reports) { (self.pages, self.source, self.reports) = (pages, source, reports) }

    /// Of `total` pages of a round the helper has read so many.
    func tell(_ done: Int, _ total: Int) {
        guard total > 0 else { return }
        let (bytes, now) = (source.bytesOnWire, Clock.now)
        let its = round.update { round in
            if round.number < 0 || done < round.done { round = Round(number: round.number + 1, bytesBefore: bytes) }
            round.done = done
            return round
        }
        let elapsed = now - its.began
        let secondsLeft = done > 0 ? elapsed.seconds * Double(total - done) / Double(done) : 0
        reports.pass(
            .progress(
                ProgressReport(
                    round: its.number, pagesLeft: total - done, rateBitsPerSecond: BitRate(bytes - its.bytesBefore, in: elapsed).bitsPerSecond,
                    dirtyBytesPerSecond: 0, predictedBlackoutMilliseconds: 0, secondsLeft: secondsLeft,
                    sent: SentReport(bytesOnWire: bytes.value, blocksSent: 0))))
    }

    /// The engine's report, with all of it.
    func added(_ figures: StreamFigures, to report: MigrationReport) -> MigrationReport {
        var report = report
        report.memoryBytes = pages.bytes.value
        report.pagesSent += figures.pages - figures.zeroPages
        report.bytesOnWire += source.bytesOnWire.value
        report.totalSeconds = (Clock.now - began).seconds
        // Without disks its rounds were of nothing.
        if report.diskBytes == 0 {
            report.rounds = []
            report.bulkRateBitsPerSecond = BitRate(source.bytesOnWire, in: Clock.now - began).bitsPerSecond
        }
        return report
    }
}

import Synchronization

/// What may change while the line runs; the main thread writes, the hot threads of one direction read.
final class LinkParameters: Sendable {
    private let femtosecondsPerByteCell = Atomic<UInt64>(0)
    private let queueNanosecondsCell = Atomic<UInt64>(0)
    private let delayNanosecondsCell = Atomic<UInt64>(0)
    private let lossThresholdCell = Atomic<UInt64>(0)
    /// Counts cuts and restores: even while the line is lit, odd while it is dark. A frame arrives only in the epoch it was
    /// sent in, so what was on the line at a cut is lost even when the line is restored before it would have arrived.
    private let epochCell = Atomic<UInt64>(0)

    var femtosecondsPerByte: UInt64 { femtosecondsPerByteCell.load(ordering: .relaxed) }
    var queueNanoseconds: UInt64 { queueNanosecondsCell.load(ordering: .relaxed) }
    var delayNanoseconds: UInt64 { delayNanosecondsCell.load(ordering: .relaxed) }
    var lossThreshold: UInt64 { lossThresholdCell.load(ordering: .relaxed) }
    var epoch: UInt32 { UInt32(truncatingIfNeeded: epochCell.load(ordering: .relaxed)) }
    var isCut: Bool { Self.isDark(epoch) }

    static func isDark(_ epoch: UInt32) -> Bool { epoch % 2 == 1 }

    func set(rate: BitRate, queue: ByteSize) {
        let femtoseconds = rate.femtosecondsPerByte
        femtosecondsPerByteCell.store(femtoseconds, ordering: .relaxed)
        queueNanosecondsCell.store(UInt64(UInt128(queue.bytes) * UInt128(femtoseconds) / 1_000_000), ordering: .relaxed)
    }

    func set(delay: LineDelay) { delayNanosecondsCell.store(delay.nanoseconds, ordering: .relaxed) }

    func set(loss: LossRatio) { lossThresholdCell.store(loss.threshold, ordering: .relaxed) }

    func set(isCut: Bool) {
        if isCut != self.isCut { epochCell.wrappingAdd(1, ordering: .relaxed) }
    }
}

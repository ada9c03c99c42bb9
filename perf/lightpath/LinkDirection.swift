import CTurntableLinux
import Glibc
import Synchronization

/// One direction of the line. A reader takes frames from the source's device, gives each its arrival time and puts it into
/// the ring; a writer hands each to the target's device at that time. Nothing is allocated or locked on the way.
final class LinkDirection: Sendable {
    let name: String
    let parameters = LinkParameters()
    let counters = LinkCounters()
    private let source: Int32
    private let target: Int32
    private let ring: DelayRing
    private let seed: UInt64
    /// The errno that ended the reader; 0 while all is well.
    private let failureCell = Atomic<Int32>(0)
    private let failureEvent: Int32

    var failure: Int32? {
        let code = failureCell.load(ordering: .acquiring)
        return code == 0 ? nil : code
    }

    /// Both devices and the event stay open as long as the threads run.
    init(name: String, source: Int32, target: Int32, ring: DelayRing, seed: UInt64, failureEvent: Int32) {
        self.name = name
        self.source = source
        self.target = target
        self.ring = ring
        self.seed = seed
        self.failureEvent = failureEvent
    }

    @available(*, noasync)
    func readFrames(_ thread: HotThread) {
        var clock = TransmissionClock()
        var loss = FrameLoss(seed: seed)
        var lastDue: UInt64 = 0
        while !thread.mustStop {
            guard let frame = unsafe ring.reserve() else {
                // The device's own queue holds back the source meanwhile.
                counters.ringWaits.add(1)
                usleep(100)
                continue
            }
            // The reserved place is maximumFrameBytes long.
            let count = unsafe read(source, frame, Int(DelayRing.maximumFrameBytes))
            guard count > Int(TT_TUN_FRAME_HEADER_BYTES) else {
                if count < 0 && errno != EINTR { return fail(errno) }
                continue
            }
            let size = unsafe LineSize(frame: frame, frameBytes: UInt64(count))
            let epoch = parameters.epoch
            if LinkParameters.isDark(epoch) {
                counters.cutAtEntryFrames.add(size.frames)
                continue
            }
            guard
                let departure = clock.departure(
                    wireBytes: size.wireBytes, now: MonotonicClock.now(), femtosecondsPerByte: parameters.femtosecondsPerByte,
                    queueNanoseconds: parameters.queueNanoseconds)
            else {
                counters.tailDroppedFrames.add(size.frames)
                continue
            }
            counters.sentFrames.add(size.frames)
            counters.sentBytes.add(size.packetBytes)
            if loss.strikes(frames: size.frames, threshold: parameters.lossThreshold) {
                counters.lostFrames.add(size.frames)
                continue
            }
            // A line that became shorter does not let frames overtake.
            lastDue = max(lastDue, departure + parameters.delayNanoseconds)
            ring.commit(.init(dueNanoseconds: lastDue, frameBytes: UInt32(count), epoch: epoch))
        }
    }

    @available(*, noasync)
    func writeFrames(_ thread: HotThread) {
        while !thread.mustStop {
            guard let (record, frame) = unsafe ring.first() else {
                ring.waitForRecord()
                continue
            }
            let now = MonotonicClock.now()
            guard record.dueNanoseconds <= now else {
                MonotonicClock.sleep(until: record.dueNanoseconds)
                continue
            }
            unsafe deliver(record, frame, lateNanoseconds: now - record.dueNanoseconds)
            ring.release(record)
        }
    }

    private func deliver(_ record: DelayRing.Record, _ frame: UnsafeMutableRawPointer, lateNanoseconds: UInt64) {
        let size = unsafe LineSize(frame: frame, frameBytes: UInt64(record.frameBytes))
        guard record.epoch == parameters.epoch else { return counters.cutOnLineFrames.add(size.frames) }
        // The record's frame is frameBytes long and stays in place until it is released. EINTR means nothing was written.
        var count = 0
        repeat { count = unsafe write(target, frame, Int(record.frameBytes)) } while count < 0 && errno == EINTR
        guard count >= 0 else { return counters.refusedFrames.add(size.frames) }
        counters.deliveredFrames.add(size.frames)
        counters.deliveredBytes.add(size.packetBytes)
        counters.deliveries.add(1)
        counters.lateNanoseconds.add(lateNanoseconds)
        counters.latestNanoseconds.raise(to: lateNanoseconds)
        if lateNanoseconds > LineLimits.noticeableLatenessNanoseconds { counters.noticeablyLate.add(1) }
    }

    private func fail(_ code: Int32) {
        failureCell.store(code, ordering: .releasing)
        var one: UInt64 = 1
        unsafe _ = write(failureEvent, &one, 8)
    }
}

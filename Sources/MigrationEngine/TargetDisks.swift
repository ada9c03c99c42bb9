// What a target does with disks, and with older copies, beside receiving: it tells what it holds already, and makes what arrived durable.

internal import Protection
internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

extension TargetMigration {
    /// Begins to tell digests of the older copies that `contents` speaks of, one region after the other, on a thread of the attachment's. The
    /// source sends nothing of a page before it was told of it.
    func tellOlderPages(
        of machine: any TargetMachine, _ contents: [TargetContent], _ arrival: Arrival, _ attachment: TargetAttachment
    ) {
        guard contents.contains(.older) else { return }
        let (session, pages, disks) = (offer.session, machine.pages, machine.disks)
        let thread = WorkerThread("tt-older") {
            do throws(TurntableError) {
                for (region, content) in contents.enumerated() where content == .older {
                    let memory = pages.regions.count
                    let source: OlderSource = region < memory ? .memory(pages, RegionIndex(region)) : .disk(disks[region - memory])
                    try source.tell(region, session, arrival, attachment)
                }
            } catch {
                // A line that ended says so itself.
                if error.kind != .line { attachment.fail(error) }
            }
        }
        attachment.state.update { $0.threads.append(thread) }
    }
}

private enum OlderSource {
    case memory(any PageSink, RegionIndex)
    case disk(any BlockSink)

    func tell(_ region: Int, _ session: SessionID, _ arrival: Arrival, _ attachment: TargetAttachment) throws(TurntableError) {
        let digest = ContentDigest(of: session)
        let stripe = AlignedBuffer(bytes: Limits.stripePages * pageBytes)
        var first = 0
        while first < pages {
            let end = min(first + OlderPages.maximumPages, pages)
            var digests = [UInt8](repeating: 0, count: (end - first) * OlderPages.digestBytes)
            for start in stride(from: first, to: end, by: Limits.stripePages) {
                if attachment.isEnded { return }
                let run = start..<min(start + Limits.stripePages, end)
                let bytes = unsafe try address(of: run, stripe)
                if case .memory(_, let region) = self { arrival.digestOlder(run, in: region) }
                unsafe digests.withUnsafeMutableBufferPointer { digests in
                    for page in run {
                        unsafe digest.of(
                            bytes + (page - start) * pageBytes, into: digests.baseAddress! + (page - first) * OlderPages.digestBytes)
                    }
                }
            }
            try attachment.control.send(.olderPages(OlderPages(region: UInt16(region), firstPage: UInt64(first), digests: digests)))
            first = end
        }
    }

    private var pages: Int {
        switch self {
        case .memory(let memory, let region): memory.regions[region.value].pages.value
        case .disk(let disk): PageCount(covering: disk.size).value
        }
    }

    /// Where the pages' bytes are: in memory, or read into `stripe`, filled up with zeroes.
    private func address(of run: Range<Int>, _ stripe: AlignedBuffer) throws(TurntableError) -> UnsafeRawPointer {
        switch self {
        case .memory(let memory, let region): return unsafe UnsafeRawPointer(memory.address(of: PageIndex(run.lowerBound), in: region))
        case .disk(let disk):
            let bytes = run.lowerBound * pageBytes..<min(run.upperBound * pageBytes, disk.size.value)
            let whole = unsafe UnsafeMutableRawBufferPointer(rebasing: stripe.bytes[..<(run.count * pageBytes)])
            try unsafe disk.read(bytes, into: UnsafeMutableRawBufferPointer(rebasing: whole[..<bytes.count]))
            unsafe UnsafeMutableRawBufferPointer(rebasing: whole[bytes.count...]).initializeMemory(as: UInt8.self, repeating: 0)
            return UnsafeRawPointer(whole.baseAddress!)
        }
    }
}

/// Makes what was written to disks durable, side by side, and beside whatever its maker does.
final class DiskFlush: Sendable {
    private let failure = Monitor<TurntableError?>(nil)
    private let threads: [WorkerThread]

    init(_ disks: [any BlockSink]) {
        let failure = failure
        threads = disks.map { disk in
            WorkerThread("tt-flush") {
                do throws(TurntableError) {
                    try disk.flush(BlockProgress(pass: 0, position: disk.size.value, isComplete: true))
                } catch {
                    failure.update { $0 = $0 ?? error }
                }
            }
        }
    }

    /// Returns when all is durable.
    func wait() throws(TurntableError) {
        for thread in threads { thread.join() }
        if let failure = failure.read({ $0 }) { throw failure }
    }
}

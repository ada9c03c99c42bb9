// The reader of what Xen's own helper saves: pages go into the window, the outline to whoever passes it on.

internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What has gone of a domain.
public struct StreamFigures: Sendable, Equatable {
    public internal(set) var pages = 0
    /// Of those, the ones that were zero and were not sent.
    public internal(set) var zeroPages = 0

    public init(pages: Int = 0, zeroPages: Int = 0) { (self.pages, self.zeroPages) = (pages, zeroPages) }
}

final class SavedStream: Sendable {
    private let saver: Descriptor
    private let window: PageWindow
    private let rings: Set<UInt64>
    private let afterRings: @Sendable () -> Void

    private static let what = "reading what Xen's own helper saves"

    /// - Parameters:
    ///   - saver: the other end of what the helper writes to.
    ///   - afterRings: called when the pages of these frames have gone for the first time; the helper is not heard until it returns.
    init(_ saver: consuming Descriptor, _ window: PageWindow, _ rings: XenRings, afterRings: @escaping @Sendable () -> Void) {
        self.saver = saver
        self.window = window
        self.rings = [rings.store, rings.console]
        self.afterRings = afterRings
    }

    /// The helper's next write fails, and what is read ends.
    func end() { Socket.shutDown(saver) }

    /// How far the thread that reads is.
    private struct Progress {
        var figures = StreamFigures()
        /// The next page that travels.
        var next = 0
        /// Frames of the rings that have not gone yet.
        var awaited: Set<UInt64>
        let tell: (_ outline: [UInt8]) throws(TurntableError) -> Void
    }

    /// Reads the stream to its end.
    func pass(_ tell: @escaping (_ outline: [UInt8]) throws(TurntableError) -> Void) throws(TurntableError) -> StreamFigures {
        var progress = Progress(awaited: rings, tell: tell)
        let headers = try read(LibxcHeaders.bytes)
        try inStream(Self.what) { () throws(WireError) in try LibxcHeaders.check(headers) }
        try tell(headers)
        while true {
            let head = try read(LibxcRecord.headBytes)
            let record = try inStream(Self.what) { () throws(WireError) in try LibxcRecord(decoding: head) }
            if record.isPages { try passPages(record, &progress) } else { try passBody(record, progress) }
            if record.isEnd { return progress.figures }
        }
    }

    /// Byte for byte.
    private func passBody(_ record: LibxcRecord, _ progress: Progress) throws(TurntableError) {
        var bytes = record.encoded()
        var left = record.paddedBytes
        repeat {
            let piece = min(left, Limits.programBytes - bytes.count)
            bytes += try read(piece)
            try progress.tell(bytes)
            bytes = []
            left -= piece
        } while left > 0
    }

    private func passPages(_ record: LibxcRecord, _ progress: inout Progress) throws(TurntableError) {
        let head = try read(LibxcPageList.headBytes)
        let entries = try read(try inStream(Self.what) { () throws(WireError) in try LibxcPageList.entriesBytes(after: head) })
        var list = try inStream(Self.what) { () throws(WireError) in try LibxcPageList(decoding: head + entries, of: record, isOutline: false) }
        try readPages(&list, &progress)
        // The pages are on their way: the outline makes the target wait for them.
        try progress.tell(record.encoded() + list.encoded(isOutline: true))
        guard !progress.awaited.isEmpty else { return }
        progress.awaited.subtract(list.frames)
        if progress.awaited.isEmpty { afterRings() }
    }

    /// Reads a record's pages into the window, as many at once as have room in a stripe; of zero ones only the mark remains.
    private func readPages(_ list: inout LibxcPageList, _ progress: inout Progress) throws(TurntableError) {
        var left = list.pageCount
        var entry = 0
        while left > 0 {
            try window.awaitRoom(at: progress.next)
            let count = min(left, PageWindow.stripeEnd(progress.next) - progress.next)
            let start = unsafe window.address(of: progress.next)
            try reading { () throws(TurntableError) in
                try unsafe Socket.fill(UnsafeMutableRawBufferPointer(start: start, count: count * pageBytes), from: saver, what: Self.what)
            }
            var kept = 0
            for page in 0..<count {
                while !list.hasPage(entry) { entry += 1 }
                let found = unsafe start + page * pageBytes
                if unsafe isZero(found, bytes: pageBytes) {
                    list.markZero(entry)
                } else {
                    if kept < page { unsafe (start + kept * pageBytes).copyMemory(from: found, byteCount: pageBytes) }
                    kept += 1
                }
                entry += 1
            }
            progress.figures.pages += count
            progress.figures.zeroPages += count - kept
            left -= count
            progress.next += kept
            if kept > 0 { window.fill(to: progress.next) }
        }
    }

    private func read(_ count: Int) throws(TurntableError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        // The address holds only inside the closure, so the error comes out as a value.
        let failure: TurntableError? = unsafe bytes.withUnsafeMutableBytes { bytes in
            do throws(TurntableError) {
                try reading { () throws(TurntableError) in try unsafe Socket.fill(bytes, from: saver, what: Self.what) }
            } catch { return error }
            return nil
        }
        if let failure { throw failure }
        return bytes
    }

    /// An end of what is read is the helper's fault, not the line's.
    private func reading(_ body: () throws(TurntableError) -> Void) throws(TurntableError) {
        do throws(TurntableError) { try body() } catch {
            throw TurntableError(.hypervisor, error.what, error.why, remedy: "see what Xen's own helper says in xl's log")
        }
    }
}

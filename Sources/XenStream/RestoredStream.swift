// The stream again, from its outline and the pages in the window.

internal import TurntableCore
internal import WireFormat

@safe struct RestoredStream {
    private let outline: Outline
    private let window: PageWindow
    private let give: (UnsafeRawBufferPointer) throws(TurntableError) -> Void
    private let zeroes: AlignedBuffer
    /// The next page that travels.
    private var next = 0
    /// Frames whose pages are given as zeroes, and those of them that were not given yet.
    private let blank: Set<UInt64>
    private var awaited: Set<UInt64>
    private let blankWereGiven: () -> Void

    private static let what = "the outline of the source's stream"

    /// - Parameters:
    ///   - blank: frames whose pages are given as zeroes, whatever they hold.
    ///   - blankWereGiven: called when each of them was, for the first time.
    ///   - give: takes the stream's next bytes.
    init(
        _ outline: Outline, _ window: PageWindow, blank: Set<UInt64> = [], blankWereGiven: @escaping () -> Void = {},
        _ give: @escaping (UnsafeRawBufferPointer) throws(TurntableError) -> Void
    ) {
        (self.outline, self.window) = (outline, window)
        (self.blank, awaited, self.blankWereGiven) = (blank, blank, blankWereGiven)
        unsafe self.give = give
        zeroes = AlignedBuffer(bytes: Limits.stripePages * pageBytes)
        unsafe zeroes.bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Gives all of the stream.
    mutating func restore() throws(TurntableError) {
        let headers = try outline.read(LibxcHeaders.bytes)
        try inStream(Self.what) { () throws(WireError) in try LibxcHeaders.check(headers) }
        try giveBytes(headers)
        while true {
            let head = try outline.read(LibxcRecord.headBytes)
            let record = try inStream(Self.what) { () throws(WireError) in try LibxcRecord(decoding: head) }
            try giveBytes(head)
            if record.isPages { try restorePages(record) } else { try restoreBody(record) }
            if record.isEnd { return }
        }
    }

    private func restoreBody(_ record: LibxcRecord) throws(TurntableError) {
        var left = record.paddedBytes
        while left > 0 {
            let piece = try outline.read(min(left, Limits.programBytes))
            try giveBytes(piece)
            left -= piece.count
        }
    }

    private mutating func restorePages(_ record: LibxcRecord) throws(TurntableError) {
        let head = try outline.read(LibxcPageList.headBytes)
        let entries = try outline.read(try inStream(Self.what) { () throws(WireError) in try LibxcPageList.entriesBytes(after: head) })
        let list = try inStream(Self.what) { () throws(WireError) in try LibxcPageList(decoding: head + entries, of: record, isOutline: true) }
        try giveBytes(list.encoded(isOutline: false))
        // Pages of one kind that come next to each other in the stream, at once.
        var run = 0, kind = Kind.travels
        for entry in list.entries.indices where list.hasPage(entry) {
            let its: Kind = list.isZero(entry) ? .isZero : blank.contains(list.frame(entry)) ? .isBlank : .travels
            if its != kind {
                try givePages(run, kind)
                (run, kind) = (0, its)
            }
            run += 1
        }
        try givePages(run, kind)
        guard !awaited.isEmpty else { return }
        awaited.subtract(list.frames)
        if awaited.isEmpty { blankWereGiven() }
    }

    private enum Kind {
        case travels, isZero, isBlank
    }

    private mutating func givePages(_ count: Int, _ kind: Kind) throws(TurntableError) {
        var left = count
        while left > 0 {
            var piece = min(left, Limits.stripePages)
            if kind != .isZero {
                guard let end = try window.awaitPages(from: next) else { preconditionFailure("a target's window is never finished") }
                piece = min(left, end - next)
            }
            try unsafe give(UnsafeRawBufferPointer(start: kind == .travels ? window.address(of: next) : zeroes.bytes.baseAddress, count: piece * pageBytes))
            if kind != .isZero {
                next += piece
                window.empty(to: next)
            }
            left -= piece
        }
    }

    private func giveBytes(_ bytes: [UInt8]) throws(TurntableError) {
        // The address holds only inside the closure, so the error comes out as a value.
        let failure: TurntableError? = unsafe bytes.withUnsafeBytes { bytes in
            do throws(TurntableError) { try unsafe give(bytes) } catch { return error }
            return nil
        }
        if let failure { throw failure }
    }
}

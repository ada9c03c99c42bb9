public import TurntableCore
public import TurntableLinux

/// How far a copy has come, in a file beside the target: one line each time everything before was made durable.
///
///     turntable-disk DISK pass 2 position 1048576 open CHECK
///     turntable-disk DISK pass 3 position 0 complete CHECK
///
/// DISK names what is copied; CHECK is a digest of the rest of the line. The last whole line counts; a torn one after it is
/// what a crash left, and is cut off.
public final class SinkJournal {
    private let store: any AppendStore
    private let disk: String

    /// - Parameter disk: the name of what is copied, without spaces. A journal of another disk is refused.
    public init(_ store: any AppendStore, disk: String) {
        precondition(!disk.contains { $0.isWhitespace })
        self.store = store
        self.disk = disk
    }

    /// What was noted last; nil in a new journal.
    public func last() throws(TurntableError) -> BlockProgress? { try wholeLines().progress }

    public func note(_ progress: BlockProgress) throws(TurntableError) {
        let (_, length) = try wholeLines()
        try store.truncate(to: length)
        let text = "turntable-disk \(disk) pass \(progress.pass) position \(progress.position) \(progress.isComplete ? "complete" : "open")"
        try store.append(Array("\(text) \(Self.check(text))\n".utf8))
        try store.sync()
    }

    private func wholeLines() throws(TurntableError) -> (progress: BlockProgress?, length: Int) {
        let bytes = try store.contents()
        var progress: BlockProgress?
        var length = 0
        while let end = bytes[length...].firstIndex(of: UInt8(ascii: "\n")) {
            let words = String(decoding: bytes[length..<end], as: UTF8.self).split(separator: " ").map(String.init)
            guard words.count == 8, words[7] == Self.check(words[..<7].joined(separator: " ")), let pass = Int(words[3]),
                let position = Int(words[5])
            else { break }
            guard words[1] == disk else {
                throw TurntableError(
                    .refused, "reading the journal of a copy of \(disk)", "it is of \(words[1])",
                    remedy: "choose another journal, or remove it")
            }
            progress = BlockProgress(pass: pass, position: position, isComplete: words[6] == "complete")
            length = end + 1
        }
        return (progress, length)
    }

    private static func check(_ text: String) -> String {
        String(Digest.of(Array(text.utf8)), radix: 16)
    }
}

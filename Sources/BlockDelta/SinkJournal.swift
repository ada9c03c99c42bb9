internal import FoundationEssentials
public import TurntableCore
public import TurntableLinux

/// How far a copy has come, in a file at the target: one line each time everything before was made durable.
///
///     turntable-disk COPY pass 2 position 1048576 open CHECK
///     turntable-disk COPY pass 3 position 0 complete CHECK
///
/// COPY names what is copied and where it goes; CHECK is a digest of the rest of the line. The last whole line counts; a torn
/// one after it is what a crash left, and is cut off. Lines of another copy are forgotten.
public final class SinkJournal: Sendable {
    private let store: any AppendStore
    private let copy: String

    /// - Parameter copy: a word.
    public init(_ store: any AppendStore, copy: String) {
        precondition(!copy.contains { $0.isWhitespace })
        self.store = store
        self.copy = copy
    }

    /// What was noted last; nil in a new journal.
    public func last() throws(TurntableError) -> BlockProgress? { try wholeLines().progress }

    public func note(_ progress: BlockProgress) throws(TurntableError) {
        let (_, length) = try wholeLines()
        try store.truncate(to: length)
        let text = "turntable-disk \(copy) pass \(progress.pass) position \(progress.position) \(progress.isComplete ? "complete" : "open")"
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
            guard words[1] == copy else { return (nil, 0) }
            progress = BlockProgress(pass: pass, position: position, isComplete: words[6] == "complete")
            length = end + 1
        }
        return (progress, length)
    }

    private static func check(_ text: String) -> String {
        String(Digest.of(Array(text.utf8)), radix: 16)
    }
}

/// The journals of the copies that come to a host, in a directory that survives it: a file for each disk of a machine. What was
/// interrupted is known again by the machine, the disk, the path of the target and the target itself: the file, not one that
/// has its name since, or the volume.
public struct SinkJournals: Sendable {
    private let store: @Sendable (_ file: String) throws(TurntableError) -> any AppendStore

    init(store: @escaping @Sendable (String) throws(TurntableError) -> any AppendStore) { self.store = store }

    /// - Parameter directory: is made when there is something to note.
    public init(directory: String) {
        store = { (file) throws(TurntableError) in
            do {
                try FileManager.default.createDirectory(
                    atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            } catch {
                throw TurntableError(
                    .unsupported, "making \(directory)", "\(error)", remedy: "run as root, or choose a directory with --state-dir")
            }
            return AppendFile("\(directory)/\(file)")
        }
    }

    func journal(of machine: String, disk: String, at path: String, identity: String) throws(TurntableError) -> SinkJournal {
        let name = Self.digest([machine, disk])
        return SinkJournal(try store(name), copy: Self.digest([machine, disk, path, identity]))
    }

    private static func digest(_ words: [String]) -> String { String(Digest.of(Array(words.joined(separator: "\0").utf8)), radix: 16) }
}

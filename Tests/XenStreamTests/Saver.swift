internal import Glibc
internal import TestSupport
internal import TurntableCore
internal import TurntableLinux
@testable internal import WireFormat

/// What stands for Xen's own helper at the source: a stream of a PV domain with everything that one can have, the same for the same seed.
struct SavedImage: Sendable {
    private(set) var bytes: [UInt8] = []
    private(set) var pages = 0
    private(set) var zeroPages = 0
    /// Bytes after which the last record but END ends.
    private(set) var endStart = 0
    /// Where each page lies, and of which frame it is.
    private var places: [(frame: UInt64, start: Int)] = []
    private let ordinary: Set<UInt64>
    private var generator: SeededGenerator
    /// How often each frame was saved, in its pages, so that no two versions are alike.
    private var versions: [UInt64: UInt64] = [:]

    /// - Parameters:
    ///   - rounds: each saves about half of the frames again.
    ///   - ordinary: frames that have a page each time.
    init(seed: UInt64, frames: Int, rounds: Int, ordinary: Set<UInt64> = []) {
        self.ordinary = ordinary
        generator = SeededGenerator(seed: seed)
        var headers = Array(StreamGreeting(token: [], port: 0, addresses: [], isLast: false).encoded().prefix(LibxcHeaders.bytes))
        headers[24] = 1
        bytes = headers
        // Those that come before the pages: of processor, PV domain and page tables.
        for type: UInt32 in [0x11, 0x12, 0x10, 2, 3] { appendRecord(type) }
        for round in 0..<rounds {
            var chosen = (0..<UInt64(frames)).filter { _ in round == 0 || Bool.random(using: &generator) }
            while !chosen.isEmpty {
                // Now and then a record of one page, as the last of a round.
                let count = min(chosen.count, [1, 7, 300, Limits.libxcPages].randomElement(using: &generator)!)
                appendPages(Array(chosen.prefix(count)))
                chosen.removeFirst(count)
            }
            // What libxc does not put between rounds, but may.
            if round % 2 == 1 { appendRecord([0xd, 0x8000_0007].randomElement(using: &generator)!) }
        }
        for type: UInt32 in [8, 7, 4, 5, 6, 0xc] { appendRecord(type) }
        endStart = bytes.count
        bytes += LibxcRecord(type: 0, bodyBytes: 0).encoded()
    }

    /// The same with zeroes in the place of these frames' pages.
    func blanked(_ frames: Set<UInt64>) -> [UInt8] {
        var blanked = bytes
        for (frame, start) in places where frames.contains(frame) {
            blanked.replaceSubrange(start..<start + pageBytes, with: repeatElement(0, count: pageBytes))
        }
        return blanked
    }

    private mutating func appendRecord(_ type: UInt32) {
        // Some longer than one message is.
        let count = [0, 1, 8, 31, 4096, Limits.programBytes - 8, 2 * Limits.programBytes + 5].randomElement(using: &generator)!
        bytes += LibxcRecord(type: type, bodyBytes: count).encoded()
        bytes += generator.bytes(count) + [UInt8](repeating: 0, count: (8 - count % 8) % 8)
    }

    private mutating func appendPages(_ frames: [UInt64]) {
        // Ordinary pages mostly; and every other type.
        let types = [0, 0, 0, 0, 0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15] as [UInt64]
        let entries = frames.map { (ordinary.contains($0) ? 0 : types.randomElement(using: &generator)!) << 60 | $0 }
        var list = MessageWriter()
        list.append(UInt32(entries.count))
        list.append(UInt32(0))
        for entry in entries { list.append(entry) }
        var body: [UInt8] = []
        // Zero pages come in runs, as in a guest's memory, and alone.
        var isZero = false
        for entry in entries where entry >> 60 < 13 {
            if Int.random(in: 0..<4, using: &generator) == 0 { isZero.toggle() }
            pages += 1
            let frame = entry & (1 << 52 - 1)
            versions[frame, default: 0] += 1
            places.append((frame, bytes.count + LibxcRecord.headBytes + list.bytes.count + body.count))
            if isZero {
                zeroPages += 1
                body += [UInt8](repeating: 0, count: pageBytes)
            } else {
                var words = [UInt64](repeating: frame << 32 | versions[frame]!, count: pageBytes / 8)
                words[Int.random(in: words.indices, using: &generator)] = generator.next()
                words.withUnsafeBytes { body += $0 }
            }
        }
        bytes += LibxcRecord(type: 1, bodyBytes: list.bytes.count + body.count).encoded() + list.bytes + body
    }
}

/// An end of a helper: a thread that writes a stream, or reads one to its end.
enum FakeHelper {
    /// Writes all of `bytes`; an error if nobody takes them.
    static func writer(_ bytes: [UInt8], to descriptor: Int32) -> Background<Void> {
        Background { () throws(TurntableError) in
            let socket = Descriptor(owning: descriptor)
            try Socket.write(socket, bytes, what: "saving")
        }
    }

    /// Reads at most `limit` bytes, then leaves.
    static func reader(of descriptor: Int32, limit: Int = .max) -> Background<[UInt8]> {
        Background { () throws(TurntableError) in
            let socket = Descriptor(owning: descriptor)
            var bytes: [UInt8] = []
            while bytes.count < limit {
                let piece = try Socket.read(socket, atMost: min(1 << 20, limit - bytes.count), what: "restoring")
                if piece.isEmpty { break }
                bytes += piece
            }
            return bytes
        }
    }
}

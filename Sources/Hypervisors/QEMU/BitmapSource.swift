internal import TurntableCore
internal import TurntableLinux

/// A disk of a QEMU machine as a source of blocks: QEMU keeps a dirty bitmap of it, and shows it over NBD.
///
///     begin      bitmap 1 begins to record                                          all that is allocated
///     nextDelta  in one transaction 2 begins to record and 1 ends; 1 is told
///     lastDelta  in one transaction 3 is made, a copy of what 2 has so far; 3 is told, and 2 records on
///
/// The disk is read as it is at that moment: what is written after a bitmap ended is in the next. So the bitmap is always fetched
/// before the bytes. A bitmap that was told is kept until the next delta is asked for, since a sender that is killed may
/// have heard it and not yet noted it: who takes up its work tells all bitmaps that are left.
///
/// Everything of it in QEMU is called `turntable.…`, and is removed by ``end()``.
final class BitmapSource: BlockSource, @unchecked Sendable {
    var name: String { drive.name }
    var size: ByteCount { drive.size }
    let chunkBytes: Int
    /// As the deltas before took.
    private(set) var lastDeltaTime = Nanoseconds.milliseconds(10)

    private let drive: QEMUDrive
    private let monitor: QMP
    private let exports: QEMUExports
    /// What the disk's bytes are read from, and what a bitmap is asked through.
    private let dataExport: String, deltaExport: String
    private var isOpen = false
    private let idle = Monitor<[NBDConnection]>([])
    private var number = 0
    /// The bitmap that records.
    private var recording: String?
    /// Bitmaps that ended and were not told, or perhaps were not.
    private var untold: [String] = []
    /// What is to be removed.
    private var spent: [String] = []

    init(_ drive: QEMUDrive, monitor: QMP, exports: QEMUExports) throws(TurntableError) {
        guard drive.size.value > 0, drive.size.value % 512 == 0 else {
            throw TurntableError(.unsupported, "moving the disk \(drive.name)", "its size is \(drive.size.value) bytes")
        }
        self.drive = drive
        self.monitor = monitor
        self.exports = exports
        chunkBytes = Self.chunkBytes(of: drive.size)
        dataExport = "\(QEMUExports.prefix)disk.\(drive.name)"
        deltaExport = "\(QEMUExports.prefix)delta.\(drive.name)"
    }

    /// 4 KiB, or what keeps a bitmap small: it is copied and read while the machine stands still.
    static func chunkBytes(of size: ByteCount) -> Int {
        var bytes = 4096
        while (size.value - 1) / bytes >= Limits.bitmapChunks { bytes *= 2 }
        return bytes
    }

    // MARK: - The contract

    func begin() throws(TurntableError) -> ChunkSet {
        try openExports()
        spent = try bitmaps().map(\.name)
        return try start()
    }

    func takeUp() throws(TurntableError) -> Bool {
        try openExports()
        let found = try bitmaps()
        guard let newest = found.last(where: { $0.isRecording && $0.chunkBytes == chunkBytes }) else {
            try end()
            return false
        }
        number = found.last!.number
        recording = newest.name
        untold = found.filter { $0.name != newest.name }.map(\.name)
        return true
    }

    func nextDelta() throws(TurntableError) -> BlockChanges {
        guard let recording, try isKept(recording) else { return try startAnew() }
        try removeSpent()
        let next = nextName()
        try transaction([adding(next), ("block-dirty-bitmap-disable", ["name": .string(recording)])])
        self.recording = next
        untold.append(recording)
        let changes = ChunkSet(size: size, chunkBytes: chunkBytes)
        for bitmap in untold { try ask(bitmap, into: changes) }
        spent += untold
        untold = []
        return BlockChanges(changes)
    }

    func lastDelta() throws(TurntableError) -> BlockChanges {
        guard let recording, try isKept(recording) else { return try startAnew() }
        let copy = nextName()
        let sources = (untold + [recording]).map { JSONValue.string($0) }
        try transaction([
            adding(copy, recording: false), ("block-dirty-bitmap-merge", ["target": .string(copy), "bitmaps": .array(sources)]),
        ])
        spent.append(copy)
        let changes = ChunkSet(size: size, chunkBytes: chunkBytes)
        try ask(copy, into: changes)
        return BlockChanges(changes)
    }

    func changedBytes() throws(TurntableError) -> ByteCount {
        ByteCount(try bitmaps().first { $0.name == recording }?.dirtyBytes ?? size.value)
    }

    func read(_ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError) {
        try exports.read { () throws(TurntableError) in
            var connection = idle.update { $0.popLast() }
            if connection == nil { connection = try NBDConnection(exports.socket, export: dataExport) }
            // One that failed is not put back.
            try unsafe connection!.read(at: range.lowerBound, into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<range.count]))
            idle.update { $0.append(connection!) }
        }
    }

    func lossReason() -> String? { nil }

    func end() throws(TurntableError) {
        idle.update { $0 = [] }
        guard isOpen else { return }
        isOpen = false
        recording = nil
        untold = []
        // With QEMU all of it is gone.
        guard ProcessTable.startTime(of: monitor.process) != nil else { return }
        let ours = try exports.exports().filter { $0 == dataExport || $0 == deltaExport }
        for id in ours { try exports.remove(id) }
        try exports.awaitEnd(of: ours)
        spent = try bitmaps().map(\.name)
        try removeSpent()
        try exports.leave(name)
    }

    private func openExports() throws(TurntableError) {
        guard !isOpen else { return }
        try exports.join(name)
        isOpen = true
        try exports.add(dataExport, of: drive)
    }

    // MARK: - Bitmaps

    /// Begins to record; all that may hold something.
    private func start() throws(TurntableError) -> ChunkSet {
        try removeSpent()
        let first = nextName()
        // Before the disk is looked at: what is written from now on is in the first delta.
        try transaction([adding(first)])
        recording = first
        let content = ChunkSet(size: size, chunkBytes: chunkBytes)
        let connection = try NBDConnection(exports.socket, export: dataExport, context: "base:allocation")
        try connection.forEachExtent { range, flags in
            if flags & NBDConnection.isZero == 0 { content.insert(bytes: range) }
        }
        return content
    }

    private func startAnew() throws(TurntableError) -> BlockChanges {
        let reason = "somebody removed the dirty bitmap \(recording ?? "") of \(name)"
        spent = try bitmaps().map(\.name)
        untold = []
        // What became empty since must become so at the target.
        let everything = try start()
        everything.insertAll()
        return BlockChanges(everything, lossReason: reason)
    }

    /// Marks what a bitmap that does not record says.
    private func ask(_ bitmap: String, into changes: ChunkSet) throws(TurntableError) {
        let began = Clock.now
        try exports.awaitEnd(of: [deltaExport])
        try exports.add(deltaExport, of: drive, bitmap: bitmap)
        defer { try? exports.remove(deltaExport) }
        let connection = try NBDConnection(exports.socket, export: deltaExport, context: "qemu:dirty-bitmap:\(bitmap)")
        try connection.forEachExtent { range, flags in
            if flags & NBDConnection.isDirty != 0 { changes.insert(bytes: range) }
        }
        lastDeltaTime = Clock.now - began
    }

    private func removeSpent() throws(TurntableError) {
        guard !spent.isEmpty else { return }
        // It would hold one of them.
        try exports.awaitEnd(of: [deltaExport])
        for bitmap in spent {
            try monitor.execute("block-dirty-bitmap-remove", ["node": .string(drive.node), "name": .string(bitmap)])
        }
        spent = []
    }

    private struct Bitmap {
        var number: Int
        var isRecording: Bool
        var chunkBytes: Int
        var dirtyBytes: Int
        var name: String { "\(QEMUExports.prefix)\(number)" }
    }

    /// Ours, oldest first.
    private func bitmaps() throws(TurntableError) -> [Bitmap] {
        guard case .array(let nodes) = try monitor.execute("query-named-block-nodes", ["flat": .bool(true)]),
            let node = nodes.first(where: { $0["node-name"]?.text == drive.node })
        else { throw TurntableError(.hypervisor, "moving the disk \(name)", "the machine has it no more") }
        guard case .array(let entries)? = node["dirty-bitmaps"] else { return [] }
        return entries.compactMap { entry in
            guard let name = entry["name"]?.text, name.hasPrefix(QEMUExports.prefix),
                let number = Int(name.dropFirst(QEMUExports.prefix.count)), case .integer(let chunkBytes)? = entry["granularity"],
                case .integer(let dirtyBytes)? = entry["count"]
            else { return nil }
            return Bitmap(number: number, isRecording: entry["recording"] == .bool(true), chunkBytes: chunkBytes, dirtyBytes: dirtyBytes)
        }.sorted { $0.number < $1.number }
    }

    private func isKept(_ bitmap: String) throws(TurntableError) -> Bool {
        try bitmaps().contains { $0.name == bitmap && $0.isRecording }
    }

    private func nextName() -> String {
        number += 1
        return "\(QEMUExports.prefix)\(number)"
    }

    private typealias Action = (type: String, data: [String: JSONValue])

    private func adding(_ bitmap: String, recording isRecording: Bool = true) -> Action {
        ("block-dirty-bitmap-add", ["name": .string(bitmap), "granularity": .integer(chunkBytes), "disabled": .bool(!isRecording)])
    }

    /// All of it, or nothing, at one instant of the machine's writing.
    private func transaction(_ actions: [Action]) throws(TurntableError) {
        let list = actions.map { action in
            JSONValue.object([
                "type": .string(action.type), "data": .object(action.data.merging(["node": .string(drive.node)]) { one, _ in one }),
            ])
        }
        try monitor.execute("transaction", ["actions": .array(list)])
    }
}

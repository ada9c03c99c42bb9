internal import Foundation
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux

@testable import Hypervisors

private func read(_ range: Range<Int>, _ disk: any BlockSource) throws(TurntableError) -> [UInt8] {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: range.count, alignment: blockAlignment)
    defer { buffer.deallocate() }
    try disk.read(range, into: buffer)
    return Array(buffer)
}

private func extents(_ set: ChunkSet) -> [Range<Int>] {
    var found: [Range<Int>] = []
    var position = 0
    while let extent = set.nextExtent(from: position, atMost: .max / 2) {
        found.append(extent)
        position = extent.upperBound
    }
    return found
}

/// Disks of real machines that are read while they are written. What the guest would write its QEMU is told to, through the
/// same node.
@Suite(.serialized, .enabled(if: MachineStand.isPossible, "needs QEMU and the built programs"))
final class BitmapSourceTests {
    private let stand = MachineStand()
    private static let diskBytes = 24 << 20
    private var process: Process?
    private var image: String { "\(stand.directory.path)/disk.img" }
    /// What the disk holds.
    private var content = [UInt8](repeating: 0, count: diskBytes)

    deinit { if let process { stand.end(process) } }

    /// A machine with a disk that holds something here and there.
    private func start(format: String = "raw") throws {
        _ = FileManager.default.createFile(atPath: image, contents: nil)
        let file = try #require(FileHandle(forWritingAtPath: image))
        try file.truncate(atOffset: UInt64(Self.diskBytes))
        for offset in [0, 3 << 20, (24 << 20) - 65536] {
            for index in offset..<offset + 65536 { content[index] = 0x11 }
            try file.seek(toOffset: UInt64(offset))
            try file.write(contentsOf: Data(content[offset..<offset + 65536]))
        }
        try file.close()
        if format == "qcow2" {
            let conversion = Process()
            conversion.executableURL = URL(filePath: "/usr/bin/qemu-img")
            conversion.arguments = ["convert", "-q", "-f", "raw", "-O", "qcow2", image, image + ".qcow2"]
            try conversion.run()
            conversion.waitUntilExit()
            try #require(rename(image + ".qcow2", image) == 0)
        }
        process = try stand.start("m", qemu: disk(format))
    }

    /// share-rw: QEMU itself writes beside the guest.
    private func disk(_ format: String) -> [String] {
        [
            "-blockdev", "driver=file,node-name=file0,filename=\(image)", "-blockdev", "driver=\(format),node-name=d0,file=file0",
            "-device", "virtio-blk-pci,drive=d0,share-rw=on",
        ]
    }

    private func write(_ value: UInt8, _ range: Range<Int>, _ machine: QEMUSourceMachine) throws {
        let command = "qemu-io d0 \"write -q -P \(value) \(range.lowerBound) \(range.count)\""
        let answer = try machine.monitor.execute("human-monitor-command", ["command-line": .string(command)]).text ?? ""
        try #require(answer.isEmpty, "\(answer)")
        for index in range { content[index] = value }
    }

    /// Bitmaps and exports of ours in QEMU, and the socket.
    private func remains(_ machine: QEMUSourceMachine) throws -> [String] {
        var left: [String] = []
        if case .array(let nodes) = try machine.monitor.execute("query-named-block-nodes") {
            for node in nodes {
                if case .array(let bitmaps)? = node["dirty-bitmaps"] { left += bitmaps.compactMap { $0["name"]?.text } }
            }
        }
        if case .array(let exports) = try machine.monitor.execute("query-block-exports") { left += exports.compactMap { $0["id"]?.text } }
        return left + [stand.directory.exports(of: "m")].filter { FileManager.default.fileExists(atPath: $0) }
    }

    // MARK: - Deltas

    @Test(arguments: ["raw", "qcow2"]) func deltasTellWhatWasWritten(format: String) throws {
        try start(format: format)
        let machine = try stand.source("m", disks: .all)
        let disk = try #require(machine.disks.first)
        #expect(disk.name == "d0" && disk.size.value == Self.diskBytes && disk.chunkBytes == 4096)
        #expect(machine.drivesLeft == [])
        #expect(extents(try disk.begin()) == [0..<65536, 3 << 20..<(3 << 20) + 65536, (24 << 20) - 65536..<24 << 20])
        #expect(try disk.changedBytes() == ByteCount(0))
        #expect(extents(try disk.nextDelta().chunks) == [])
        try write(7, 1 << 20..<(1 << 20) + 512, machine)
        try write(8, 5 << 20..<6 << 20, machine)
        #expect(try disk.changedBytes() == ByteCount((1 << 20) + 4096))
        let changes = try disk.nextDelta()
        #expect(extents(changes.chunks) == [1 << 20..<(1 << 20) + 4096, 5 << 20..<6 << 20])
        #expect(changes.lossReason == nil && disk.lossReason() == nil)
        #expect(try read(0..<Self.diskBytes, disk) == content)

        // The pause; withdrawn, all that it told is told again.
        try write(9, 0..<4096, machine)
        try machine.pause()
        #expect(extents(try disk.lastDelta().chunks) == [0..<4096])
        #expect(extents(try disk.lastDelta().chunks) == [0..<4096])
        try machine.resume()
        try write(10, 8192..<8193, machine)
        #expect(extents(try disk.nextDelta().chunks) == [0..<4096, 8192..<12288])
        #expect(extents(try disk.lastDelta().chunks) == [])
        #expect(disk.lastDeltaTime > .zero && disk.lastDeltaTime < .seconds(1))
        #expect(try read(0..<16384, disk) == Array(content[..<16384]))

        try disk.end()
        try disk.end()
        #expect(try remains(machine) == [])
        // All of it again.
        #expect(try disk.begin().count > 0)
        try disk.end()
        #expect(try remains(machine) == [])
    }

    /// QEMU gives its images up when it has saved a machine, and takes them back: with reads under way that would be answered from
    /// another file.
    @Test func readsLiveOnWhileStateIsSaved() throws {
        try start()
        let machine = try stand.source("m", disks: .named(["d0"]))
        let disk = try #require(machine.disks.first)
        _ = try disk.begin()
        let isOver = Monitor(false)
        let expected = Array(content[3 << 20..<4 << 20])
        let readers = (0..<3).map { _ in
            Background { () throws(TurntableError) -> Int in
                var reads = 0
                while !isOver.read({ $0 }) {
                    guard try read(3 << 20..<4 << 20, disk) == expected else {
                        throw TurntableError(.damaged, "reading", "other bytes after \(reads) reads")
                    }
                    reads += 1
                }
                return reads
            }
        }
        for pass in 0..<4 {
            try machine.pause()
            try write(UInt8(pass + 1), 0..<512, machine)
            #expect(extents(try disk.lastDelta().chunks) == [0..<4096])
            #expect(try machine.saveDeviceState().count > 10_000)
            // Saved: its images are given up, and can be read.
            #expect(try read(0..<4096, disk) == Array(content[..<4096]))
            try machine.resume()
            #expect(try read(0..<4096, disk) == Array(content[..<4096]))
            #expect(extents(try disk.nextDelta().chunks) == [0..<4096])
        }
        isOver.update { $0 = true }
        for reader in readers { #expect(try reader.value() > 4) }
        try disk.end()
        #expect(try remains(machine) == [])
    }

    // MARK: - Senders that are killed

    @Test func theNextSenderIsToldWhatTheLastMayNotHaveNoted() throws {
        try start()
        do {
            let machine = try stand.source("m", disks: .all)
            _ = try machine.sessionMemory(bytes: 4096)
            _ = try machine.disks[0].begin()
            try write(1, 1 << 20..<(1 << 20) + 4096, machine)
            _ = try machine.disks[0].nextDelta()
            try write(2, 2 << 20..<(2 << 20) + 4096, machine)
            // This one it had noted: it went on.
            _ = try machine.disks[0].nextDelta()
            try write(3, 7 << 20..<(7 << 20) + 4096, machine)
            try machine.pause()
            _ = try machine.disks[0].lastDelta()
            _ = try machine.saveDeviceState()
        }
        let machine = try stand.source("m", disks: .all)
        let disk = machine.disks[0]
        #expect(try disk.takeUp())
        try machine.takeUp(wasRunning: true)
        let both = [2 << 20..<(2 << 20) + 4096, 7 << 20..<(7 << 20) + 4096]
        #expect(extents(try disk.lastDelta().chunks) == both)
        #expect(try read(0..<8 << 20, disk) == Array(content[..<(8 << 20)]))
        try machine.resume()
        #expect(extents(try disk.nextDelta().chunks) == both)
        #expect(extents(try disk.nextDelta().chunks) == [])
        try disk.end()
        #expect(try remains(machine) == [])
        #expect(try !disk.takeUp())
        #expect(try remains(machine) == [])
    }

    /// Of a migration that nobody goes on with.
    @Test func aNewBeginningRemovesWhatAKilledSenderLeft() throws {
        try start()
        do {
            let machine = try stand.source("m", disks: .all)
            _ = try machine.disks[0].begin()
            try write(1, 1 << 20..<(1 << 20) + 4096, machine)
            _ = try machine.disks[0].nextDelta()
        }
        let machine = try stand.source("m", disks: .all)
        #expect(try machine.disks[0].begin().contains(256))
        #expect(extents(try machine.disks[0].nextDelta().chunks) == [])
        try machine.disks[0].end()
        #expect(try remains(machine) == [])
    }

    // MARK: - Trouble

    @Test func aLostBitmapIsAWholePass() throws {
        try start()
        let machine = try stand.source("m", disks: .all)
        let disk = machine.disks[0]
        _ = try disk.begin()
        try machine.monitor.execute("block-dirty-bitmap-remove", ["node": .string("d0"), "name": .string("turntable.1")])
        let changes = try disk.nextDelta()
        #expect(changes.lossReason == "somebody removed the dirty bitmap turntable.1 of d0")
        #expect(changes.chunks.bytes == disk.size)
        try write(3, 0..<4096, machine)
        let next = try disk.nextDelta()
        #expect(next.lossReason == nil && extents(next.chunks) == [0..<4096])
    }

    @Test func anotherUserOfTheServerIsLeftAlone() throws {
        try start()
        let machine = try stand.source("m", disks: .all)
        let theirs: JSONValue = .object([
            "type": .string("unix"), "data": .object(["path": .string("\(stand.directory.path)/theirs.sock")]),
        ])
        try machine.monitor.execute("nbd-server-start", ["addr": theirs])
        let error = failure { () throws(TurntableError) in try machine.disks[0].begin() }
        #expect(error?.kind == .refused && error?.why.contains("in use by somebody else") == true)
        try machine.disks[0].end()
        // Still theirs to end.
        try machine.monitor.execute("nbd-server-stop")
        // An export of theirs in our server keeps it.
        _ = try machine.disks[0].begin()
        let export: [String: JSONValue] = ["type": .string("nbd"), "id": .string("theirs"), "node-name": .string("d0")]
        try machine.monitor.execute("block-export-add", export)
        try machine.disks[0].end()
        #expect(try remains(machine).first == "theirs")
        try machine.monitor.execute("nbd-server-stop")
    }

    @Test func aQEMUThatDiesIsAnError() throws {
        try start()
        let machine = try stand.source("m", disks: .all)
        let disk = machine.disks[0]
        _ = try disk.begin()
        _ = try read(0..<4096, disk)
        Signals.send(SIGKILL, to: machine.monitor.process)
        #expect(eventually { ProcessTable.startTime(of: machine.monitor.process) == nil })
        let error = failure { () throws(TurntableError) in try read(0..<4096, disk) }
        #expect(error?.kind == .hypervisor)
        #expect(throws: TurntableError.self) { try disk.nextDelta() }
        try disk.end()
    }

    // MARK: - Drives

    @Test func drivesAreWhatTheGuestWrites() throws {
        for name in ["a", "b", "c", "d", "e"] {
            _ = FileManager.default.createFile(atPath: "\(stand.directory.path)/\(name)", contents: Data(count: 1 << 20))
        }
        let path = stand.directory.path
        process = try stand.start(
            "m",
            qemu: [
                "-hda", "\(path)/a", "-cdrom", "\(path)/b", "-drive", "file=\(path)/c,if=virtio,format=raw",
                "-drive", "file=\(path)/d,if=none,id=extra,format=raw", "-drive", "file=\(path)/e,if=virtio,format=raw,readonly=on",
            ])
        let machine = try stand.source("m", disks: .named(["virtio0"]))
        #expect(machine.disks.map(\.name) == ["virtio0"])
        #expect(machine.drivesLeft.map(\.name) == ["ide0-hd0"])
        #expect(machine.drivesLeft[0].path == "\(path)/a" && machine.drivesLeft[0].isRaw)
        #expect(try QEMUDescription(decoding: machine.description).disks.map(\.path) == ["\(path)/c"])
    }

    @Test func aDiskThatIsNotThereIsNamed() throws {
        try start()
        let error = failure { () throws(TurntableError) in try self.stand.source("m", disks: .named(["d1"])) }
        #expect(error?.kind == .usage && error?.why == "it has d0")
    }

    @Test func chunksKeepBitmapsSmall() {
        #expect(BitmapSource.chunkBytes(of: ByteCount(1 << 30)) == 4096)
        #expect(BitmapSource.chunkBytes(of: ByteCount(64 << 30)) == 4096)
        #expect(BitmapSource.chunkBytes(of: ByteCount((64 << 30) + 512)) == 8192)
        #expect(BitmapSource.chunkBytes(of: ByteCount(16 << 40)) == 1 << 20)
    }
}

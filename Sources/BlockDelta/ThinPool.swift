internal import Glibc
internal import TurntableCore
internal import TurntableLinux

/// The metadata of a thin pool, read while the pool is in use: the kernel reserves a copy of it for that, one at a time.
struct ThinPool {
    private let device: String
    private let metadata: String

    init(of volume: LogicalVolume) {
        device = deviceMapperName(group: volume.group, volume: volume.pool, layer: "tpool")
        metadata = "/dev/mapper/" + deviceMapperName(group: volume.group, volume: volume.pool + "_tmeta")
    }

    /// The unit in which it gives room to its volumes. Source: thin-provisioning.rst, as below: table and status of a pool.
    func blockBytes() throws(TurntableError) -> Int {
        // Metadata device, data device, block size in sectors.
        let words = try DeviceMapper.table(of: device)?.parameters.split(separator: " ") ?? []
        guard words.count > 2, let sectors = Int(words[2]), 128...(1 << 21) ~= sectors else { throw strange("table", words) }
        return sectors * 512
    }

    /// Blocks that its volumes have.
    func usedBlocks() throws(TurntableError) -> Int {
        // Transaction, used/total metadata blocks, used/total data blocks.
        let words = try DeviceMapper.status(of: device)?.parameters.split(separator: " ") ?? []
        guard words.count > 2, let used = Int(words[2].prefix { $0 != "/" }) else { throw strange("status", words) }
        return used
    }

    private func strange(_ what: String, _ words: [Substring]) -> TurntableError {
        TurntableError(
            .unsupported, "asking the pool \(device)", "its \(what) is \"\(words.joined(separator: " "))\"", remedy: "look at it with `lvs -a`")
    }

    /// What a volume has blocks for.
    func mapped(_ volume: LogicalVolume) throws(TurntableError) -> ChunkSet {
        try run(["thin_dump", "-m", "--dev-id", "\(volume.thinIdentifier ?? -1)", metadata], size: volume.size)
    }

    /// Where two volumes differ, or one of them has blocks alone.
    func difference(_ left: LogicalVolume, _ right: LogicalVolume) throws(TurntableError) -> ChunkSet {
        try run(
            ["thin_delta", "-m", "--snap1", "\(left.thinIdentifier ?? -1)", "--snap2", "\(right.thinIdentifier ?? -1)", metadata],
            size: right.size)
    }

    /// A reservation that a process of ours did not give back when it was killed.
    func releaseLeftover() throws(TurntableError) {
        let lock = try lock()
        defer { withExtendedLifetime(lock) {} }
        // Status of a thin pool: transaction, metadata blocks, data blocks, held metadata root (thin-provisioning.rst).
        let words = try DeviceMapper.status(of: device)?.parameters.split(separator: " ") ?? []
        if words.count > 3, words[3] != "-" { try DeviceMapper.message("release_metadata_snap", to: device) }
    }

    /// Excludes other copies of ours from the one reservation that there is, and ends with its process.
    private func lock() throws(TurntableError) -> PoolLock {
        let lock = PoolLock(try Descriptor.open(metadata, .read, what: "opening \(metadata)"))
        let deadline = Clock.now + Limits.lvmTime
        while !lock.take() {
            guard Clock.now < deadline else {
                throw TurntableError(
                    .unsupported, "reserving the metadata of the pool \(device)", "another copy holds them for \(Limits.lvmTime.seconds) s",
                    remedy: "end the other copy")
            }
            Clock.sleep(.milliseconds(5))
        }
        return lock
    }

    private final class PoolLock {
        private let file: Descriptor
        init(_ file: consuming Descriptor) { self.file = file }
        func take() -> Bool { flock(file.rawValue, LOCK_EX | LOCK_NB) == 0 }
    }

    private func run(_ command: [String], size: ByteCount) throws(TurntableError) -> ChunkSet {
        let lock = try lock()
        defer { withExtendedLifetime(lock) {} }
        do throws(TurntableError) {
            try DeviceMapper.message("reserve_metadata_snap", to: device)
        } catch {
            throw TurntableError(
                .unsupported, "reserving the metadata of the pool \(device)", error.why,
                remedy: "another tool may have reserved it: `dmsetup message \(device) 0 release_metadata_snap` takes it back")
        }
        let result: Result<ChunkSet, TurntableError>
        do throws(TurntableError) { result = .success(try parse(command, size)) } catch { result = .failure(error) }
        let release = "release_metadata_snap"
        // The first error is the one to tell.
        if case .failure = result { try? DeviceMapper.message(release, to: device) } else { try DeviceMapper.message(release, to: device) }
        return try result.get()
    }

    /// The tool's output is taken as it comes: it has a line for each run of blocks.
    private func parse(_ command: [String], _ size: ByteCount) throws(TurntableError) -> ChunkSet {
        let what = "running \(command[0]) on \(metadata)"
        let ends = try Socket.pair()
        let ours = Descriptor(owning: ends.0)
        let child: ChildProcess
        do {
            let theirs = Descriptor(owning: ends.1)
            child = try ChildProcess(command, channel: theirs.rawValue)
        }
        var reader = ThinMappingReader(size: size)
        do {
            while true {
                guard try Socket.waitReadable(ours, within: Limits.lvmTime) else {
                    throw TurntableError(.unsupported, what, "it said nothing for \(Limits.lvmTime.seconds) s and was ended")
                }
                let piece = try Socket.read(ours, atMost: 64 << 10, what: what)
                if piece.isEmpty { break }
                try reader.take(piece)
            }
            let code = child.wait()
            guard code == 0 else {
                throw TurntableError(.unsupported, what, "it ended with \(code)", remedy: "check the pool with `thin_check`")
            }
            return try reader.finish()
        } catch let error as TurntableError {
            child.kill()
            _ = child.wait()
            throw error
        } catch {
            child.kill()
            _ = child.wait()
            throw TurntableError(.unsupported, what, "its output cannot be read: \(error)")
        }
    }
}

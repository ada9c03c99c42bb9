internal import FoundationEssentials
internal import Glibc
internal import TurntableCore
internal import TurntableLinux

/// Memory of machines that left this host, kept for their return: what is the same in it then need not be sent. (The idea: Knauth and
/// Fetzer, "VeCycle: Recycling VM Checkpoints for Faster Migrations", Middleware 2015.)
///
///   <directory>/<machine>/<region>    a region of memory by its number: its bytes at their offsets, holes where nothing was written
///
/// Nothing depends on an image being whole or true: digests are compared, so one that a crash left half written only saves less.
public struct KeptMemory: Sendable {
    private let directory: String

    public init(directory: String) { self.directory = directory }

    private func directory(of machine: String) -> String { "\(directory)/\(machine)" }
    private func image(of machine: String, _ region: Int) -> String { "\(directory(of: machine))/\(region)" }

    /// Writes what the machine's memory holds, in place of what was kept of it before. Regions of huge pages are left out, since nothing
    /// can be written to them but through a mapping.
    func keep(_ memory: QEMUMemory, of machine: String) throws(TurntableError) {
        remove(machine)
        do {
            try FileManager.default.createDirectory(
                atPath: directory(of: machine), withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw TurntableError(.unsupported, "making \(directory(of: machine))", "\(error)")
        }
        do throws(TurntableError) {
            for (index, region) in memory.regions.enumerated() {
                guard try !memory.isOfHugePages(RegionIndex(index)), let source = memory.file(of: RegionIndex(index)) else { continue }
                let (path, bytes) = (image(of: machine, index), region.pages.bytes.value)
                let file = try Descriptor.open(path, .create, what: "making \(path)")
                try checked(ftruncate(file.rawValue, bytes) < 0 ? -errno : 0, "sizing \(path)")
                try copyData(from: source, to: file.rawValue, bytes: bytes, what: "keeping \(ByteCount(bytes)) of memory in \(path)")
            }
        } catch {
            remove(machine)
            throw error
        }
    }

    /// Fills new memory with what was kept of the machine.
    /// - Returns: whether there was anything: then it does not read as zero.
    func load(into memory: QEMUMemory, of machine: String) throws(TurntableError) -> Bool {
        var hasLoaded = false
        for (index, region) in memory.regions.enumerated() {
            let (path, bytes) = (image(of: machine, index), region.pages.bytes.value)
            // Of another size it is of another machine.
            guard let file = try? Descriptor.open(path, .read, what: path), lseek(file.rawValue, 0, SEEK_END) == bytes,
                try !memory.isOfHugePages(RegionIndex(index)), let target = memory.file(of: RegionIndex(index))
            else { continue }
            try copyData(
                from: file.rawValue, to: target, bytes: bytes, what: "reading the memory that was kept in \(path)", remedy: "remove it")
            hasLoaded = true
        }
        return hasLoaded
    }

    public func remove(_ machine: String) { try? FileManager.default.removeItem(atPath: directory(of: machine)) }
}

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

    private struct Image {
        var path: String
        var bytes: Int
        /// The region's memory file.
        var memory: Int32
    }

    /// Where each region goes. Those of huge pages are left out, since nothing can be written to them but through a mapping.
    private func images(of machine: String, _ memory: QEMUMemory) throws(TurntableError) -> [Image] {
        var images: [Image] = []
        for (index, region) in memory.regions.enumerated() {
            guard try !memory.isOfHugePages(RegionIndex(index)), let file = memory.file(of: RegionIndex(index)) else { continue }
            images.append(Image(path: "\(directory(of: machine))/\(index)", bytes: region.pages.bytes.value, memory: file))
        }
        return images
    }

    /// Writes what the machine's memory holds, in place of what was kept of it before.
    func keep(_ memory: QEMUMemory, of machine: String) throws(TurntableError) {
        remove(machine)
        do {
            try FileManager.default.createDirectory(
                atPath: directory(of: machine), withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw TurntableError(.unsupported, "making \(directory(of: machine))", "\(error)")
        }
        do throws(TurntableError) {
            for image in try images(of: machine, memory) {
                let file = try Descriptor.open(image.path, .create, what: "making \(image.path)")
                try checked(ftruncate(file.rawValue, image.bytes) < 0 ? -errno : 0, "sizing \(image.path)")
                try copyData(
                    from: image.memory, to: file.rawValue, bytes: image.bytes,
                    what: "keeping \(ByteCount(image.bytes)) of memory in \(image.path)")
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
        for image in try images(of: machine, memory) {
            // Of another size it is of another machine.
            guard let file = try? Descriptor.open(image.path, .read, what: image.path), lseek(file.rawValue, 0, SEEK_END) == image.bytes
            else { continue }
            try copyData(
                from: file.rawValue, to: image.memory, bytes: image.bytes, what: "reading the memory that was kept in \(image.path)",
                remedy: "remove it")
            hasLoaded = true
        }
        return hasLoaded
    }

    public func remove(_ machine: String) { try? FileManager.default.removeItem(atPath: directory(of: machine)) }
}

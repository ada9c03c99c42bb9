// Where a site keeps the disks of machines that come: a file for each,
//
//   <directory>/<domain>/<machine>/<disk>.raw
//
// made with all its room before the machine moves, so that nothing else can take that meanwhile. A file that a machine left when it moved
// away stays, and is brought up to date when the machine returns (`turntable receive --recycle`). Nobody else's file has such a path.

internal import Foundation
internal import TurntableCore
internal import TurntableLinux

/// A disk as a site's agent tells of it.
struct MachineDisk: Codable, Sendable, Equatable {
    /// What its machine calls it.
    var name: String
    var bytes: Int
}

/// A disk that a slot has room for.
struct HeldDisk: Codable, Sendable, Equatable {
    var disk: MachineDisk
    var path: String
    /// An earlier copy of it was there: it is none of the migration's.
    var isOlder: Bool
}

struct DiskRoom: Sendable {
    let directory: String

    var freeBytes: Int? { (try? FileManager.default.attributesOfFileSystem(forPath: directory))?[.systemFreeSize].flatMap { ($0 as? NSNumber)?.intValue } }

    /// By machine.
    func keptBytes(of domain: String) throws(TurntableError) -> [String: Int] {
        try MachineName.check(domain)
        var kept: [String: Int] = [:]
        for name in FileManager.default.enumerator(atPath: "\(directory)/\(domain)")?.compactMap({ $0 as? String }) ?? [] where name.hasSuffix(".raw") {
            let attributes = try? FileManager.default.attributesOfItem(atPath: "\(directory)/\(domain)/\(name)")
            kept[String(name.prefix { $0 != "/" }), default: 0] += (attributes?[.size] as? NSNumber)?.intValue ?? 0
        }
        return kept
    }

    /// Where a machine's disks are to lie, if there is room for those that are not there yet.
    func places(for disks: [MachineDisk], of machine: String, domain: String) throws(TurntableError) -> [HeldDisk] {
        let what = "holding room for the disks of \(machine)"
        guard disks.count <= Limits.regions else { throw TurntableError(.refused, what, "it has \(disks.count), the limit is \(Limits.regions)") }
        try MachineName.check(domain)
        var held: [HeldDisk] = []
        for disk in disks {
            guard (1...Limits.diskBytes).contains(disk.bytes) else {
                throw TurntableError(.refused, what, "\(disk.name) has \(disk.bytes) bytes, the limit is \(ByteCount(Limits.diskBytes))")
            }
            guard (try? MachineName.check(disk.name)) != nil else {
                throw TurntableError(.refused, what, "\(disk.name) is no name of a file", remedy: "give it one of letters and digits: -drive id=NAME")
            }
            let path = "\(directory)/\(domain)/\(machine)/\(disk.name).raw"
            held.append(HeldDisk(disk: disk, path: path, isOlder: FileManager.default.fileExists(atPath: path)))
        }
        let needed = held.reduce(0) { $0 + ($1.isOlder ? 0 : $1.disk.bytes) }
        guard let free = freeBytes, needed <= free else { throw noRoom(what, needed) }
        return held
    }

    /// Makes what is not there yet, and has its room kept.
    func make(_ held: [HeldDisk], of machine: String) throws(TurntableError) {
        for disk in held {
            let what = "making \(disk.path) with \(ByteCount(disk.disk.bytes))"
            do {
                try FileManager.default.createDirectory(
                    at: URL(filePath: disk.path).deletingLastPathComponent(), withIntermediateDirectories: true,
                    attributes: [.posixPermissions: NSNumber(value: 0o700)])
            } catch { throw TurntableError(.unsupported, what, "\(error)", remedy: "choose a directory that the agent may write, with --disks") }
            let file = try Descriptor.open(disk.path, .append, what: what)
            try file.allocate(ByteCount(disk.disk.bytes), what: what, remedy: "choose another site, or make room there")
        }
    }

    /// Removes what was made for a machine that did not come.
    func discard(_ held: [HeldDisk]) {
        for disk in held where !disk.isOlder {
            removeFile(disk.path)
            // And the directory, if it was the last one in it.
            removeEmptyDirectory(URL(filePath: disk.path).deletingLastPathComponent().path)
        }
    }

    private func noRoom(_ what: String, _ needed: Int) -> TurntableError {
        let free = freeBytes.map { "\(ByteCount($0)) are free in \(directory)" } ?? "\(directory) is not there"
        return TurntableError(.refused, what, "they need \(ByteCount(needed)); \(free)", remedy: "choose another site, or make room there")
    }
}

public import TurntableCore

/// A disk of a QEMU machine, as QEMU tells of it: one that the guest writes, on storage of this host's.
///
/// Removable media, what is read only, and backends that no device uses are none of these: they do not move.
public struct QEMUDrive: Hashable, Codable, Sendable {
    /// What its device is called (`virtio0`, or the id of -drive); else its block node (-blockdev).
    public var name: String
    /// The block node that the guest's writes go through.
    public var node: String
    /// As QEMU was told it. Perhaps not a path: `json:{…}` or `nbd://…`.
    public var path: String
    /// The driver of the node: `raw`, `qcow2`; `file` or `host_device` where the machine has it without a format.
    public var format: String
    public var size: ByteCount

    /// Byte for byte what the guest sees.
    public var isRaw: Bool { ["raw", "file", "host_device"].contains(format) }

    init(name: String, node: String, path: String, format: String, size: ByteCount) {
        self.name = name
        self.node = node
        self.path = path
        self.format = format
        self.size = size
    }

    /// Reads one entry of what query-block returns. Nil if it is no disk that moves.
    init?(_ entry: JSONValue) {
        guard entry["removable"] == .bool(false), entry["qdev"]?.text != nil, let medium = entry["inserted"], medium["ro"] == .bool(false),
            let node = medium["node-name"]?.text, let format = medium["drv"]?.text, let path = medium["file"]?.text,
            case .integer(let bytes)? = medium["image"]?["virtual-size"]
        else { return nil }
        let device = entry["device"]?.text ?? ""
        self.init(name: device.isEmpty ? node : device, node: node, path: path, format: format, size: ByteCount(bytes))
    }

    static func all(_ monitor: QMP) throws(TurntableError) -> [QEMUDrive] {
        guard case .array(let entries) = try monitor.execute("query-block") else { return [] }
        return entries.compactMap { QEMUDrive($0) }
    }
}

/// The disks that a machine has now. It cannot be moved meanwhile.
public func disks(of machine: String, in directory: RunDirectory) throws(TurntableError) -> [QEMUDrive] {
    let lock = try directory.lock(machine, "looking at the disks of")
    defer { withExtendedLifetime(lock) {} }
    return try QEMUDrive.all(try QMP(path: directory.monitor(of: machine)))
}

/// Which disks of a machine move with it.
public enum DiskSelection: Hashable, Sendable {
    case all
    case named([String])
    public static let none = DiskSelection.named([])

    func choose(from drives: [QEMUDrive], of machine: String) throws(TurntableError) -> [QEMUDrive] {
        guard case .named(let names) = self else { return drives }
        for name in names where !drives.contains(where: { $0.name == name }) {
            let known = drives.isEmpty ? "it has no disk that could move" : "it has \(drives.map(\.name).joined(separator: ", "))"
            throw TurntableError(
                .usage, "moving the disk \(name) of \(machine)", known, remedy: "removable and read-only drives do not move")
        }
        return drives.filter { names.contains($0.name) }
    }
}

internal import FoundationEssentials
public import TurntableCore
internal import TurntableLinux

/// A logical volume as LVM reports it.
public struct LogicalVolume: Sendable, Hashable {
    public var group: String
    public var name: String
    public var size: ByteCount
    /// First letter of its attributes: lvs(8), NOTES.
    public var kind: Character
    public var isActive: Bool
    /// What it is a snapshot of, or empty.
    public var origin: String
    /// Set for a thin volume: its pool, and its number in it.
    public var pool: String
    public var thinIdentifier: Int?
    public var tags: [String]
    /// What is left in its group, and in which unit that is given away.
    public var groupFree: ByteCount
    public var extentBytes: Int

    public var fullName: String { "\(group)/\(name)" }
    public var isThin: Bool { thinIdentifier != nil }
    public func deviceName(layer: String? = nil) -> String { deviceMapperName(group: group, volume: name, layer: layer) }
    public var devicePath: String { "/dev/mapper/\(deviceName())" }
}

/// LVM, through its helper. One thread at a time.
public final class LVM {
    /// The tag of everything that is made here: what carries it may be removed when nobody copies.
    public static let tag = "turntable"

    public let helper: HelperProcess

    public init(helper: HelperProcess) { self.helper = helper }

    /// - Parameter name: GROUP/VOLUME, with or without /dev/ before it.
    public func volume(_ name: String) throws(TurntableError) -> LogicalVolume {
        let parts = name.trimmingPrefix("/dev/").split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, !name.hasPrefix("/dev/mapper/"), parts.allSatisfy({ Self.isName($0) }) else {
            throw TurntableError(
                .usage, "looking for the logical volume \(name)", "it is not written GROUP/VOLUME", remedy: "`lvs` shows the names")
        }
        do throws(TurntableError) {
            guard let found = try report("report \(parts[0]) \(parts[1])").first else {
                throw TurntableError(.refused, "", "LVM reports nothing about it")
            }
            return found
        } catch {
            guard error.kind == .refused else { throw error }
            throw TurntableError(.usage, "looking for the logical volume \(name)", error.why, remedy: "`lvs` shows what there is")
        }
    }

    /// What was made here and not removed, by this process or another.
    public func tagged() throws(TurntableError) -> [LogicalVolume] { try report("list") }

    /// A snapshot of a volume that is not thin.
    public func createSnapshot(
        of origin: LogicalVolume, named name: String, store: ByteCount, chunkBytes: Int, tags: [String]
    ) throws(TurntableError) -> LogicalVolume {
        _ = try helper.call("create \(origin.group) \(origin.name) \(name) \(store.value) \(chunkBytes) \(tags.joined(separator: " "))")
        return try volume("\(origin.group)/\(name)")
    }

    public func createThinSnapshot(of origin: LogicalVolume, named name: String, tags: [String]) throws(TurntableError) -> LogicalVolume {
        _ = try helper.call("create-thin \(origin.group) \(origin.name) \(name) \(tags.joined(separator: " "))")
        return try volume("\(origin.group)/\(name)")
    }

    public func extend(_ volume: LogicalVolume, to size: ByteCount) throws(TurntableError) {
        _ = try helper.call("extend \(volume.group) \(volume.name) \(size.value)")
    }

    public func retag(_ volume: LogicalVolume, remove old: String, add new: String? = nil) throws(TurntableError) {
        _ = try helper.call("retag \(volume.group) \(volume.name) \(old)" + (new.map { " \($0)" } ?? ""))
    }

    /// Removes a volume that carries ``tag``; one without stays, and that is no error.
    public func remove(_ volume: LogicalVolume) throws(TurntableError) {
        _ = try helper.call("remove \(volume.group) \(volume.name)")
    }

    /// Removes what crashed processes left, of one volume or of all; the names of what was removed.
    public func collectGarbage(of origin: String? = nil) throws(TurntableError) -> [String] {
        try removeTagged { (leftover, owner) in
            (origin == nil || "\(leftover.group)/\(leftover.origin)" == origin) && owner?.isRunning != true
        }
    }

    /// Removes what this process made before it became another program, which has nothing of it open.
    public func removeOwn() throws(TurntableError) { _ = try removeTagged { $1 == .own } }

    private func removeTagged(where isLeft: (LogicalVolume, SnapshotOwner?) -> Bool) throws(TurntableError) -> [String] {
        var removed: [String] = []
        for leftover in try tagged() where isLeft(leftover, SnapshotOwner(tags: leftover.tags)) {
            if leftover.isThin { try ThinPool(of: leftover).releaseLeftover() }
            try remove(leftover)
            removed.append(leftover.fullName)
        }
        return removed
    }

    /// Source: lvm(8), VALID NAMES.
    static func isName(_ text: some StringProtocol) -> Bool {
        !text.isEmpty && text.utf8.count <= 127 && text.first != "-" && text != "." && text != ".."
            && text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "+_.-".contains($0)) }
    }

    private func report(_ request: String) throws(TurntableError) -> [LogicalVolume] {
        let lines = try helper.call(request)
        return try LVM.volumes(inReport: lines.joined(separator: "\n"))
    }

    /// Reads what `lvs --reportformat json --units b --nosuffix` prints. Every value in it is text.
    static func volumes(inReport text: String) throws(TurntableError) -> [LogicalVolume] {
        struct Document: Decodable {
            struct Report: Decodable { var lv: [[String: String]] }
            var report: [Report]
        }
        guard let document = try? JSONDecoder().decode(Document.self, from: Data(text.utf8)) else {
            throw TurntableError(.unsupported, "reading LVM's report", "it is no such JSON: \(text.prefix(80))")
        }
        var volumes: [LogicalVolume] = []
        for row in document.report.flatMap(\.lv) {
            guard let volume = LogicalVolume(row: row) else {
                throw TurntableError(.unsupported, "reading LVM's report", "a field is missing or no number in \(row)")
            }
            volumes.append(volume)
        }
        return volumes
    }
}

extension LogicalVolume {
    fileprivate init?(row: [String: String]) {
        guard let group = row["vg_name"], let name = row["lv_name"], let size = row["lv_size"].flatMap({ Int($0) }),
            let kind = row["lv_attr"]?.first, let free = row["vg_free"].flatMap({ Int($0) }),
            let extent = row["vg_extent_size"].flatMap({ Int($0) }), size >= 0, free >= 0, extent > 0
        else { return nil }
        self.init(
            group: group, name: name, size: ByteCount(size), kind: kind, isActive: row["lv_active"] == "active",
            origin: row["origin"] ?? "",
            pool: row["pool_lv"] ?? "", thinIdentifier: row["thin_id"].flatMap { Int($0) },
            tags: row["lv_tags"]?.split(separator: ",").map(String.init) ?? [], groupFree: ByteCount(free), extentBytes: extent)
    }
}

// Rewriting a QEMU command line so that disks that come along lie where the target has them, and are raw there. Pure: text in, text
// out.
//
// A disk is found by the path that the source's QEMU has it at: exactly one option of the command line must name it. Its format is
// then written down as raw, whatever it was, since the target's storage holds what the guest sees, byte for byte; and so that
// nobody guesses a format from what the guest has written.

public import TurntableCore

/// Where a disk that comes along lies at the target.
public struct DiskPlace: Hashable, Sendable {
    public var machine: String
    public var name: String
    public var path: String
    public var size: ByteCount
    /// Where it lies at the source, which is how the command line names it, and its format there.
    var sourcePath: String
    var isSourceRaw: Bool
    /// The target's storage is a block device, and perhaps larger than the disk.
    var isDevice = false
    var isLarger = false

    public init(machine: String, name: String, path: String, size: ByteCount, sourcePath: String, isSourceRaw: Bool) {
        self.machine = machine
        self.name = name
        self.path = path
        self.size = size
        self.sourcePath = sourcePath
        self.isSourceRaw = isSourceRaw
    }
}

struct DiskPlacement {
    private(set) var arguments: [String]

    init(_ arguments: [String]) { self.arguments = arguments }

    /// An option that names a path: the index of its value, and the key of the path in it; nil if the whole value is the path.
    private struct Found {
        var option: String
        var index: Int
        var key: String?
    }
    private typealias Items = [(key: String, value: String)]

    mutating func place(_ disks: [DiskPlace]) throws(TurntableError) {
        // All are found before any is moved: one may go to where another was. Options stay where they are.
        let found = try disks.map { (disk) throws(TurntableError) in try find(disk) }
        for (disk, found) in zip(disks, found) {
            switch found.option {
            case "drive": placeDrive(disk, found)
            case "blockdev": try placeNode(disk, found)
            default: placeShortOption(disk, found)
            }
        }
    }

    // MARK: - Finding

    private func find(_ disk: DiskPlace) throws(TurntableError) -> Found {
        let path = disk.sourcePath
        var found: [Found] = []
        forEachOption { option, index in
            let value = arguments[index]
            switch option {
            case "hda", "hdb", "hdc", "hdd":
                if value == path { found.append(Found(option: option, index: index)) }
            case "drive", "blockdev":
                // What is in JSON stays unfound, and is refused.
                let keys = option == "drive" ? ["file", "file.filename"] : ["filename", "file.filename"]
                for item in QEMUCommandLine.properties(value) where keys.contains(item.key) && item.value == path {
                    found.append(Found(option: option, index: index, key: item.key))
                }
            default: break
            }
        }
        guard found.count == 1 else {
            throw refusal(disk, found.isEmpty ? "no option of its command line names \(path)" : "\(found.count) options name \(path)")
        }
        return found[0]
    }

    /// Calls `body` with each option that has a value, and the value's index.
    private func forEachOption(_ body: (String, Int) -> Void) {
        var index = 1
        while index < arguments.count {
            if let option = QEMUCommandLine.optionName(arguments[index]), !QEMUCommandLine.withoutValue.contains(option) {
                index += 1
                if index < arguments.count { body(option, index) }
            }
            index += 1
        }
    }

    // MARK: - Rewriting

    private mutating func placeShortOption(_ disk: DiskPlace, _ found: Found) {
        let position = ["hda", "hdb", "hdc", "hdd"].firstIndex(of: found.option)!
        arguments[found.index - 1] = "-drive"
        arguments[found.index] = Self.text(
            [("file", disk.path), ("index", "\(position)"), ("media", "disk"), ("format", "raw")] + limit(disk))
    }

    private mutating func placeDrive(_ disk: DiskPlace, _ found: Found) {
        var items = QEMUCommandLine.properties(arguments[found.index])
        items.removeAll { ["format", "driver", "file.driver", "size"].contains($0.key) }
        Self.set(found.key!, disk.path, in: &items)
        items += [("format", "raw")] + limit(disk)
        if found.key == "file.filename" { items.append(("file.driver", protocolDriver(disk))) }
        arguments[found.index] = Self.text(items)
    }

    private mutating func placeNode(_ disk: DiskPlace, _ found: Found) throws(TurntableError) {
        var items = QEMUCommandLine.properties(arguments[found.index])
        Self.set(found.key!, disk.path, in: &items)
        if found.key == "file.filename" {
            Self.set("file.driver", protocolDriver(disk), in: &items)
            makeRaw(disk, &items)
            arguments[found.index] = Self.text(items)
            return
        }
        Self.set("driver", protocolDriver(disk), in: &items)
        arguments[found.index] = Self.text(items)
        // The format is another node, above this one.
        let node = items.first { $0.key == "node-name" }?.value
        var above: [Int] = []
        forEachOption { option, index in
            let isAbove = QEMUCommandLine.properties(arguments[index]).contains { $0.key == "file" && $0.value == node }
            if option == "blockdev", node != nil, isAbove { above.append(index) }
        }
        if let index = above.first, above.count == 1 {
            var format = QEMUCommandLine.properties(arguments[index])
            makeRaw(disk, &format)
            arguments[index] = Self.text(format)
        } else if !disk.isSourceRaw || disk.isLarger {
            throw refusal(
                disk, disk.isLarger ? "\(disk.path) is larger than the disk, and no node above it could say so" : "no -blockdev gives its format")
        }
    }

    private func makeRaw(_ disk: DiskPlace, _ items: inout Items) {
        Self.set("driver", "raw", in: &items)
        items.removeAll { $0.key == "size" }
        items += limit(disk)
    }

    /// What keeps the guest from seeing more than its disk.
    private func limit(_ disk: DiskPlace) -> Items { disk.isLarger ? [("size", "\(disk.size.value)")] : [] }

    private func protocolDriver(_ disk: DiskPlace) -> String { disk.isDevice ? "host_device" : "file" }

    private static func set(_ key: String, _ value: String, in items: inout Items) {
        items.removeAll { $0.key == key }
        items.append((key, value))
    }

    private static func text(_ items: Items) -> String {
        items.map { $0.key.isEmpty ? $0.value.escapingCommas : "\($0.key)=\($0.value.escapingCommas)" }.joined(separator: ",")
    }

    private func refusal(_ disk: DiskPlace, _ why: String) -> TurntableError {
        TurntableError(
            .refused, "placing the disk \(disk.name) at \(disk.path)", why,
            remedy: "name the image in a -drive or -blockdev of its own, as text, or give the machine's command to `turntable receive`")
    }
}

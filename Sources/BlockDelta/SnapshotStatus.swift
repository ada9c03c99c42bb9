// The status line of device-mapper's snapshot target, as `dmsetup status` shows it behind the target's name:
// "used/total metadata" in sectors of 512 bytes, or one of the words below. Source: Documentation/admin-guide/device-mapper/snapshot.rst.

public import TurntableCore

public enum SnapshotStatus: Hashable, Sendable {
    /// The store's table of what it holds is a part of what is used.
    case used(ByteCount, of: ByteCount, table: ByteCount)
    /// What it held is lost: its store was full, or could not be written.
    case invalid(String)

    public init?(parsing text: String) {
        let words = text.split(separator: " ")
        switch words.first {
        case "Invalid", "Overflow", "Merge":
            self = .invalid(text)
        case let first?:
            let numbers = first.split(separator: "/", omittingEmptySubsequences: false)
            guard numbers.count == 2, let used = Self.bytes(numbers[0]), let total = Self.bytes(numbers[1]) else { return nil }
            self = .used(used, of: total, table: words.count > 1 ? Self.bytes(words[1]) ?? ByteCount(0) : ByteCount(0))
        case nil:
            return nil
        }
    }

    private static func bytes(_ sectors: Substring) -> ByteCount? {
        Int(sectors).flatMap { 0...(1 << 53) ~= $0 ? ByteCount($0 * 512) : nil }
    }
}

/// The name under which device-mapper knows a logical volume, or a layer of it: dashes are doubled, one dash joins.
public func deviceMapperName(group: String, volume: String, layer: String? = nil) -> String {
    let parts = [group, volume].map { $0.split(separator: "-", omittingEmptySubsequences: false).joined(separator: "--") }
    return (parts + (layer.map { [$0] } ?? [])).joined(separator: "-")
}

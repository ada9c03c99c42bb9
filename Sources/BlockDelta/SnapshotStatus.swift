// The status line of device-mapper's snapshot target, as `dmsetup status` shows it behind the target's name:
// "used/total metadata" in sectors of 512 bytes, or one of the words below. Source: Documentation/admin-guide/device-mapper/snapshot.rst.

public import TurntableCore

public enum SnapshotStatus: Hashable, Sendable {
    case used(ByteCount, of: ByteCount)
    /// What it held is lost: its store was full, or could not be written.
    case invalid(String)

    public init?(parsing text: String) {
        let words = text.split(separator: " ")
        switch words.first {
        case "Invalid", "Overflow", "Merge":
            self = .invalid(text)
        case let first?:
            let numbers = first.split(separator: "/", omittingEmptySubsequences: false)
            guard numbers.count == 2, let used = Int(numbers[0]), let total = Int(numbers[1]), 0...(1 << 53) ~= used, 0...(1 << 53) ~= total
            else { return nil }
            self = .used(ByteCount(used * 512), of: ByteCount(total * 512))
        case nil:
            return nil
        }
    }
}

/// The name under which device-mapper knows a logical volume, or a layer of it: dashes are doubled, one dash joins.
public func deviceMapperName(group: String, volume: String, layer: String? = nil) -> String {
    let parts = [group, volume].map { $0.split(separator: "-", omittingEmptySubsequences: false).joined(separator: "--") }
    return (parts + (layer.map { [$0] } ?? [])).joined(separator: "-")
}

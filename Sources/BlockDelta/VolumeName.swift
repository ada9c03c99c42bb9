internal import FoundationEssentials
public import TurntableCore
internal import TurntableLinux

extension LVM {
    /// GROUP/VOLUME of a device of device-mapper's, under any of its names; nil if it is not a logical volume.
    public static func volumeName(ofDevice path: String) -> String? {
        guard let number = deviceNumber(at: path), let identifier = identifier(of: number), let name = attribute("name", of: number)
        else { return nil }
        // A volume's own device has LVM- and 64 letters; those of its layers have a suffix.
        guard identifier.utf8.count == 68 else { return nil }
        return volumeName(ofDeviceMapperName: name)
    }

    /// What tells a logical volume, or a layer of one, from all others, on whatever host; nil if it is none.
    public static func identifier(ofDevice path: String) -> String? { deviceNumber(at: path).flatMap(identifier(of:)) }

    private static func identifier(of number: String) -> String? {
        attribute("uuid", of: number).flatMap { $0.hasPrefix("LVM-") ? $0 : nil }
    }

    /// One hyphen stands between group and volume; those of the names themselves are doubled.
    static func volumeName(ofDeviceMapperName name: String) -> String? {
        let parts = name.replacing("--", with: "/").split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty }) else { return nil }
        return parts.map { $0.replacing("/", with: "-") }.joined(separator: "/")
    }

    /// What /sys says of a device of device-mapper's by its number MAJOR:MINOR.
    static func attribute(_ name: String, of number: String) -> String? {
        guard let data = try? Data(contentsOf: URL(filePath: "/sys/dev/block/\(number)/dm/\(name)")) else { return nil }
        return String(decoding: data, as: UTF8.self).split(separator: "\n").first.map(String.init)
    }

    /// The program that runs LVM's library: beside this one, or where $TURNTABLE_LVM_HELPER says.
    public static func helperPath() throws(TurntableError) -> String {
        let own = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        let places = [environmentValue("TURNTABLE_LVM_HELPER"), own.appending(path: "turntable-lvm-helper").path].compactMap(\.self)
        guard let found = places.first(where: { FileManager.default.isExecutableFile(atPath: $0) }) else {
            throw TurntableError(
                .unsupported, "looking for turntable-lvm-helper", "it is not at \(places.joined(separator: " nor at "))",
                remedy: "build it with `make build`, or set TURNTABLE_LVM_HELPER")
        }
        return found
    }
}

internal import CTurntableBlock
internal import Glibc
public import TurntableCore
internal import TurntableLinux

/// The kernel's device-mapper, asked in this process: each call takes well under a few milliseconds.
public enum DeviceMapper {
    public struct Target: Sendable {
        public var type: String
        public var size: ByteCount
        public var parameters: String
    }

    /// What a device is doing: its first target's status. Nil if there is no such device.
    public static func status(of name: String) throws(TurntableError) -> Target? { try target(name, table: false) }
    /// What a device is made of: its first target's table. Nil if there is no such device.
    public static func table(of name: String) throws(TurntableError) -> Target? { try target(name, table: true) }

    /// Holds back what is written to a device until ``resume(_:)``, when all that is under way is done.
    public static func suspend(_ name: String) throws(TurntableError) { try call("suspending", name) { unsafe tt_dm_suspend(name) } }
    public static func resume(_ name: String) throws(TurntableError) { try call("resuming", name) { unsafe tt_dm_resume(name) } }
    public static func message(_ text: String, to name: String) throws(TurntableError) {
        try call("sending \"\(text)\" to", name) { unsafe tt_dm_message(name, text) }
    }

    /// The status of a snapshot: nil if it is not there or is none.
    public static func snapshotStatus(of name: String) throws(TurntableError) -> SnapshotStatus? {
        guard let target = try status(of: name), target.type == "snapshot" else { return nil }
        return SnapshotStatus(parsing: target.parameters)
    }

    /// How often a device is open, this process included. Nil for a device that is none of device-mapper's.
    static func openCount(major: UInt32, minor: UInt32) -> Int? {
        let count = tt_dm_open_count(major, minor)
        return count < 0 ? nil : Int(count)
    }

    /// What a device is called; nil for one that is none of device-mapper's.
    static func name(major: UInt32, minor: UInt32) -> String? {
        var name = [CChar](repeating: 0, count: 128)
        guard unsafe tt_dm_name(major, minor, &name, name.count) == 0 else { return nil }
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    private static func target(_ name: String, table: Bool) throws(TurntableError) -> Target? {
        var target = tt_dm_target()
        let result = unsafe tt_dm_target(name, table ? 1 : 0, &target)
        if result == -ENXIO { return nil }
        try check(result, "asking for the state of", name)
        return Target(
            type: string(&target.type, MemoryLayout.size(ofValue: target.type)), size: ByteCount(Int(target.sectors) * 512),
            parameters: string(&target.parameters, MemoryLayout.size(ofValue: target.parameters)))
    }

    private static func call(_ verb: String, _ name: String, _ body: () -> Int32) throws(TurntableError) { try check(body(), verb, name) }

    private static func check(_ result: Int32, _ verb: String, _ name: String) throws(TurntableError) {
        guard result < 0 else { return }
        if result == -ENODEV || result == -EACCES {
            throw TurntableError(
                .unsupported, "\(verb) the device \(name)",
                result == -EACCES ? "it is root's" : "this kernel has no device-mapper, or this user may not use it",
                remedy: "load dm_mod, and run as root")
        }
        throw TurntableError(.unsupported, "\(verb) the device \(name)", errorText(-result))
    }

    /// The text in a C array of `capacity` bytes that ends with a zero.
    private static func string<Tuple>(_ tuple: inout Tuple, _ capacity: Int) -> String {
        unsafe withUnsafePointer(to: &tuple) { pointer in
            unsafe pointer.withMemoryRebound(to: CChar.self, capacity: capacity) { unsafe String(cString: $0) }
        }
    }
}

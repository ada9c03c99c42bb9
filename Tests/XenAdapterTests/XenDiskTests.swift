internal import Testing
internal import TurntableCore

@testable internal import XenAdapter

/// What xenstore says of a domain's disks.
struct XenDiskTests {
    /// As Xen 4.17 has it of a logical volume that xen-blkback serves.
    static let served = [
        "/libxl/3/device/vbd/51712/backend": "/local/domain/0/backend/vbd/3/51712", "/libxl/3/device/vbd/51712/params": "vg/web",
        "/libxl/3/device/vbd/51712/dev": "xvda", "/libxl/3/device/vbd/51712/mode": "w", "/libxl/3/device/vbd/51712/type": "phy",
        "/local/domain/0/backend/vbd/3/51712/physical-device": "fd:1a", "/local/domain/0/backend/vbd/3/51712/physical-device-path": "/dev/mapper/vg-web",
        // The guest's own part, which nobody here believes.
        "/local/domain/3/device/vbd/51712/backend": "/local/domain/0/backend/vbd/3/51728",
    ]

    static func disk(_ changes: [String: String?] = [:]) throws -> XenDisk {
        var values = served
        for (path, value) in changes { values[path] = value }
        return try XenDisk("51712", of: 3) { values[$0] }
    }

    @Test func aVolumeThatTheKernelServes() throws {
        let disk = try Self.disk()
        #expect((disk.name, disk.place, disk.isWritable) == ("xvda", "vg/web", true))
        #expect(disk.device == .init(path: "/dev/mapper/vg-web", number: "253:26"))
    }

    @Test func whatTheScriptDoesNotSayIsWhereTheConfigurationSays() throws {
        let disk = try Self.disk(["/local/domain/0/backend/vbd/3/51712/physical-device-path": nil])
        #expect(disk.device?.path == "vg/web")
    }

    @Test(arguments: [
        // QEMU, another domain, another domain's disk.
        "/local/domain/0/backend/qdisk/3/51712", "/local/domain/2/backend/vbd/3/51712", "/local/domain/0/backend/vbd/4/51712",
    ])
    func whatSomebodyElseServesHasNoDevice(backend: String) throws {
        #expect(try Self.disk(["/libxl/3/device/vbd/51712/backend": backend]).device == nil)
    }

    @Test(arguments: [nil, "", "253", "fd:", "fd:1:2", "fd:g0", "fd:100000000"])
    func aDeviceThatIsNotThereYetOrNoNumberIsNone(number: String?) throws {
        #expect(try Self.disk(["/local/domain/0/backend/vbd/3/51712/physical-device": number]).device == nil)
    }

    @Test(arguments: [("r", false), ("w", true), ("w!", true), (nil, true)])
    func onlyWhatIsSaidToBeReadOnlyIs(mode: String?, isWritable: Bool) throws {
        #expect(try Self.disk(["/libxl/3/device/vbd/51712/mode": mode]).isWritable == isWritable)
    }

    @Test(arguments: [("       0        0\n", 0), ("2 17\n", 19), ("", nil), ("1\n", nil), ("1 2 3", nil), ("x 1", nil)])
    func requestsUnderWayAreCounted(line: String, count: Int?) { #expect(XenDisk.pending(inStatus: Array(line.utf8)) == count) }
}

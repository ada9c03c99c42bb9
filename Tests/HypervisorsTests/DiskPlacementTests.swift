internal import TestSupport
internal import Testing
internal import TurntableCore

@testable import Hypervisors

/// Disks that come along are found in the source's command line by their path, and nothing else of it changes.
struct DiskPlacementTests {
    private func place(
        _ line: String, _ path: String = "/b", from source: String = "/a", raw isSourceRaw: Bool = true, device isDevice: Bool = false,
        larger isLarger: Bool = false
    ) throws(TurntableError) -> String {
        var disk = DiskPlace(machine: "m", name: "d", path: path, size: ByteCount(1 << 20), sourcePath: source, isSourceRaw: isSourceRaw)
        disk.isDevice = isDevice
        disk.isLarger = isLarger
        var placement = DiskPlacement(["qemu"] + line.split(separator: " ").map(String.init))
        try placement.place([disk])
        return placement.arguments.dropFirst().joined(separator: " ")
    }

    @Test(
        arguments: [
            ("-m 1G -hda /a -S", "-m 1G -drive file=/b,index=0,media=disk,format=raw -S"),
            ("--hdd /a", "-drive file=/b,index=3,media=disk,format=raw"),
            ("-drive file=/a,format=raw,if=virtio", "-drive if=virtio,file=/b,format=raw"),
            ("-drive file=/a -drive file=/c", "-drive file=/b,format=raw -drive file=/c"),
            ("-drive if=none,id=x,file.filename=/a,file.driver=file,driver=raw", "-drive if=none,id=x,file.filename=/b,format=raw,file.driver=file"),
            ("-drive file=/a,size=4096,format=raw", "-drive file=/b,format=raw"),
            ("-blockdev driver=file,filename=/a,node-name=f", "-blockdev node-name=f,filename=/b,driver=file"),
            (
                "-blockdev driver=file,filename=/a,node-name=f -blockdev driver=raw,file=f,node-name=d",
                "-blockdev node-name=f,filename=/b,driver=file -blockdev file=f,node-name=d,driver=raw"
            ),
            ("-blockdev driver=raw,node-name=d,file.driver=file,file.filename=/a", "-blockdev node-name=d,file.filename=/b,file.driver=file,driver=raw"),
            // What another option takes for its value is no disk.
            ("-append -hda -hda /a -name /a", "-append -hda -drive file=/b,index=0,media=disk,format=raw -name /a"),
        ])
    func rawStaysRaw(line: String, placed: String) throws { #expect(try place(line) == placed) }

    @Test(
        arguments: [
            ("-hda /a", "-drive file=/b,index=0,media=disk,format=raw"),
            ("-drive file=/a,format=qcow2,if=virtio", "-drive if=virtio,file=/b,format=raw"),
            ("-drive file=/a,driver=qcow2", "-drive file=/b,format=raw"),
            (
                "-blockdev driver=file,filename=/a,node-name=f -blockdev driver=qcow2,file=f,node-name=d",
                "-blockdev node-name=f,filename=/b,driver=file -blockdev file=f,node-name=d,driver=raw"
            ),
            ("-blockdev driver=qcow2,node-name=d,file.driver=file,file.filename=/a", "-blockdev node-name=d,file.filename=/b,file.driver=file,driver=raw"),
        ])
    func anyOtherFormatBecomesRaw(line: String, placed: String) throws { #expect(try place(line, raw: false) == placed) }

    @Test func devicesAreNamedAsSuch() throws {
        #expect(
            try place("-blockdev driver=file,filename=/a,node-name=f -blockdev driver=raw,file=f", "/dev/v", device: true, larger: true)
                == "-blockdev node-name=f,filename=/dev/v,driver=host_device -blockdev file=f,driver=raw,size=1048576")
        #expect(try place("-drive file=/a,if=ide", "/dev/v", device: true, larger: true) == "-drive if=ide,file=/dev/v,format=raw,size=1048576")
        #expect(try place("-hda /a", "/dev/v", larger: true) == "-drive file=/dev/v,index=0,media=disk,format=raw,size=1048576")
        #expect(
            try place("-drive file.filename=/a,id=x", "/dev/v", device: true) == "-drive id=x,file.filename=/dev/v,format=raw,file.driver=host_device")
    }

    @Test func commasStayCommas() throws {
        #expect(try place("-drive file=/a,,1,id=x,,y", "/b,2", from: "/a,1") == "-drive id=x,,y,file=/b,,2,format=raw")
    }

    @Test(
        arguments: [
            ("-drive file=/c", "no option of its command line names /a"), ("-hda /a -drive file=/a", "2 options name /a"),
            (#"-blockdev {"driver":"file","filename":"/a"}"#, "no option of its command line names /a"),
            ("-append /a", "no option of its command line names /a"),
        ])
    func whatIsNotFoundOnceIsRefused(line: String, why: String) {
        let error = failure { () throws(TurntableError) in try place(line) }
        #expect(error?.kind == .refused && error?.why == why)
    }

    @Test func aBareNodeCannotBeMadeSmaller() {
        let error = failure { () throws(TurntableError) in try place("-blockdev driver=file,filename=/a,node-name=f", larger: true) }
        #expect(error?.why == "/b is larger than the disk, and no node above it could say so")
    }

    @Test func twoDisksDoNotMeet() throws {
        var placement = DiskPlacement(["qemu", "-drive", "file=/a,id=1", "-drive", "file=/b,id=2"])
        try placement.place([
            DiskPlace(machine: "m", name: "1", path: "/b", size: ByteCount(512), sourcePath: "/a", isSourceRaw: true),
            DiskPlace(machine: "m", name: "2", path: "/a", size: ByteCount(512), sourcePath: "/b", isSourceRaw: true),
        ])
        #expect(placement.arguments == ["qemu", "-drive", "id=1,file=/b,format=raw", "-drive", "id=2,file=/a,format=raw"])
    }
}

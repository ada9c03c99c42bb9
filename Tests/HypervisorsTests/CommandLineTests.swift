internal import TestSupport
internal import Testing
internal import TurntableCore

@testable import Hypervisors

/// The RAM of an operator's command line ends up in our files, and nothing else of it changes.
struct CommandLineTests {
    private func parse(_ line: String) throws(TurntableError) -> QEMUCommandLine {
        try QEMUCommandLine(["qemu"] + line.split(separator: " ").map(String.init))
    }

    @Test(
        arguments: [
            ("", 128 << 20), ("-m 512", 512 << 20), ("-m 512M", 512 << 20), ("-m 2G", 2 << 30), ("-m size=1G", 1 << 30),
            ("-m size=256,slots=2,maxmem=4G", 256 << 20),
            ("-m 1G,slots=4,maxmem=8G", 1 << 30), ("--m 64M", 64 << 20), ("-m 1G -m 2G", 2 << 30), ("-append -m -m 32M", 32 << 20),
        ] as [(String, Int)])
    func mainMemoryIsWhatDashMSays(line: String, bytes: Int) throws {
        let commandLine = try parse(line)
        #expect(commandLine.regions.map(\.bytes) == [bytes])
        #expect(commandLine.regions.map(\.name) == [QEMUCommandLine.mainMemoryName])
    }

    @Test(arguments: ["-m x", "-m 0", "-m -1G", "-m 1001B", "-m"])
    func whatIsNoSizeIsRefused(line: String) { #expect(failure { () throws(TurntableError) in try parse(line) }?.kind == .usage) }

    @Test(arguments: [
        ([], 1), (["-smp", "4"], 4), (["-smp", "cpus=6,maxcpus=8"], 6), (["-smp", "sockets=2,cores=3,threads=2"], 12), (["-smp", "x"], 1),
    ] as [([String], Int)]) func processorsAreCounted(_ more: [String], _ count: Int) throws {
        #expect(try QEMUCommandLine(["qemu-system-x86_64"] + more).processors == count)
    }

    @Test func mainMemoryIsAdded() throws {
        let rewritten = try parse("-m 1G -S").rewritten(
            descriptors: [QEMUCommandLine.mainMemoryName: 9], monitor: "/run/a,b/qmp.sock", incoming: false)
        #expect(
            rewritten == [
                "qemu", "-m", "1G", "-S", "-object",
                "memory-backend-file,id=turntable.ram,size=1073741824,mem-path=/proc/self/fd/9,share=on",
                "-machine", "memory-backend=turntable.ram", "-qmp", "unix:/run/a,,b/qmp.sock,server=on,wait=off",
            ])
    }

    @Test func anIncomingMachineWaits() throws {
        let rewritten = try parse("-m 1G").rewritten(descriptors: [QEMUCommandLine.mainMemoryName: 9], monitor: "/m", incoming: true)
        #expect(rewritten.suffix(3) == ["-S", "-incoming", "defer"])
    }

    @Test func existingBackendsAreRewrittenWhereTheyStand() throws {
        let line = try parse(
            "-m 2G -object memory-backend-memfd,id=a,size=1G,share=off,prealloc=on -object iothread,id=t -object memory-backend-file,id=b,size=1G,mem-path=/x,hugetlb=on,host-nodes=0-1 -numa node,memdev=a -numa node,memdev=b"
        )
        #expect(line.regions.map(\.name) == ["a", "b"])
        let rewritten = line.rewritten(descriptors: ["a": 5, "b": 6], monitor: "/m", incoming: false)
        #expect(rewritten[4] == "memory-backend-file,id=a,size=1073741824,mem-path=/proc/self/fd/5,share=on,prealloc=on")
        #expect(rewritten[6] == "iothread,id=t")
        #expect(rewritten[8] == "memory-backend-file,id=b,size=1073741824,mem-path=/proc/self/fd/6,share=on,host-nodes=0-1")
        #expect(!rewritten.contains { $0.contains(QEMUCommandLine.mainMemoryName) })
    }

    /// A backend that is no main memory leaves main memory to us.
    @Test func aBackendForSomethingElseStaysBesideMainMemory() throws {
        let line = try parse("-m 1G -object memory-backend-ram,id=dimm,size=256M -device pc-dimm,memdev=dimm")
        #expect(line.regions.map(\.name) == [QEMUCommandLine.mainMemoryName, "dimm"])
    }

    @Test(
        arguments: [
            ("hugetlb=on", 2 << 20), ("hugetlb=off", 0), ("hugetlbsize=1G,hugetlb=on", 1 << 30), ("hugetlb=on,hugetlbsize=1G", 1 << 30),
            ("share=on", 0),
        ] as [(String, Int)])
    func hugePagesAreKept(properties: String, bytes: Int) throws {
        #expect(
            try parse("-object memory-backend-memfd,id=a,size=2G,\(properties) -machine memory-backend=a").regions.first?.hugePageBytes
                == bytes)
    }

    /// A doubled comma is a comma of the value's, in what is read and in what is written.
    @Test func commasDoNotBreakOut() throws {
        #expect(QEMUCommandLine.properties("a,b=c,,d,e=f=g,,").map { "\($0.key):\($0.value)" } == [":a", "b:c,d", "e:f=g,"])
        let line = try parse("-object memory-backend-ram,id=a,size=1M,policy=x,,share=off -machine memory-backend=a")
        #expect(line.rewritten(descriptors: ["a": 5], monitor: "/m", incoming: false)[2].hasSuffix(",share=on,policy=x,,share=off"))
        #expect(try parse("-name guest=a,,b,process=x").guestName == "a,b")
        #expect(try parse("-name web").guestName == "web")
    }

    @Test(arguments: [
        "-mem-path /x", "-mem-prealloc", "-incoming defer", "-daemonize", "--daemonize", "-device vfio-pci,host=1",
        "-device driver=vfio-pci,host=1",
        "-device {\"driver\":\"vfio-pci\"}", "-drive file=x,cache=none", "-drive file=x,cache.direct=on", "-drive file=x,aio=native",
        "-drive file=x,cache=directsync", "-blockdev driver=file,filename=x,cache.direct=on",
        "-blockdev driver=raw,file.driver=file,file.aio=io_uring,file.filename=x",
        "-blockdev {\"driver\":\"file\",\"cache\":{\"direct\":true}}",
        "-object memory-backend-epc,id=a,size=1M", "-object {\"qom-type\":\"memory-backend-ram\"}", "-object memory-backend-ram,size=1M",
        "-object memory-backend-ram,id=a",
        "-object memory-backend-ram,id=a,size=1000", "-object memory-backend-ram,id=a,size=1M -object memory-backend-ram,id=a,size=1M",
        "-object memory-backend-memfd,id=a,size=2M,hugetlbsize=3M",
    ])
    func whatCannotBeTrackedIsRefused(line: String) { #expect(failure { () throws(TurntableError) in try parse(line) }?.kind == .usage) }

    @Test func anEmptyCommandIsRefused() { #expect(failure { () throws(TurntableError) in try QEMUCommandLine([]) }?.kind == .usage) }

    /// What another option takes for its value is no option.
    @Test func valuesAreNotTakenForOptions() throws {
        #expect(try parse("-append -daemonize -m 1G").regions.map(\.bytes) == [1 << 30])
        #expect(try parse("-append -device -device virtio-rng-pci -m 1G").regions.map(\.bytes) == [1 << 30])
        #expect(try parse("-nographic -m 1G").regions.map(\.bytes) == [1 << 30])
    }
}

struct RunDirectoryTests {
    @Test(arguments: ["a", "web-1", "db_2.example", String(repeating: "x", count: 64), "9", "log"])
    func namesThatCanBeDirectories(name: String) {
        #expect(failure { () throws(TurntableError) in try MachineName.check(name) } == nil)
    }

    @Test(arguments: [
        "", ".", "..", ".hidden", "a/b", "../a", "a b", "ä", "a\0", "a\n", String(repeating: "x", count: 65), "*", "~", "web.log",
        "-\u{301}",
    ])
    func namesThatCannot(name: String) {
        #expect(failure { () throws(TurntableError) in try MachineName.check(name) }?.kind == .usage)
    }
}

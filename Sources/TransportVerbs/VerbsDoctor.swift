// What this host has for RDMA, and what it lacks, each with one thing to do about it.

internal import CTurntableVerbs
internal import Glibc
internal import TurntableCore
internal import TurntableLinux

public struct VerbsDiagnosis: Sendable, Codable {
    public struct Port: Sendable, Codable {
        public var number: Int
        public var isActive: Bool
        public var link: String
        public var mtuBytes: Int
        public var largestMTUBytes: Int
        public var gids: [String]
    }
    public struct Device: Sendable, Codable {
        public var name: String
        public var ports: [Port]
        public var largestRegionBytes: UInt64
        public var queuePairs: Int
        public var queuedWrites: Int
        public var registrations: Int
        public var completions: Int
    }
    /// Something that is missing, and what to do about it.
    public struct Finding: Sendable, Codable, Equatable {
        public var what: String
        public var remedy: String
    }

    public var hasLibraries = false
    public var devices: [Device] = []
    /// Memory that this process may lock; nil if there is no limit.
    public var lockableBytes: UInt64?
    public var neededBytes = Limits.pinnedBytes
    public var findings: [Finding] = []
    /// Whether data streams can go over RDMA here.
    public var isUsable: Bool { findings.isEmpty }

    /// Asks this host.
    public static func ofThisHost() -> VerbsDiagnosis {
        var diagnosis = VerbsDiagnosis()
        diagnosis.lookAtMemory()
        do throws(TurntableError) { try VerbsLibrary.load() } catch {
            diagnosis.add("the libraries: \(error.why)", "apt-get install libibverbs1 librdmacm1 ibverbs-providers")
            return diagnosis
        }
        diagnosis.hasLibraries = true
        do throws(TurntableError) { _ = try EventChannel() } catch {
            diagnosis.add("the connection manager: \(error.why)", "modprobe rdma_ucm")
        }
        diagnosis.lookAtDevices()
        return diagnosis
    }

    private mutating func add(_ what: String, _ remedy: String) { findings.append(Finding(what: what, remedy: remedy)) }

    private mutating func lookAtMemory() {
        var isLifted: Int32 = 0
        let limit = unsafe tt_memlock_bytes(&isLifted)
        guard limit != .max, isLifted == 0 else { return }
        lockableBytes = limit
        if limit < UInt64(neededBytes) {
            add(
                "lockable memory: \(ByteCount(Int(limit))), and \(ByteCount(neededBytes)) may be pinned",
                "ulimit -l \(neededBytes >> 10), or LimitMEMLOCK= in its systemd unit, or CAP_IPC_LOCK")
        }
    }

    private static let mostDevices = 16
    private static let mostGIDs = 8

    private mutating func lookAtDevices() {
        let found = unsafe withUnsafeTemporaryAllocation(of: tt_verbs_device.self, capacity: Self.mostDevices) { buffer in
            let count = unsafe tt_verbs_devices(buffer.baseAddress!, Int32(Self.mostDevices))
            return (0..<Int(max(0, count))).map { unsafe buffer[$0] }
        }
        for device in found { devices.append(Self.describe(device)) }
        if devices.isEmpty {
            return add("devices: this process can open none", "load the card's driver; for soft RoCE: rdma link add rxe0 type rxe netdev eth0")
        }
        let ports = devices.flatMap(\.ports)
        if !ports.contains(where: \.isActive) { add("ports: none is active", "bring the network interface behind it up (ip link set … up)") }
        if !ports.contains(where: { $0.isActive && !$0.gids.isEmpty }) {
            add("GIDs: no active port has one", "give its network interface an address")
        }
        for device in devices where device.largestRegionBytes < UInt64(Limits.framePayloadBytes) {
            add("\(device.name): regions of \(device.largestRegionBytes) bytes at most", "use another device")
        }
        for device in devices where device.queuedWrites < Limits.queuedWrites {
            add("\(device.name): \(device.queuedWrites) requests a queue pair, and \(Limits.queuedWrites) are wanted", "use another device")
        }
    }

    private static func describe(_ device: tt_verbs_device) -> Device {
        let name = unsafe withUnsafeBytes(of: device.name) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        var ports: [Port] = []
        for number in 1...max(1, Int(device.ports)) {
            var port = tt_verbs_port()
            guard unsafe tt_verbs_port(name, Int32(number), &port) == 0 else { continue }
            let gids = (0..<min(Int(port.gids), mostGIDs)).compactMap { gid(name, number, $0) }
            ports.append(
                Port(
                    number: number, isActive: port.state == 4, link: port.is_ethernet != 0 ? "Ethernet" : "InfiniBand",
                    mtuBytes: Int(port.mtu_bytes), largestMTUBytes: Int(port.largest_mtu_bytes), gids: gids))
        }
        return Device(
            name: name, ports: ports, largestRegionBytes: device.largest_region_bytes, queuePairs: Int(device.queue_pairs),
            queuedWrites: Int(device.send_depth), registrations: Int(device.regions), completions: Int(device.completions))
    }

    private static func gid(_ device: String, _ port: Int, _ index: Int) -> String? {
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { text in
            guard unsafe tt_verbs_gid(device, Int32(port), Int32(index), text.baseAddress!) == 0 else { return nil }
            return unsafe String(cString: text.baseAddress!)
        }
    }
}

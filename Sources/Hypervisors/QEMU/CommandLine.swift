// Rewriting a QEMU command line so that its RAM lies in memory files of ours. Pure: text in, text out.
//
// Every memory backend object becomes a memory-backend-file on a file that we made, shared; a machine that has none for
// its main memory gets one of the size that -m says. Everything else stays as the operator wrote it.

public import TurntableCore

/// A QEMU command line, and the memory it wants.
public struct QEMUCommandLine: Sendable, Equatable {
    /// The region name of main memory when the operator named no backend for it.
    public static let mainMemoryName = "turntable.ram"
    static let defaultMainMemory = ByteCount.mebi(128)

    /// The emulator, then its arguments, as the operator wrote them.
    public let arguments: [String]
    /// The memory files it needs, in the order of the command line.
    public private(set) var regions: [Region] = []
    /// What the operator called the machine with -name.
    public private(set) var guestName: String?
    /// How many processors the machine has: -smp.
    public private(set) var processors = 1
    private var backendArguments: [Int: String] = [:]
    private var addsMainMemory = false

    public struct Region: Sendable, Equatable {
        public var name: String
        public var bytes: Int
        /// 0 for ordinary pages.
        public var hugePageBytes: Int
        /// Properties of the operator's backend that stay: placement, preallocation, dump.
        var properties: String
    }

    public init(_ arguments: [String]) throws(TurntableError) {
        self.arguments = arguments
        guard !arguments.isEmpty else {
            throw Self.usage("no command was given", remedy: "write it after --: turntable run -- qemu-system-x86_64 …")
        }
        var mainMemory = Self.defaultMainMemory
        var mainHasBackend = false
        var index = 1
        while index < arguments.count {
            let option = Self.optionName(arguments[index])
            let value = index + 1 < arguments.count ? arguments[index + 1] : ""
            switch option {
            case "m":
                mainMemory = try Self.parseMemory(value)
                index += 1
            case "smp":
                processors = Self.parseProcessors(value)
                index += 1
            case "object":
                index += 1
                if let region = try Self.parseBackend(value) {
                    regions.append(region)
                    backendArguments[index] = region.name
                }
            case "M", "machine":
                if Self.properties(value).contains(where: { $0.key == "memory-backend" }) { mainHasBackend = true }
                index += 1
            case "numa":
                if Self.properties(value).contains(where: { $0.key == "memdev" }) { mainHasBackend = true }
                index += 1
            case "name":
                guestName = Self.properties(value).first { $0.key == "guest" || $0.key.isEmpty }?.value
                index += 1
            case "drive", "blockdev":
                try Self.checkDisk(option!, value)
                index += 1
            case "device", "netdev":
                try Self.checkDevice(option!, value)
                index += 1
            case "mem-path", "mem-prealloc":
                throw Self.usage(
                    "-\(option!) is the old way to place memory", remedy: "use -object memory-backend-memfd with -machine memory-backend=")
            case "incoming", "daemonize":
                throw Self.usage(
                    "-\(option!) is turntable's own to give",
                    remedy: "leave it out; `turntable run` stays in the foreground, `turntable receive` starts incoming machines")
            // Every other option's value is skipped, whatever it looks like: what QEMU takes for a value is none of ours.
            case let other?: if !Self.withoutValue.contains(other) { index += 1 }
            case nil: break
            }
            index += 1
        }
        if !mainHasBackend {
            regions.insert(Region(name: Self.mainMemoryName, bytes: mainMemory.value, hugePageBytes: 0, properties: ""), at: 0)
            addsMainMemory = true
        }
        guard Set(regions.map(\.name)).count == regions.count else {
            throw Self.usage("two memory backends have the same id", remedy: "give each its own")
        }
        guard regions.count <= Limits.regions else {
            throw Self.usage("\(regions.count) memory backends, the limit is \(Limits.regions)", remedy: "use fewer")
        }
    }

    /// All of its memory.
    public var memory: ByteCount { ByteCount(regions.reduce(0) { $0 + $1.bytes }) }

    /// The arguments to start the emulator with, given the inherited descriptor of each region's memory file.
    public func rewritten(descriptors: [String: Int32], monitor: String, incoming: Bool) -> [String] {
        var result = arguments
        for (index, name) in backendArguments { result[index] = backend(regions.first { $0.name == name }!, descriptors[name]!) }
        if addsMainMemory {
            result += ["-object", backend(regions[0], descriptors[regions[0].name]!), "-machine", "memory-backend=\(Self.mainMemoryName)"]
        }
        result += ["-qmp", "unix:\(monitor.escapingCommas),server=on,wait=off"]
        if incoming { result += ["-S", "-incoming", "defer"] }
        return result
    }

    private func backend(_ region: Region, _ descriptor: Int32) -> String {
        "memory-backend-file,id=\(region.name.escapingCommas),size=\(region.bytes),mem-path=/proc/self/fd/\(descriptor),share=on\(region.properties)"
    }

    // MARK: - Parsing

    /// QEMU's options that take no value (qemu-options.hx, up to version 10).
    static let withoutValue: Set<String> = [
        "h", "help", "version", "S", "s", "nodefaults", "no-user-config", "nographic", "portrait", "full-screen", "alt-grab", "ctrl-grab",
        "no-quit", "no-frame",
        "sdl", "curses", "usb", "snapshot", "enable-kvm", "no-acpi", "no-hpet", "no-fd-bootchk", "no-reboot", "no-shutdown", "no-kvm",
        "no-kvm-irqchip",
        "no-kvm-pit", "no-kvm-pit-reinjection", "win2k-hack", "rtc-td-hack", "singlestep", "preconfig", "semihosting", "old-param",
        "enable-fips",
        "enable-sync-profile", "only-migratable", "xen-attach", "xen-domid-restrict", "audio-help", "nodefconfig", "mem-prealloc",
        "daemonize",
    ]

    /// The option's name without its dashes, or nil if it is no option.
    static func optionName(_ argument: String) -> String? {
        guard argument.hasPrefix("-"), argument.count > 1 else { return nil }
        return String(argument.drop { $0 == "-" })
    }

    /// `key=value` items, split at commas (a doubled comma is a comma); an item without `=` has an empty key.
    static func properties(_ text: String) -> [(key: String, value: String)] {
        var items: [String] = [""]
        var characters = text[...]
        while let character = characters.popFirst() {
            if character == ",", characters.first == "," {
                characters.removeFirst()
                items[items.count - 1].append(",")
            } else if character == "," {
                items.append("")
            } else {
                items[items.count - 1].append(character)
            }
        }
        return items.map { item in
            guard let equals = item.firstIndex(of: "=") else { return ("", item) }
            return (String(item[..<equals]), String(item[item.index(after: equals)...]))
        }
    }

    private static func parseMemory(_ text: String) throws(TurntableError) -> ByteCount {
        let items = properties(text)
        let size = items.first { $0.key == "size" || $0.key.isEmpty }?.value ?? "128"
        // A bare number is MiB, as in QEMU.
        guard let bytes = ByteCount(parsing: size.allSatisfy(\.isNumber) ? size + "M" : size), bytes.value > 0, bytes.value % pageBytes == 0
        else {
            throw usage("-m \(text) is no memory size", remedy: "write -m 512M")
        }
        return bytes
    }

    /// `4`, `cpus=4`, or what the topology makes; QEMU itself complains of what is wrong.
    private static func parseProcessors(_ text: String) -> Int {
        let items = properties(text)
        if let count = items.first(where: { $0.key == "cpus" || $0.key.isEmpty }).flatMap({ Int($0.value) }) { return max(1, count) }
        let factors = items.filter { ["sockets", "dies", "clusters", "cores", "threads"].contains($0.key) }.compactMap { Int($0.value) }
        return factors.reduce(1) { max(1, $0.multipliedReportingOverflow(by: $1).partialValue) }
    }

    private static func parseBackend(_ text: String) throws(TurntableError) -> Region? {
        if text.hasPrefix("{") {
            guard text.contains("memory-backend-") else { return nil }
            throw usage("-object \(text) is in JSON", remedy: "write memory backends as key=value")
        }
        let items = properties(text)
        guard let type = items.first?.value, type.hasPrefix("memory-backend-") else { return nil }
        guard ["memory-backend-ram", "memory-backend-memfd", "memory-backend-file"].contains(type) else {
            throw usage("-object \(type) cannot be tracked", remedy: "use memory-backend-memfd")
        }
        var region = Region(name: "", bytes: 0, hugePageBytes: 0, properties: "")
        for (key, value) in items.dropFirst() {
            switch key {
            case "id": region.name = value
            case "size":
                guard let bytes = ByteCount(parsing: value), bytes.value > 0, bytes.value % pageBytes == 0 else {
                    throw usage("size=\(value) of \(type)", remedy: "write size=512M")
                }
                region.bytes = bytes.value
            case "hugetlb": if value == "on" { region.hugePageBytes = max(region.hugePageBytes, 2 << 20) }
            case "hugetlbsize":
                guard let bytes = ByteCount(parsing: value), bytes.value.nonzeroBitCount == 1 else {
                    throw usage("hugetlbsize=\(value)", remedy: "write hugetlbsize=2M")
                }
                region.hugePageBytes = bytes.value
            case "host-nodes", "policy", "prealloc", "prealloc-threads", "dump", "merge":
                region.properties += ",\(key)=\(value.escapingCommas)"
            default: break  // share, mem-path, seal: ours now
            }
        }
        guard !region.name.isEmpty, region.name.utf8.count <= Limits.nameBytes, region.bytes > 0 else {
            throw usage("-object \(text) lacks an id or a size", remedy: "give both")
        }
        return region
    }

    /// What writes guest memory from elsewhere than QEMU's page tables: hardware, or another process that maps the same files.
    private static func checkDevice(_ option: String, _ text: String) throws(TurntableError) {
        let isJSON = text.hasPrefix("{")
        let types = properties(text).filter { $0.key.isEmpty || $0.key == "driver" || $0.key == "type" }.map(\.value)
        for family in ["vfio-", "vhost-user", "vhost-vdpa"]
        where isJSON ? text.contains("\"\(family)") : types.contains(where: { $0.hasPrefix(family) }) {
            let remedy =
                family == "vfio-" ? "unplug passed-through devices before moving the machine" : "use a device that QEMU or vhost-net serves"
            throw usage("-\(option) \(text) writes guest memory past any dirty log", remedy: remedy)
        }
    }

    /// Device writes that go past the page tables are not in the dirty log: with direct I/O the disk's data arrives in
    /// guest memory after the page was marked.
    private static func checkDisk(_ option: String, _ text: String) throws(TurntableError) {
        let direct =
            properties(text).contains { key, value in
                (key == "cache" && (value == "none" || value == "directsync"))
                    || ((key == "cache.direct" || key.hasSuffix(".cache.direct")) && value == "on")
                    || ((key == "aio" || key.hasSuffix(".aio")) && value != "threads")
            } || text.contains("\"direct\": true") || text.contains("\"direct\":true")
        if direct {
            throw usage(
                "-\(option) \(text) reads the disk straight into guest memory, past the dirty log",
                remedy: "use cache=writeback,aio=threads")
        }
    }

    private static func usage(_ why: String, remedy: String) -> TurntableError {
        TurntableError(.usage, "reading the QEMU command line", why, remedy: remedy)
    }
}

extension String {
    var escapingCommas: String { split(separator: ",", omittingEmptySubsequences: false).joined(separator: ",,") }
}

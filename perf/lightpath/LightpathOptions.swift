import ArgumentParser

struct EndOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Network namespace of end A: a name as in `ip netns`, or the path of a namespace file.", valueName: "netns"))
    var a: String?

    @Option(help: ArgumentHelp("Network namespace of end B.", valueName: "netns"))
    var b: String?

    @Flag(help: "Create both namespaces, and delete them at the end.")
    var create = false

    @Flag(help: "With --create: replace namespaces an earlier, killed run left behind.")
    var replace = false

    @Option(help: ArgumentHelp("Name of the device in both namespaces.", valueName: "name"))
    var device = "lp0"

    @Option(
        help: ArgumentHelp("IPv4 address and prefix of A's device, such as 10.5.0.1/30.", valueName: "address"),
        transform: { try InterfaceAddress(parsing: $0) })
    var addressA: InterfaceAddress?

    @Option(help: ArgumentHelp("The same for B.", valueName: "address"), transform: { try InterfaceAddress(parsing: $0) })
    var addressB: InterfaceAddress?

    @Option(
        help: ArgumentHelp(
            "Largest TCP buffers in both namespaces (net.ipv4.tcp_rmem, tcp_wmem): a size, auto (4 x rate x round trip, at least 16MiB) or off.",
            valueName: "size"))
    var tcpBuffers = "auto"

    func namespaceNames() throws(LineError) -> [String] {
        guard let a, let b else { throw .refused("--a and --b are needed: the two network namespaces to join") }
        guard a != b else { throw .refused("--a and --b are both '\(a)'; the line joins two namespaces") }
        guard create || !replace else { throw .refused("--replace goes with --create") }
        for name in [a, b] {
            let isPath = name.contains("/")
            guard !isPath || !create else { throw .refused("--create makes namespaces by name; '\(name)' is a path") }
            guard isPath || (!name.isEmpty && name != "." && name != ".." && name.utf8.count <= LineLimits.maximumNamespaceNameBytes) else {
                throw .refused("namespace name '\(name)' is not 1 to \(LineLimits.maximumNamespaceNameBytes) bytes long, or is . or ..")
            }
        }
        return [a, b]
    }

    func checkedDevice() throws(LineError) -> String {
        let isPlain = device.utf8.allSatisfy { (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "%") }
        guard isPlain, (1...LineLimits.maximumDeviceNameBytes).contains(device.utf8.count) else {
            throw .refused("device name '\(device)' is not 1 to \(LineLimits.maximumDeviceNameBytes) printable characters without / and %")
        }
        return device
    }

    func tcpBufferSize(rate: BitRate, delay: LineDelay) throws(LineError) -> ByteSize? {
        if tcpBuffers == "off" { return nil }
        if tcpBuffers == "auto" { return TCPBuffers.automatic(rate: rate, delay: delay) }
        let size = try ByteSize(parsing: tcpBuffers)
        guard (4096...LineLimits.maximumTCPBufferBytes).contains(size.bytes) else {
            throw .refused("--tcp-buffers \(tcpBuffers) is outside 4KiB…\(ByteSize(bytes: LineLimits.maximumTCPBufferBytes))")
        }
        return size
    }
}

struct LineOptions: ParsableArguments {
    static let leastMaximumDelay = LineDelay(nanoseconds: 100_000_000)

    @Option(
        help: ArgumentHelp("Line rate, frame overhead (38 bytes) included: kbit, mbit or gbit (default: 1gbit).", valueName: "rate"),
        transform: { try BitRate(parsing: $0) })
    var rate = BitRate(bitsPerSecond: 1_000_000_000)

    @Option(
        help: ArgumentHelp("Delay, one way: us, ms or s (default: 87.5ms).", valueName: "time"), transform: { try LineDelay(parsing: $0) })
    var delay = LineDelay(nanoseconds: 87_500_000)

    @Option(help: ArgumentHelp("Largest IP packet, 68 to 65535 bytes.", valueName: "bytes"))
    var mtu = 8174

    @Option(
        help: ArgumentHelp("Random loss of single frames, such as 0.001% (default: 0%).", valueName: "percent"),
        transform: { try LossRatio(parsing: $0) })
    var loss = LossRatio.none

    @Option(
        help: ArgumentHelp("Drop-tail queue in front of the line: KiB, MiB or GiB (default: 32MiB).", valueName: "size"),
        transform: { try ByteSize(parsing: $0) })
    var queue = ByteSize(bytes: 32 << 20)

    @Flag(
        inversion: .prefixedNo,
        help: ArgumentHelp(
            "Carry TCP super-frames of up to 64 KiB whole, each arriving with its last frame: the rate is exact, a third of the CPU time is"
                + " needed. A direction with loss gets single frames all the same."))
    var gso = true

    @Option(
        help: ArgumentHelp("Highest rate the control channel may set (default: the rate).", valueName: "rate"),
        transform: { try BitRate(parsing: $0) })
    var maxRate: BitRate?

    @Option(
        help: ArgumentHelp("Longest delay the control channel may set (default: twice the delay, at least 100ms).", valueName: "time"),
        transform: { try LineDelay(parsing: $0) })
    var maxDelay: LineDelay?

    @Option(help: "Seed of the random loss.")
    var seed: UInt64 = 1

    func checkedMTU() throws(LineError) -> Int {
        guard (LineLimits.minimumMTUBytes...LineLimits.maximumMTUBytes).contains(mtu) else {
            throw .refused("MTU \(mtu) is outside \(LineLimits.minimumMTUBytes)…\(LineLimits.maximumMTUBytes)")
        }
        return mtu
    }

    func checkedQueue() throws(LineError) -> ByteSize {
        guard queue.bytes <= LineLimits.maximumQueueBytes else {
            throw .refused("queue \(queue) is more than \(ByteSize(bytes: LineLimits.maximumQueueBytes))")
        }
        return queue
    }
}

struct ControlOptions: ParsableArguments {
    @Option(help: ArgumentHelp("UNIX socket that takes commands while the line runs.", valueName: "path"))
    var control: String?

    @Option(help: ArgumentHelp("Send one command to the line that listens at --control, print its reply and end.", valueName: "command"))
    var tell: String?

    @Flag(help: "Ready line, replies and statistics as JSON, one object a line.")
    var json = false
}

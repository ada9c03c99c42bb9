// What a receiver lets a source's description start. The description comes from another host: deny by default.

public import TurntableCore

public struct ReceivePolicy: Sendable {
    /// Directories under which every path in a description must lie.
    public var paths: [String] = []
    /// The most memory that one machine may have.
    public var memory = ByteCount.mebi(1 << 20)
    /// Directories in which an emulator is looked for.
    public var emulatorDirectories = ["/usr/bin", "/usr/local/bin", "/usr/libexec"]

    public init() {}

    /// Options that take a value which is checked.
    private static let withValue: Set<String> = [
        "M", "machine", "accel", "cpu", "smp", "m", "object", "numa", "name", "uuid", "device", "netdev", "nic", "net", "drive", "blockdev", "kernel", "initrd",
        "append", "dtb", "bios", "display", "vga", "serial", "chardev", "boot", "rtc", "global", "smbios", "cdrom", "hda", "hdb", "watchdog-action", "action",
        "k", "msg", "overcommit", "sandbox", "icount", "vnc",
    ]
    private static let withoutValue: Set<String> = ["nodefaults", "nographic", "no-user-config", "no-reboot", "no-shutdown", "enable-kvm", "no-acpi", "no-hpet", "no-fd-bootchk", "S"]
    /// Options whose value is text for the guest or a label, never a path of the host's.
    private static let text: Set<String> = ["append", "name", "uuid", "cpu", "smp", "m", "accel", "rtc", "boot"]
    private static let pathKeys: Set<String> = ["file", "filename", "path", "kernel", "initrd", "dtb", "bios", "cdrom", "hda", "hdb", "logfile", "mem-path", "romfile", "fd", "vhostfd", "fds"]

    /// The command line to start, or why not.
    public func check(_ arguments: [String], isExecutable: (String) -> Bool) throws(TurntableError) -> [String] {
        guard let first = arguments.first else { throw refusal("an empty command line") }
        let emulator = first.split(separator: "/").last.map(String.init) ?? ""
        let isName = emulator.hasPrefix("qemu-system-") && emulator.dropFirst(12).allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
        guard isName else { throw refusal("the program \(first), which is no qemu-system emulator") }
        guard let path = emulatorDirectories.map({ "\($0)/\(emulator)" }).first(where: isExecutable) else {
            throw TurntableError(.refused, "starting the offered machine", "\(emulator) is not installed here", remedy: "install it, or give the command to `turntable receive`")
        }
        var index = 1
        while index < arguments.count {
            guard let option = QEMUCommandLine.optionName(arguments[index]) else { throw refusal("the bare argument \(arguments[index])") }
            index += 1
            if Self.withoutValue.contains(option) { continue }
            guard Self.withValue.contains(option) else { throw refusal("the option -\(option)") }
            guard index < arguments.count else { throw refusal("the option -\(option) without its value") }
            if !Self.text.contains(option) { try check(option: option, arguments[index]) }
            index += 1
        }
        let commandLine = try QEMUCommandLine(arguments)
        let total = ByteCount(commandLine.regions.reduce(0) { $0 + $1.bytes })
        guard total <= memory else { throw refusal("a machine with \(total) of memory; the limit is \(memory)", remedy: "raise --max-memory") }
        return [path] + arguments.dropFirst()
    }

    private func check(option: String, _ value: String) throws(TurntableError) {
        guard !value.hasPrefix("{") else { throw refusal("-\(option) in JSON") }
        let items = QEMUCommandLine.properties(value)
        for (key, item) in items {
            let isPath = Self.pathKeys.contains(key) || (key.isEmpty && Self.pathKeys.contains(option)) || item.contains("/") || item.contains("|")
            if ["fd", "vhostfd", "fds"].contains(key) { throw refusal("-\(option) \(value), which names a descriptor") }
            guard isPath else {
                if item.contains(":"), ["chardev", "serial", "drive"].contains(option), key.isEmpty || key == "file" { throw refusal("-\(option) \(value)") }
                continue
            }
            let path = Self.withoutScheme(item)
            guard path.hasPrefix("/"), !path.split(separator: "/").contains(".."), paths.contains(where: { path == $0 || path.hasPrefix($0 + "/") }) else {
                throw refusal("-\(option) \(value): the path \(item) is not under \(paths.isEmpty ? "any allowed directory" : paths.joined(separator: " or "))")
            }
        }
        // A tap without script=no runs /etc/qemu-ifup as this user.
        if option == "netdev" || option == "nic" || option == "net", items.first?.value == "tap" {
            for key in ["script", "downscript"] where !items.contains(where: { $0.key == key && $0.value == "no" }) {
                throw refusal("-\(option) \(value), which runs a program: it needs \(key)=no")
            }
        }
    }

    /// `unix:/path` and `file:/path` are paths as well.
    private static func withoutScheme(_ item: String) -> String {
        for scheme in ["unix:", "file:"] where item.hasPrefix(scheme) { return String(item.dropFirst(scheme.count)) }
        return item
    }

    private func refusal(
        _ why: String, remedy: String = "allow paths with --allow-path, or give the machine's command to `turntable receive`"
    ) -> TurntableError {
        TurntableError(.refused, "starting the offered machine", "this receiver does not allow \(why)", remedy: remedy)
    }
}

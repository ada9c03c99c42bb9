// What a receiver lets a source's description start. The description comes from another host: deny by default. An option,
// a kind of device or backend, and a key of one are allowed because they are listed here, never because nothing speaks
// against them: QEMU has keys that run programs (guestfwd, helper, script), open files and ports, and export directories.

public import TurntableCore

public struct ReceivePolicy: Sendable {
    /// Directories under which every path in a description must lie.
    public var paths: [String] = []
    /// Files and devices that may be named besides.
    public var files: Set<String> = []
    /// The most memory that one machine may have.
    public var memory = ByteCount.mebi(1 << 20)
    /// Directories in which an emulator is looked for.
    public var emulatorDirectories = ["/usr/bin", "/usr/local/bin", "/usr/libexec"]

    public init() {}

    /// What a value may be.
    private enum Form {
        /// Text for the guest, or a label: QEMU opens nothing of it.
        case text
        /// No path, no address, no command.
        case plain
        /// A path under ``paths``.
        case path
        case oneOf(Set<String>)
    }

    /// What an option's `kind,key=value,…` may say.
    private struct Rule {
        /// What the first item may be; a star at the end stands for any rest. Nil: the option has no kind.
        var kinds: Set<String>?
        var keys: [String: Form] = [:]
        /// The form of keys that are not listed. Nil: there are no others.
        var others: Form?
    }

    private static let blockKeys: [String: Form] = {
        let drivers = Form.oneOf(["file", "host_device", "raw", "qcow2", "null-co"])
        return [
            "driver": drivers, "file.driver": drivers, "filename": .path, "file.filename": .path, "id": .plain, "node-name": .plain,
            "file.node-name": .plain,
            "if": .plain, "format": drivers, "media": .plain, "cache": .plain, "aio": .plain, "index": .plain, "bus": .plain,
            "unit": .plain,
            "readonly": .plain, "read-only": .plain, "auto-read-only": .plain, "discard": .plain, "detect-zeroes": .plain, "werror": .plain,
            "rerror": .plain,
            "copy-on-read": .plain, "size": .plain, "locking": .plain, "file.locking": .plain, "file.aio": .plain, "cache.direct": .plain,
            "cache.no-flush": .plain,
        ]
    }()
    private static let networkKeys: [String: Form] = {
        var keys: [String: Form] = ["script": .oneOf(["no"]), "downscript": .oneOf(["no"]), "mac": .text, "macaddr": .text, "net": .text]
        for key in [
            "id", "name", "netdev", "ifname", "queues", "vhost", "sndbuf", "restrict", "host", "dhcpstart", "dns", "hostname", "domainname",
            "dnssearch",
            "ipv4", "ipv6", "model", "addr", "vectors",
        ] { keys[key] = .plain }
        return keys
    }()
    private static let machine = Rule(
        kinds: ["*"],
        keys: ["kernel": .path, "initrd": .path, "dtb": .path, "firmware": .path, "append": .text].merging(
            [
                "accel", "memory-backend", "smm", "vmport", "kernel-irqchip", "usb", "nvdimm", "hpet", "dump-guest-core", "mem-merge",
                "pflash0", "pflash1", "graphics",
                "acpi", "its", "gic-version", "virtualization", "secure", "highmem", "max-ram-below-4g", "suppress-vmdesc", "hmat", "pit",
                "pic", "rtc", "sata",
                "smbus", "i8042", "isa-serial", "x-option-roms", "auto-kernel-cmdline", "pcie", "iommu",
            ].map { ($0, Form.plain) }
        ) { $1 })
    private static let devices: Set<String> = [
        "virtio-*", "virtserialport", "virtconsole", "e1000*", "rtl8139", "vmxnet3", "pcie-root-port", "pcie-pci-bridge", "pci-bridge",
        "ioh3420", "ich9-*", "ahci",
        "piix3-*", "ide-*", "scsi-hd", "scsi-cd", "lsi*", "megasas*", "nvme", "nvme-ns", "qemu-xhci", "nec-usb-xhci", "usb-ehci",
        "usb-tablet", "usb-kbd",
        "usb-mouse", "usb-hub", "usb-storage", "VGA", "qxl", "qxl-vga", "bochs-display", "cirrus-vga", "ramfb", "isa-serial",
        "isa-debugcon", "isa-debug-exit",
        "pci-serial", "pvpanic", "pvpanic-pci", "i6300esb", "intel-iommu", "vmgenid", "intel-hda", "hda-*", "pc-dimm",
    ]
    private static let rules: [String: Rule] = [
        "M": machine, "machine": machine,
        "device": Rule(
            kinds: devices, keys: ["romfile": .path, "mac": .text, "addr": .text, "serial": .text, "wwn": .text], others: .plain),
        "object": Rule(
            kinds: [
                "memory-backend-ram", "memory-backend-memfd", "memory-backend-file", "iothread", "rng-builtin", "rng-random",
                "throttle-group", "secret",
            ],
            keys: ["mem-path": .path, "filename": .path, "file": .path], others: .plain),
        "netdev": Rule(kinds: ["user", "tap"], keys: networkKeys),
        "nic": Rule(kinds: ["none", "user", "tap"], keys: networkKeys),
        "net": Rule(kinds: ["none", "nic", "user", "tap"], keys: networkKeys),
        "drive": Rule(keys: blockKeys.merging(["file": .path]) { $1 }),
        "blockdev": Rule(keys: blockKeys.merging(["file": .plain, "backing": .plain]) { $1 }),
        "chardev": Rule(
            kinds: ["null", "ringbuf", "stdio", "pty", "file", "socket"],
            keys: ["path": .path, "logfile": .path].merging(
                ["id", "server", "wait", "mux", "signal", "size", "append", "logappend"].map { ($0, Form.plain) }
            ) { $1 }),
        "boot": Rule(
            kinds: ["*"],
            keys: [
                "order": .plain, "once": .plain, "menu": .plain, "strict": .plain, "reboot-timeout": .plain, "splash-time": .plain,
                "splash": .path,
            ]),
        "smbios": Rule(keys: ["file": .path, "path": .path], others: .text),
        "numa": Rule(kinds: ["node", "dist", "cpu", "hmat-*"], others: .plain),
        "accel": Rule(kinds: ["kvm", "tcg"], keys: ["thread": .plain, "tb-size": .plain, "kernel-irqchip": .plain]),
        "display": Rule(kinds: ["none"]), "vga": Rule(kinds: ["*"]), "monitor": Rule(kinds: ["none"]),
        "parallel": Rule(kinds: ["none", "null"]),
        "action": Rule(others: .plain), "watchdog-action": Rule(kinds: ["*"]), "overcommit": Rule(others: .plain),
        "msg": Rule(others: .plain),
        "sandbox": Rule(kinds: ["on", "off"], others: .plain), "k": Rule(kinds: ["*"]),
    ]
    /// Options whose whole value is a path of the host's.
    private static let pathOptions: Set<String> = ["kernel", "initrd", "dtb", "bios", "cdrom", "hda", "hdb"]
    /// Options whose value is text for the guest, or numbers.
    private static let textOptions: Set<String> = ["append", "name", "uuid", "cpu", "smp", "m", "rtc"]
    private static let flags: Set<String> = [
        "nodefaults", "nographic", "no-user-config", "no-reboot", "no-shutdown", "enable-kvm", "no-acpi", "no-hpet", "no-fd-bootchk", "S",
        "usb",
    ]
    /// Where the guest's random numbers may come from: reading these gives nothing away.
    private static let randomness: Set<String> = ["/dev/urandom", "/dev/random"]

    /// The command line to start, or why not.
    public func check(_ arguments: [String], isExecutable: (String) -> Bool) throws(TurntableError) -> [String] {
        guard let first = arguments.first else { throw refusal("an empty command line") }
        guard arguments.allSatisfy({ !$0.utf8.contains(0) }) else { throw refusal("an argument that ends before its end") }
        let emulator = first.split(separator: "/").last.map(String.init) ?? ""
        let isName =
            emulator.hasPrefix("qemu-system-")
            && emulator.dropFirst(12).allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
        guard isName else { throw refusal("the program \(first), which is no qemu-system emulator") }
        guard let path = emulatorDirectories.map({ "\($0)/\(emulator)" }).first(where: isExecutable) else {
            throw TurntableError(
                .refused, "starting the offered machine", "\(emulator) is not installed here",
                remedy: "install it, or give the command to `turntable receive`")
        }
        var index = 1
        while index < arguments.count {
            guard let option = QEMUCommandLine.optionName(arguments[index]) else { throw refusal("the bare argument \(arguments[index])") }
            index += 1
            if Self.flags.contains(option) { continue }
            guard index < arguments.count else { throw refusal("the option -\(option) without its value") }
            try check(option: option, arguments[index])
            index += 1
        }
        let commandLine = try QEMUCommandLine(arguments)
        let total = ByteCount(commandLine.regions.reduce(0) { $0.addingReportingOverflow($1.bytes).overflow ? .max : $0 + $1.bytes })
        guard total <= memory else {
            throw refusal("a machine with \(total) of memory; the limit is \(memory)", remedy: "raise --max-memory")
        }
        return [path] + arguments.dropFirst()
    }

    private func check(option: String, _ value: String) throws(TurntableError) {
        if Self.textOptions.contains(option) { return }
        let whole = "-\(option) \(value)"
        if Self.pathOptions.contains(option) {
            // A comma begins another module of -initrd's.
            guard !value.contains(","), isAllowed(path: value) else { throw refusal(whole, path: value) }
            return
        }
        if option == "serial" || option == "vnc" { return try check(place: value, option) }
        guard let rule = Self.rules[option] else { throw refusal("the option -\(option)") }
        guard !value.hasPrefix("{") else { throw refusal("-\(option) in JSON") }
        var items = QEMUCommandLine.properties(value)
        // Where any kind will do, it may be left out: -machine memory-backend=ram0.
        if let kinds = rule.kinds, !(kinds == ["*"] && !items[0].key.isEmpty) {
            let kind = items.removeFirst()
            let isListed = kinds.contains { $0.last == "*" ? kind.value.hasPrefix($0.dropLast()) : kind.value == $0 }
            guard kind.key.isEmpty, isListed, Self.isWord(kind.value) else { throw refusal("\(whole): the kind \(kind.value)") }
            // A tap without them runs /etc/qemu-ifup as this user.
            if kind.value == "tap" {
                for key in ["script", "downscript"] where !items.contains(where: { $0.key == key }) {
                    throw refusal("\(whole), which runs a program: it needs \(key)=no")
                }
            }
        }
        for (key, item) in items {
            if key.isEmpty, rule.kinds != nil, Self.isWord(item) { continue }  // a switch of the old form, such as `server`
            guard let form = rule.keys[key] ?? (key.isEmpty ? nil : rule.others) else {
                throw refusal("\(whole): the key \(key.isEmpty ? item : key)")
            }
            switch form {
            case .text: break
            case .plain: guard Self.isPlain(item), !Self.opensDescriptor(key) else { throw refusal("\(whole): \(key)=\(item)") }
            case .oneOf(let allowed): guard allowed.contains(item) else { throw refusal("\(whole): \(key)=\(item)") }
            case .path:
                let isFine =
                    isAllowed(path: item) || (key == "romfile" && item.isEmpty)
                    || (option == "object" && key == "filename" && Self.randomness.contains(item))
                guard isFine else { throw refusal(whole, path: item) }
            }
        }
    }

    /// Where a serial line or a screen goes.
    private func check(place: String, _ option: String) throws(TurntableError) {
        for scheme in ["unix:", "file:"] where place.hasPrefix(scheme) && (option == "serial" || scheme == "unix:") {
            let items = QEMUCommandLine.properties(String(place.dropFirst(scheme.count)))
            guard isAllowed(path: items[0].value), items[0].key.isEmpty, items.dropFirst().allSatisfy({ Self.isWord($0.key + $0.value) })
            else {
                throw refusal("-\(option) \(place)", path: items[0].value)
            }
            return
        }
        let isLocal = ["127.0.0.1:", "localhost:"].contains { place.hasPrefix($0) && Int(place.dropFirst($0.count)) != nil }
        let isChardev = place.hasPrefix("chardev:") && Self.isWord(String(place.dropFirst(8)))
        guard option == "vnc" ? place == "none" || isLocal : ["none", "null", "stdio", "pty"].contains(place) || isChardev else {
            throw refusal("-\(option) \(place)")
        }
    }

    func isAllowed(path: String) -> Bool {
        if files.contains(path) { return true }
        guard path.hasPrefix("/"), !path.split(separator: "/").contains("..") else { return false }
        return paths.contains { allowed in
            let directory = allowed.hasSuffix("/") ? String(allowed.dropLast()) : allowed
            return !directory.isEmpty && (path == directory || path.hasPrefix(directory + "/"))
        }
    }

    private static func isWord(_ text: String) -> Bool {
        text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-+".contains($0)) }
    }
    private static func isPlain(_ text: String) -> Bool { !text.contains { "/|:;&$`\\".contains($0) } && text != ".." && text != "." }
    private static func opensDescriptor(_ key: String) -> Bool { key == "fd" || key.hasSuffix("fd") || key.hasSuffix("fds") }

    private func refusal(_ why: String, path: String) -> TurntableError {
        refusal("\(why): the path \(path) is not under \(paths.isEmpty ? "any allowed directory" : paths.joined(separator: " or "))")
    }

    private func refusal(
        _ why: String, remedy: String = "allow paths with --allow-path, or give the machine's command to `turntable receive`"
    ) -> TurntableError {
        TurntableError(.refused, "starting the offered machine", "this receiver does not allow \(why)", remedy: remedy)
    }
}

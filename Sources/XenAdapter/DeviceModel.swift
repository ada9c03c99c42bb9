internal import TurntableCore
internal import TurntableLinux

/// The QEMU that has the emulated devices of an HVM domain. libxl starts it, stops it with the guest and saves its state then.
enum DeviceModel {
    /// Where libxl speaks to it, in QEMU's machine protocol (docs/interop/qmp-spec of QEMU), with one client at a time.
    private static func path(of domain: UInt32) -> String { "/var/run/xen/qmp-libxl-\(domain)" }

    /// Lets one that libxl has stopped go on, before its guest does: nothing answers the guest's accesses otherwise. It does no harm again.
    static func letRunOn(of domain: UInt32) throws(TurntableError) {
        let what = "letting the device model of domain \(domain) go on"
        let socket = try Socket.connectUnix(path(of: domain))
        try Socket.setTimeouts(socket, receive: Limits.hypervisorTime, send: Limits.hypervisorTime)
        for command in ["qmp_capabilities", "cont"] {
            try Socket.write(socket, Array("{\"execute\":\"\(command)\",\"id\":\"\(command)\"}\r\n".utf8), what: what)
            var said = ""
            // Its greeting, and events, have no identifier.
            while !said.contains("\"id\": \"\(command)\"") {
                let more = try Socket.read(socket, atMost: 64 << 10, what: what)
                guard !more.isEmpty, said.utf8.count < 1 << 20 else { throw TurntableError(.hypervisor, what, "it said: \(said)") }
                said += String(decoding: more, as: UTF8.self)
            }
            guard !said.contains("\"error\"") else { throw TurntableError(.hypervisor, what, said) }
        }
    }
}

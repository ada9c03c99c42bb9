import Glibc

/// A namespace and the device in it. Going away, it leaves the namespace as it was, or not at all if it was made for it.
struct LineEnd: ~Copyable {
    let namespace: NetworkNamespace
    let device: TunDevice
    private let buffers: TCPBuffers?

    init(_ name: String, address: InterfaceAddress?, settings: LineSettings) throws(LineError) {
        let namespace =
            settings.createNamespaces
            ? try NetworkNamespace(creating: name, replacing: settings.replaceNamespaces)
            : try NetworkNamespace(opening: name)
        let device = try namespace.inside { () throws(LineError) in
            try TunDevice(name: settings.device, mtuBytes: settings.mtuBytes, address: address, namespaceName: name)
        }
        var buffers: TCPBuffers?
        if let maximum = settings.tcpBuffers {
            buffers = try namespace.inside { () throws(LineError) in try TCPBuffers(raisingTo: maximum) }
        }
        self.namespace = namespace
        self.device = device
        self.buffers = buffers
    }

    deinit {
        guard let buffers, !namespace.isOurs else { return }
        do throws(LineError) {
            try namespace.inside { () throws(LineError) in try buffers.restore() }
        } catch {
            writeText("turntable-lightpath: \(error)\n", to: STDERR_FILENO)
        }
    }
}

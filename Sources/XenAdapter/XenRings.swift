internal import CTurntableXen
public import TurntableCore
internal import TurntableLinux
public import WireFormat

extension XenRings {
    /// Those that it has, in order.
    var frames: [Int] { [store, console].filter { $0 != 0 }.map(Int.init).sorted() }

    // MARK: - PVH and HVM

    /// Connects a new domain's. They begin empty: who is at their other ends does not know what was in them.
    func establish(on domain: XenDomain, _ services: XenServices) throws(TurntableError) {
        for (parameter, frame) in [(tt_xen_store_frame, store), (tt_xen_console_frame, console)] where frame != 0 {
            try domain.clear(frame: frame)
            try domain.set(parameter: parameter, to: frame)
        }
        try domain.set(parameter: tt_xen_store_event, to: UInt64(services.storeEvent))
        try domain.set(parameter: tt_xen_console_event, to: UInt64(services.consoleEvent))
        try domain.seedGrants(self, isHVM: true, services)
    }

    // MARK: - PV

    /// A PV domain's, as frames of its own: libxl has noted which of the host's they are.
    public init(ofPV domain: XenDomain) throws(TurntableError) {
        func frame(_ name: String) throws(TurntableError) -> UInt64 {
            let path = "/local/domain/\(domain.number)/\(name)/ring-ref"
            guard let text = try domain.stored(path), let machine = UInt64(text) else {
                throw TurntableError(.hypervisor, "looking for the rings of domain \(domain.number)", "xenstore has no number at \(path)")
            }
            return try domain.ownFrame(of: machine)
        }
        self.init(store: try frame("store"), console: try frame("console"))
    }

    /// Connects those of a PV domain that is being restored, as soon as its restorer has given them memory, and gives the host's frames that
    /// they are. They are to stay empty until the domain runs. The restorer tells the guest of them and of its event channels.
    public func establish(onPV domain: XenDomain, _ services: XenServices) throws(TurntableError) -> XenRings {
        let deadline = Clock.now + Limits.xenRingsTime
        while true {
            if let store = try domain.machineFrame(of: store), let console = try domain.machineFrame(of: console) {
                let rings = XenRings(store: store, console: console)
                for frame in [store, console] { try domain.clear(frame: frame) }
                try domain.seedGrants(rings, isHVM: false, services)
                return rings
            }
            guard Clock.now < deadline else {
                throw TurntableError(
                    .hypervisor, "looking for the rings of domain \(domain.number)",
                    "its frames \(store) and \(console) got no memory within \(Limits.xenRingsTime)")
            }
            Clock.sleep(Limits.pollTime)
        }
    }
}

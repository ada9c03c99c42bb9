import CTurntableLinux
import Glibc

/// One end of the line: a TUN device in a namespace. It vanishes with its descriptor, so also when the process is killed.
struct TunDevice: ~Copyable {
    let name: String
    let namespaceName: String
    private let device: OwnedDescriptor

    var descriptor: Int32 { device.number }

    /// Makes the device and sets it up; the calling thread is inside the namespace.
    init(name: String, mtuBytes: Int, address: InterfaceAddress?, namespaceName: String) throws(LineError) {
        let place = "device \(name) in network namespace \(namespaceName)"
        let created = unsafe tt_tun_create(name)
        let device = OwnedDescriptor(try check(created, "cannot create \(place)", remedy: Self.remedy(for: -created)))
        let socket = OwnedDescriptor(try check(tt_tun_socket(), "cannot open a socket for \(place)"))
        try check(unsafe tt_tun_set_mtu(socket.number, name, Int32(mtuBytes)), "cannot set MTU \(mtuBytes) on \(place)")
        try check(
            unsafe tt_tun_set_queue_length(socket.number, name, LineLimits.deviceQueueFrames),
            "cannot set queue length \(LineLimits.deviceQueueFrames) on \(place)")
        if let address {
            try check(
                unsafe tt_tun_set_address(socket.number, name, address.address, address.prefixBits),
                "cannot set address \(address) on \(place)")
        }
        try check(unsafe tt_tun_set_up(socket.number, name), "cannot set up \(place)")
        self.device = device
        self.name = name
        self.namespaceName = namespaceName
    }

    /// With segmentation, TCP hands over super-frames of up to 64 KiB; the checksums are always left to whoever needs them.
    func setOffload(segmentation: Bool) throws(LineError) {
        let offloads = TT_TUN_OFFLOAD_CHECKSUM | (segmentation ? TT_TUN_OFFLOAD_SEGMENTATION : 0)
        try check(
            tt_tun_set_offload(descriptor, offloads),
            "cannot set offloads \(offloads) on device \(name) in network namespace \(namespaceName)")
    }

    private static func remedy(for code: Int32) -> String? {
        switch code {
        case EBUSY, EEXIST: "another interface has that name; stop its owner or choose another --device"
        case ENOENT, ENODEV: "/dev/net/tun is missing; load it with `modprobe tun`"
        default: nil
        }
    }
}

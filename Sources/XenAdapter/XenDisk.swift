internal import Glibc
internal import MigrationEngine
public import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A virtual disk of a domain. What it is comes from libxl's own record, which no guest can write; which device serves it, from
/// the backend's directory of this host.
public struct XenDisk: Equatable, Sendable {
    /// What the domain's configuration calls it, such as xvda.
    public let name: String
    /// Where it is, as the configuration says it.
    public let place: String
    public let isWritable: Bool
    /// The block device that xen-blkback of this host serves; nil if QEMU or another domain does, or nobody yet.
    public let device: Device?

    public struct Device: Equatable, Sendable {
        public let path: String
        /// MAJOR:MINOR.
        public let number: String
    }

    /// - Parameters:
    ///   - identifier: of the disk among those of the domain.
    ///   - read: gives what xenstore has at a path.
    init(_ identifier: String, of domain: UInt32, read: (String) throws(TurntableError) -> String?) throws(TurntableError) {
        let record = "\(Self.records(of: domain))/\(identifier)"
        name = try read("\(record)/dev") ?? identifier
        place = try read("\(record)/params") ?? ""
        isWritable = try read("\(record)/mode") != "r"
        let backend = "/local/domain/0/backend/vbd/\(domain)/\(identifier)"
        guard try read("\(record)/backend") == backend, let number = try read("\(backend)/physical-device").flatMap(Self.decimal) else {
            device = nil
            return
        }
        // The configuration may leave /dev/ out; the script that found the device does not.
        device = Device(path: try read("\(backend)/physical-device-path") ?? place, number: number)
    }

    /// One that a domain is to have, and that xen-blkback will serve.
    /// - Parameter number: of the block device at `path`, if there is one.
    public init(named name: String, at path: String, number: String?) {
        (self.name, place, isWritable) = (name, path, true)
        device = number.map { Device(path: path, number: $0) }
    }

    static func records(of domain: UInt32) -> String { "/libxl/\(domain)/device/vbd" }

    /// MAJOR:MINOR of two hexadecimal numbers.
    private static func decimal(_ text: String) -> String? {
        let numbers = text.split(separator: ":", omittingEmptySubsequences: false).map { UInt32($0, radix: 16) }
        guard numbers.count == 2, let major = numbers[0], let minor = numbers[1] else { return nil }
        return "\(major):\(minor)"
    }

    // MARK: - Requests

    /// Returns when nothing that was asked of the device is under way.
    ///
    /// xen-blkback answers a request when its bio has ended. So what a suspended guest was told to be written is on the device
    /// before that, and is in the last delta; what it was not told, its frontend asks for again where it resumes
    /// (blkfront_resume in Linux' drivers/block/xen-blkfront.c). This wait is for neither of the two: it keeps such requests from
    /// being half in the delta, so that the device stays as it was read.
    func awaitRequests() throws(TurntableError) {
        guard let device else { return }
        let deadline = Clock.now + Limits.xenRequestTime
        while let pending = try Self.pending(inStatus: readFile("/sys/dev/block/\(device.number)/inflight", atMost: 256)), pending > 0 {
            guard Clock.now < deadline else {
                throw TurntableError(
                    .hypervisor, "waiting for what the guest asked of its disk \(name)",
                    "\(pending) requests to \(device.path) are not done after \(Limits.xenRequestTime)", remedy: "look at the kernel's log for the device")
            }
            Clock.sleep(.milliseconds(1))
        }
    }

    /// Reads and writes under way, as the kernel has them in a line; nil if it is another.
    static func pending(inStatus line: [UInt8]) -> Int? {
        let numbers = String(decoding: line, as: UTF8.self).split(whereSeparator: \.isWhitespace).map { Int($0) }
        guard numbers.count == 2, let reads = numbers[0], let writes = numbers[1] else { return nil }
        return reads + writes
    }
}

extension XenDomain {
    /// Its virtual disks, as libxl has made them.
    public func disks() throws(TurntableError) -> [XenDisk] {
        var found: [XenDisk] = []
        for identifier in try storedNames(below: XenDisk.records(of: number)) {
            found.append(try XenDisk(identifier, of: number) { (path) throws(TurntableError) in try stored(path) })
        }
        return found
    }

    /// Opens those that a source offers, in its order. `volumes` is by what LVM knows them there.
    /// - Parameter configured: those that libxl here will make; nil if it has made them.
    func open(
        _ offer: Offer, _ volumes: [String], configured: [XenDisk]? = nil, by openDisk: XenTargetHost.OpenDisk
    ) throws(TurntableError) -> [any BlockSink] {
        guard offer.disks.count == volumes.count else {
            throw TurntableError(
                .protocol, "the offer of \(offer.machine)", "its description is of \(volumes.count) disks, it has \(offer.disks.count)")
        }
        guard !volumes.isEmpty else { return [] }
        let its = if let configured { configured } else { try disks() }
        return try zip(offer.disks, volumes).map { (disk, volume) throws(TurntableError) in
            guard let found = its.first(where: { $0.name == disk.name }) else {
                let known = its.isEmpty ? "none" : its.map(\.name).joined(separator: ", ")
                throw TurntableError(
                    .refused, "taking the disk \(disk.name) of \(offer.machine)", "here the domain has \(known)",
                    remedy: "give it the same disks on both hosts")
            }
            return try openDisk(found, configured == nil, ByteCount(Int(disk.bytes)), volume, offer.machine)
        }
    }

    /// Returns when libxl has made the domain's devices.
    func awaitDevices(_ areReady: () -> Bool) throws(TurntableError) {
        // As long as a source waits, and time enough to tell it.
        let limit = Limits.prepareTime - Limits.helloTime
        let deadline = Clock.now + limit
        while !areReady() {
            guard try !facts().isDying else { throw TurntableError(.hypervisor, "domain \(number)", "it was destroyed") }
            guard Clock.now < deadline else {
                throw TurntableError(
                    .hypervisor, "waiting for the domain's devices", "libxl has not made them within \(limit)", remedy: "see what xl says here")
            }
            Clock.sleep(Limits.pollTime)
        }
    }
}

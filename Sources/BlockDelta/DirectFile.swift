internal import CTurntableBlock
internal import CTurntableLinux
internal import Glibc
internal import TurntableCore
internal import TurntableLinux

/// A block device or an image file for direct I/O: past the page cache, as the layers below a volume work. The last bytes of a disk
/// whose size is no multiple of ``blockAlignment`` go through the page cache, always.
final class DirectFile: Sendable {
    let path: String
    let isDevice: Bool
    /// False where the file system has no direct I/O.
    let isDirect: Bool
    let size: ByteCount
    private let descriptor: Descriptor
    /// Not direct. The same as the other where it is not needed.
    private let cached: Descriptor
    private let hasOddEnd: Bool

    /// - Parameters:
    ///   - isExclusive: a device that is mounted or part of another device gives an error.
    ///   - diskSize: of what is kept in it, if not all of it.
    init(_ path: String, forWriting isWritable: Bool = false, exclusively isExclusive: Bool = false, diskSize: ByteCount? = nil)
        throws(TurntableError)
    {
        let what = "opening \(path)\(isWritable ? " for writing" : "")"
        var direct: Int32 = 0
        let opened = unsafe tt_block_open(path, isWritable ? 1 : 0, isExclusive ? 1 : 0, &direct)
        if opened == -EBUSY {
            throw TurntableError(.refused, what, "it is mounted, or part of another device", remedy: "unmount it, or choose another target")
        }
        let descriptor = Descriptor(owning: try checked(opened, what))
        let kind = tt_block_is_device(descriptor.rawValue)
        guard kind >= 0 else { throw TurntableError(.usage, what, "it is neither a block device nor a regular file") }
        size = ByteCount(Int(try checked(tt_block_bytes(descriptor.rawValue), "asking for the size of \(path)")))
        isDevice = kind == 1
        isDirect = direct != 0
        self.path = path
        hasOddEnd = direct != 0 && (diskSize ?? size).value % blockAlignment != 0
        cached = hasOddEnd ? try Descriptor.open(path, isWritable ? .readWrite : .read, what: what) : try descriptor.duplicate()
        self.descriptor = descriptor
    }

    /// Fills `buffer`, all of which the file has.
    func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError) {
        try split(offset, buffer.count) { (descriptor, range) throws(TurntableError) in
            let start = unsafe buffer.baseAddress.map { unsafe $0 + (range.lowerBound - offset) }
            let count = unsafe tt_read_at(descriptor, start, range.count, Int64(range.lowerBound))
            guard count == range.count else {
                throw TurntableError(
                    .unsupported, "reading \(ByteCount(range.count)) at \(range.lowerBound) of \(path)",
                    count < 0 ? errorText(Int32(-count)) : "only \(count) bytes are there", remedy: "look at the kernel's log for the device")
            }
        }
    }

    func read(at offset: Int, count: Int) throws(TurntableError) -> [UInt8] {
        let buffer = AlignedBuffer(bytes: count)
        try unsafe read(at: offset, into: buffer.bytes)
        return unsafe Array(buffer.bytes)
    }

    func write(at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(TurntableError) {
        try split(offset, bytes.count) { (descriptor, range) throws(TurntableError) in
            let start = unsafe bytes.baseAddress.map { unsafe $0 + (range.lowerBound - offset) }
            try checked(
                unsafe tt_block_write(descriptor, start, range.count, Int64(range.lowerBound)),
                "writing \(ByteCount(range.count)) at \(range.lowerBound) of \(path)", remedy: "look at the kernel's log for the device")
        }
    }

    func zero(_ range: Range<Int>) throws(TurntableError) {
        try split(range.lowerBound, range.count) { (descriptor, range) throws(TurntableError) in
            try checked(
                tt_block_zero(descriptor, Int64(range.lowerBound), Int64(range.count)),
                "clearing \(ByteCount(range.count)) at \(range.lowerBound) of \(path)")
        }
    }

    /// Calls `body` with the part that direct I/O can do, and with the odd end.
    private func split(_ offset: Int, _ count: Int, _ body: (Int32, Range<Int>) throws(TurntableError) -> Void) throws(TurntableError) {
        let end = offset + count
        let evenEnd = !hasOddEnd ? end : max(offset, end / blockAlignment * blockAlignment)
        if offset < evenEnd { try body(descriptor.rawValue, offset..<evenEnd) }
        if evenEnd < end { try body(cached.rawValue, evenEnd..<end) }
    }

    /// Everything written so far is durable; through the page cache of this device also what others wrote.
    func sync() throws(TurntableError) {
        try checked(tt_block_sync(descriptor.rawValue), "making \(path) durable")
    }

    /// Whether somebody else uses it in a way that can be seen: another sink, an emulator's lock, an open device of device-mapper's.
    func isInUse(sharing users: SinkUsers) throws(TurntableError) -> Bool {
        guard isDevice else {
            let held = tt_block_hold(descriptor.rawValue)
            if held == -EAGAIN { return true }
            try checked(held, "locking \(path)")
            if users == .any { return false }
            return try checked(tt_block_is_locked(descriptor.rawValue), "asking for locks on \(path)") == 1
        }
        // That other sinks have it not, O_EXCL says.
        if users == .any { return false }
        let expected = (hasOddEnd ? 2 : 1) + (users == .one ? 1 : 0)
        let (major, minor) = try deviceNumber()
        return (DeviceMapper.openCount(major: major, minor: minor) ?? expected) > expected
    }

    func deviceNumber() throws(TurntableError) -> (major: UInt32, minor: UInt32) {
        var major: UInt32 = 0, minor: UInt32 = 0
        try checked(unsafe tt_block_number(descriptor.rawValue, &major, &minor), "looking at \(path)")
        return (major, minor)
    }

    /// What distinguishes it from another that has its path later, also after the host was started again.
    func identity() throws(TurntableError) -> String {
        guard isDevice else {
            var inode: UInt64 = 0, birth: UInt64 = 0
            try checked(unsafe tt_block_inode(descriptor.rawValue, &inode, &birth), "looking at \(path)")
            return "file \(inode) \(birth)"
        }
        let (major, minor) = try deviceNumber()
        return LVM.attribute("uuid", of: "\(major):\(minor)") ?? "device of \(size.value)"
    }

    /// Whether every byte is zero, as far as that is known without reading: a file that is all hole, a thin volume without blocks.
    func isKnownToBeZero() throws(TurntableError) -> Bool {
        guard isDevice else { return nextData(from: 0) == nil }
        let (major, minor) = try deviceNumber()
        guard let name = DeviceMapper.name(major: major, minor: minor), let target = try DeviceMapper.status(of: name) else { return false }
        // Status of a thin volume: sectors that it has blocks for, and the last of them (thin-provisioning.rst).
        return target.type == "thin" && target.parameters.split(separator: " ").first == "0"
    }

    /// The first byte at or after `offset` that the file system has something for; nil if there is none. A device has everything.
    func nextData(from offset: Int) -> Int? {
        if isDevice { return offset < size.value ? offset : nil }
        let position = tt_next_data(descriptor.rawValue, Int64(offset))
        if position == -Int64(ENXIO) { return nil }
        return position < 0 ? offset : Int(position)
    }
}

/// MAJOR:MINOR of the block device at a path; nil if there is none.
public func deviceNumber(at path: String) -> String? {
    guard let device = try? DirectFile(path), device.isDevice, let (major, minor) = try? device.deviceNumber() else { return nil }
    return "\(major):\(minor)"
}

/// Whether two paths are of one block device.
public func isSameDevice(_ one: String, _ other: String) -> Bool {
    guard let first = deviceNumber(at: one) else { return false }
    return first == deviceNumber(at: other)
}

internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// Guest memory that we own: a memory file, mapped once into this process.
///
/// The bytes change under us while a guest runs, so they are only ever passed on as addresses for the kernel or a NIC;
/// nothing here hands out a span.
@safe public struct MemoryFile: ~Copyable, @unchecked Sendable {
    public let descriptor: Descriptor
    public let bytes: Int
    /// First byte of the mapping. Valid as long as this value lives.
    public let base: UnsafeMutableRawPointer

    /// The prefix of a memory file's name by which the preload in QEMU and the adapter outside recognise it.
    public static let namePrefix = "turntable:"

    /// Makes an empty memory file: every page reads as zero and takes no memory yet.
    /// - Parameter hugePageBytes: 0 for ordinary pages, else a power of two the kernel has a pool for.
    public static func create(name: String, bytes: Int, hugePageBytes: Int = 0) throws(TurntableError) -> MemoryFile {
        let shift = hugePageBytes == 0 ? 0 : UInt32(hugePageBytes.trailingZeroBitCount)
        let file = Descriptor(owning: try checked(unsafe tt_memfd(namePrefix + name, shift), "making the memory file of region \(name)"))
        let grown = ftruncate(file.rawValue, bytes)
        try checked(grown < 0 ? -errno : 0, "sizing the memory file of region \(name) to \(ByteCount(bytes))")
        return try MemoryFile(mapping: file, bytes: bytes, name: name)
    }

    /// Maps a memory file that exists, such as one found among a hypervisor's descriptors.
    public init(mapping descriptor: consuming Descriptor, bytes: Int, name: String) throws(TurntableError) {
        let address = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.rawValue, 0)
        guard unsafe address != MAP_FAILED, let address = unsafe address else {
            throw TurntableError(.unsupported, "mapping \(ByteCount(bytes)) of region \(name)", errorText(errno))
        }
        self.descriptor = descriptor
        self.bytes = bytes
        unsafe base = address
    }

    deinit { unsafe munmap(base, bytes) }

    /// Whether the file is of huge pages (hugetlbfs).
    public borrowing func hasHugePages() throws(TurntableError) -> Bool {
        try checked(tt_is_hugetlb(descriptor.rawValue), "asking what a memory file is made of") == 1
    }

    /// Lets the kernel back `range` with memory now, in one call, instead of page by page as bytes arrive.
    public borrowing func populate(_ range: Range<Int>) throws(TurntableError) {
        let result = unsafe tt_populate(descriptor.rawValue, Int64(range.lowerBound), base + range.lowerBound, range.count)
        try checked(
            result, "populating \(ByteCount(range.count)) of guest memory",
            remedy: "free memory on this host, or send the machine to another one")
    }

    /// The parts of the range that hold data, as byte ranges in order; what lies between reads as zero.
    public borrowing func forEachDataRange(in range: Range<Int>, _ body: (Range<Int>) -> Void) {
        TurntableLinux.forEachDataRange(of: descriptor.rawValue, in: range, body)
    }
}

private func forEachDataRange<Failure>(
    of file: Int32, in range: Range<Int>, _ body: (Range<Int>) throws(Failure) -> Void
) throws(Failure) {
    var position = range.lowerBound
    while position < range.upperBound {
        let start = tt_next_data(file, Int64(position))
        if start < 0 {
            if start != -Int64(ENXIO) { try body(position..<range.upperBound) }  // a file system without holes: all of it is data
            return
        }
        guard start < range.upperBound else { return }
        let end = tt_next_hole(file, start)
        position = end < 0 ? range.upperBound : min(Int(end), range.upperBound)
        try body(Int(start)..<position)
    }
}

/// Copies what is data in the first `bytes` of `source` to the same place in `target`, within the kernel (sendfile). Where `source` has
/// holes `target` is left as it is.
public func copyData(
    from source: Int32, to target: Int32, bytes: Int, what: @autoclosure () -> String, remedy: String = ""
) throws(TurntableError) {
    try forEachDataRange(of: source, in: 0..<bytes) { (range) throws(TurntableError) in
        var position = off_t(range.lowerBound)
        try checked(lseek(target, position, SEEK_SET) < 0 ? -errno : 0, what())
        while position < range.upperBound {
            let copied = unsafe sendfile(target, source, &position, range.upperBound - Int(position))
            if copied < 0, errno == EINTR { continue }
            guard copied != 0 else { throw TurntableError(.unsupported, what(), "it ended at byte \(position)", remedy: remedy) }
            try checked(copied < 0 ? -Int(errno) : copied, what(), remedy: remedy)
        }
    }
}

/// Whether `bytes` bytes (a multiple of 64) at a 64-byte boundary are all zero. While a guest writes there the answer is
/// about no single instant; the dirty log makes up for it.
public func isZero(_ address: UnsafeRawPointer, bytes: Int) -> Bool { unsafe tt_is_zero(address, bytes) != 0 }

/// Memory that this host can still give without swapping; zero when it does not say.
public func availableMemory() -> ByteCount { ByteCount(Int(tt_available_memory())) }

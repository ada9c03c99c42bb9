// Where a ledger's fields lie in its memory.
//
//   ledger   = header (4 KiB) | ring of each stream | bitmaps of each region: pending, held, doubtful | device state
//   of disks = bitmaps of each disk, in a memory of its own, so that who knows of no disks can read the ledger
//   header   = magic u64 | layout digest u64 | session | host (16 bytes each) | epoch u64 | streams u64 | wasRunning u64
//              | deviceStateBytes u64 | digest of the disks u64; from byte 512 on 64 bytes a stream:
//              started u64 | first u64 | end u64 | doubtfulUntil u64 | scanned region, first page, end page u64
//              | floor u64
//
// Native byte order: nobody but this host reads it, on the boot that wrote it.

internal import Glibc
internal import Synchronization
internal import TurntableCore
internal import TurntableLinux

@safe final class LedgerMemory: @unchecked Sendable {
    enum Field: Int {
        case magic, layout, sessionHigh, sessionLow, hostHigh, hostLow, epoch, streams, wasRunning, deviceStateBytes, disks
    }
    enum StreamField: Int {
        case started, first, end, doubtfulUntil, scanRegion, scanFirst, scanEnd, floor
    }
    /// An extent on its way: 16 bytes.
    struct Entry: BitwiseCopyable {
        var sequence: UInt64
        var firstPage: UInt32
        var pages: UInt16
        var region: UInt16
        var range: Range<Int> { Int(firstPage)..<Int(firstPage) + Int(pages) }
    }

    static let magic: UInt64 = 0x5452_4e54_424c_3031
    /// Extents on their way in one stream that are remembered one by one.
    static let ringEntries = 1 << 14
    private static let headerBytes = 4096
    private static let streamsOffset = 512
    private static let ringBytes = ringEntries * MemoryLayout<Entry>.stride
    private static let bitmapsOffset = headerBytes + Limits.streams * ringBytes
    private static func bitmapBytes(_ region: MemoryRegion) -> Int { (region.pages.value + 511) / 512 * 64 }

    private let memory: SharedMemory
    private let regions: [MemoryRegion]

    /// Bytes of the ledger for such a machine. Only what is written takes memory.
    static func bytes(_ regions: [MemoryRegion]) -> Int {
        bitmapsOffset + diskBytes(regions) + Limits.deviceStateBytes
    }
    /// Bytes of the disks' own memory.
    static func diskBytes(_ disks: [MemoryRegion]) -> Int { disks.reduce(0) { $0 + 3 * bitmapBytes($1) } }

    init(_ memory: SharedMemory, _ regions: [MemoryRegion]) {
        precondition(memory.bytes >= Self.bytes(regions))
        self.memory = memory
        self.regions = regions
    }

    subscript(field: Field) -> UInt64 {
        get { unsafe memory.base.load(fromByteOffset: field.rawValue * 8, as: UInt64.self) }
        set { unsafe memory.base.storeBytes(of: newValue, toByteOffset: field.rawValue * 8, as: UInt64.self) }
    }
    subscript(stream: Int, field: StreamField) -> UInt64 {
        get { unsafe memory.base.load(fromByteOffset: Self.streamsOffset + stream * 64 + field.rawValue * 8, as: UInt64.self) }
        set {
            unsafe memory.base.storeBytes(
                of: newValue, toByteOffset: Self.streamsOffset + stream * 64 + field.rawValue * 8, as: UInt64.self)
        }
    }

    func clearHeader() { unsafe memset(memory.base, 0, Self.headerBytes) }

    /// A bitmap for each region: the first, second or third kind.
    func bitmaps(_ kind: Int) -> [PageBitmap] { Self.bitmaps(kind, of: regions, in: memory, from: Self.bitmapsOffset) }

    static func bitmaps(_ kind: Int, of regions: [MemoryRegion], in memory: SharedMemory, from start: Int = 0) -> [PageBitmap] {
        var offset = start + regions.reduce(0) { $0 + kind * bitmapBytes($1) }
        return regions.map { region in
            defer { offset += bitmapBytes(region) }
            return unsafe PageBitmap(pages: region.pages, words: (memory.base + offset).assumingMemoryBound(to: UInt64.self), of: memory)
        }
    }

    func entry(_ index: UInt64, on stream: Int) -> Entry { unsafe ring(stream)[Int(index % UInt64(Self.ringEntries))] }
    func setEntry(_ entry: Entry, at index: UInt64, on stream: Int) { unsafe ring(stream)[Int(index % UInt64(Self.ringEntries))] = entry }

    private func ring(_ stream: Int) -> UnsafeMutablePointer<Entry> {
        unsafe (memory.base + Self.headerBytes + stream * Self.ringBytes).assumingMemoryBound(to: Entry.self)
    }

    func deviceState(_ count: Int) -> [UInt8] { unsafe Array(UnsafeRawBufferPointer(start: deviceStateBase, count: count)) }
    func setDeviceState(_ bytes: [UInt8]) {
        precondition(bytes.count <= Limits.deviceStateBytes)
        unsafe bytes.withUnsafeBytes { if let base = $0.baseAddress { _ = unsafe memcpy(deviceStateBase, base, $0.count) } }
    }
    private var deviceStateBase: UnsafeMutableRawPointer { unsafe memory.base + memory.bytes - Limits.deviceStateBytes }

    /// Keeps the stores before it before those after it; a process that is killed has then done the ones or both.
    static func order() { atomicMemoryFence(ordering: .acquiringAndReleasing) }
}

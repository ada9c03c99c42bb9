// The persistent exception store of device-mapper's snapshot target: the device on which it keeps the chunks of the origin
// that were written since, as they were before. Source: Linux, Documentation/admin-guide/device-mapper/snapshot.rst and
// drivers/md/dm-snap-persistent.c. Everything is little-endian; a chunk is a power of two of bytes.
//
//   chunk 0      u32 magic "SnAp", u32 valid, u32 version = 1, u32 chunk size in sectors of 512 bytes
//   chunk 1      metadata area 0: chunkBytes / 16 exceptions, each u64 old chunk (of the origin), u64 new chunk (here)
//   then         as many chunks of data as an area has exceptions; then the next area, and so on
//
// The first exception whose new chunk is 0, the header's, ends the list. The kernel has written an exception before it lets the
// write to the origin go on, so what is read here covers at least every write that was complete before the reading began.
//
// Pure: bytes in, a set of chunks or a typed error out. Nothing is allocated from what the bytes say but the caller's set.

public import TurntableCore

public struct ExceptionStoreError: Error, Hashable {
    public enum Kind: String, Hashable, Sendable {
        /// Fewer bytes than a header has.
        case short
        /// It does not begin with the magic number: no snapshot's store, or one that was never used.
        case magic
        /// A version of the format that is not known.
        case version
        /// No power of two, or beyond ``Limits/snapshotChunkBytes``.
        case chunkSize
        /// An exception for a chunk that the origin does not have.
        case oldChunk
        /// An exception whose data would be outside the store, or where a header or an area is.
        case newChunk
    }
    public var kind: Kind
    public var value: UInt64
    public var limit: UInt64
    /// Of the bad field, from the start of the store.
    public var offset: Int
}

public struct ExceptionStoreHeader: Hashable, Sendable {
    public static let bytes = 16
    /// "SnAp"
    static let magic: UInt32 = 0x7041_6E53
    static let version: UInt32 = 1
    static let exceptionBytes = 16
    static let sectorBytes = 512

    /// False when the snapshot overflowed or failed: what it holds is no snapshot any more.
    public var isValid: Bool
    public var chunkBytes: Int

    public init(decoding bytes: [UInt8]) throws(ExceptionStoreError) {
        guard bytes.count >= Self.bytes else {
            throw ExceptionStoreError(kind: .short, value: UInt64(bytes.count), limit: UInt64(Self.bytes), offset: bytes.count)
        }
        let magic = UInt32(littleEndianAt: 0, of: bytes)
        guard magic == Self.magic else {
            throw ExceptionStoreError(kind: .magic, value: UInt64(magic), limit: UInt64(Self.magic), offset: 0)
        }
        let version = UInt32(littleEndianAt: 8, of: bytes)
        guard version == Self.version else {
            throw ExceptionStoreError(kind: .version, value: UInt64(version), limit: UInt64(Self.version), offset: 8)
        }
        let sectors = UInt32(littleEndianAt: 12, of: bytes)
        chunkBytes = Int(sectors) * Self.sectorBytes
        guard sectors.nonzeroBitCount == 1, Limits.snapshotChunkBytes.contains(chunkBytes) else {
            throw ExceptionStoreError(
                kind: .chunkSize, value: UInt64(sectors), limit: UInt64(Limits.snapshotChunkBytes.upperBound / Self.sectorBytes), offset: 12
            )
        }
        isValid = UInt32(littleEndianAt: 4, of: bytes) != 0
    }

    /// Exceptions in one area.
    public var areaExceptions: Int { chunkBytes / Self.exceptionBytes }

    /// Where an area begins in the store.
    public func areaOffset(_ area: Int) -> Int { (1 + area * (areaExceptions + 1)) * chunkBytes }

    /// Adds the origin's chunks of one area to `changed`. True when the area is full, so that another may follow.
    /// - Parameters:
    ///   - bytes: the whole area.
    ///   - storeBytes: of the store that it is in.
    public func decode(area: Int, _ bytes: [UInt8], storeBytes: Int, into changed: ChunkSet) throws(ExceptionStoreError) -> Bool {
        precondition(bytes.count == chunkBytes && changed.chunkBytes == chunkBytes)
        let storeChunks = UInt64(storeBytes / chunkBytes)
        let stride = UInt64(areaExceptions + 1)
        for index in 0..<areaExceptions {
            let position = index * Self.exceptionBytes
            let new = UInt64(littleEndianAt: position + 8, of: bytes)
            if new == 0 { return false }
            let old = UInt64(littleEndianAt: position, of: bytes)
            guard old < UInt64(changed.chunks) else {
                throw ExceptionStoreError(kind: .oldChunk, value: old, limit: UInt64(changed.chunks), offset: areaOffset(area) + position)
            }
            guard new < storeChunks, new % stride != 1 else {
                throw ExceptionStoreError(kind: .newChunk, value: new, limit: storeChunks, offset: areaOffset(area) + position + 8)
            }
            changed.insert(Int(old)..<Int(old) + 1)
        }
        return true
    }
}

/// Reads a whole store: `read` gives so many bytes at an offset of it.
public func changedChunks<Failure: Error>(
    inStoreOf storeBytes: Int, originBytes: ByteCount, header: ExceptionStoreHeader,
    read: (_ offset: Int, _ count: Int) throws(Failure) -> [UInt8], refuse: (ExceptionStoreError) -> Failure
) throws(Failure) -> ChunkSet {
    let changed = ChunkSet(size: originBytes, chunkBytes: header.chunkBytes)
    var area = 0
    // The store ends: a last area that is full has no other after it.
    while header.areaOffset(area) + header.chunkBytes <= storeBytes {
        let bytes = try read(header.areaOffset(area), header.chunkBytes)
        do throws(ExceptionStoreError) {
            guard try header.decode(area: area, bytes, storeBytes: storeBytes, into: changed) else { break }
        } catch {
            throw refuse(error)
        }
        area += 1
    }
    return changed
}

extension FixedWidthInteger {
    /// The integer at `offset`, of bytes that reach that far.
    fileprivate init(littleEndianAt offset: Int, of bytes: [UInt8]) {
        self = 0
        for index in (0..<Self.bitWidth / 8).reversed() { self = self << 8 | Self(truncatingIfNeeded: bytes[offset + index]) }
    }
}

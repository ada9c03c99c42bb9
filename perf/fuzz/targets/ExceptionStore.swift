// What a snapshot's store says was changed. The bytes are a whole store, but for the data, which nobody reads: the header, then
// the areas one after the other.

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    guard let header = try? ExceptionStoreHeader(decoding: bytes), header.chunkBytes <= 64 << 10 else { return 0 }
    let originChunks = 4096
    let storeBytes = header.areaOffset(64)
    var reads = 0
    let changed = try? changedChunks(
        inStoreOf: storeBytes, originBytes: ByteCount(originChunks * header.chunkBytes), header: header,
        read: { (offset, count) throws(ExceptionStoreError) in
            precondition(count == header.chunkBytes && offset + count <= storeBytes && offset == header.areaOffset(reads))
            let area = bytes.dropFirst(ExceptionStoreHeader.bytes + reads * count).prefix(count)
            reads += 1
            return Array(area) + [UInt8](repeating: 0, count: count - area.count)
        }, refuse: { $0 })
    precondition(reads <= 64)
    if let changed { precondition(changed.count <= reads * header.areaExceptions) }
    return 0
}

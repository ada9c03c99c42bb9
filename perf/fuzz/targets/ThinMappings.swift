// The output of the tools of thin provisioning, in pieces: what it says does not depend on where it is cut.

private func read(_ bytes: [UInt8], inPiecesOf piece: Int) throws(ThinMappingError) -> ChunkSet {
    var reader = ThinMappingReader(size: .mebi(64))
    for start in stride(from: 0, to: bytes.count, by: piece) { try reader.take(Array(bytes[start..<min(start + piece, bytes.count)])) }
    return try reader.finish()
}

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    let whole = try? read(bytes, inPiecesOf: max(count, 1))
    let pieces = try? read(bytes, inPiecesOf: 3)
    precondition((whole == nil) == (pieces == nil) && whole?.count == pieces?.count)
    if let whole { precondition(whole.count <= whole.chunks && whole.bytes <= whole.size) }
    return 0
}

extension ByteCount {
    fileprivate static func <= (a: ByteCount, b: ByteCount) -> Bool { !(b < a) }
}

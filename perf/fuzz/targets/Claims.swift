// The claims of a token: what was read is written as it was.

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    guard let item = try? CBOR.decode(bytes) else { return 0 }
    precondition(item.encoded == bytes)
    if let claims = try? Claims(decoding: item) { precondition(claims.encoded.encoded == bytes) }
    return 0
}

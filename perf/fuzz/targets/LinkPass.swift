// What anybody may send to a link element, and an element to whoever connects.

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    if let body = try? LinkPass.bodyBytes(Array(bytes.prefix(LinkPass.headBytes))), count == LinkPass.headBytes + body,
        let pass = try? LinkPass(decodingBody: Array(bytes.dropFirst(LinkPass.headBytes)))
    {
        precondition(pass.encoded() == bytes, "a pass that was read is written as it was")
    }
    if let answer = try? LinkAnswer(decoding: bytes) { precondition(answer.encoded() == bytes, "an answer that was read is written as it was") }
    return 0
}

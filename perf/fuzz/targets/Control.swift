// The control stream as a peer may send it: messages one after the other.

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    var rest = unsafe Array(UnsafeBufferPointer(start: start, count: count))[...]
    while rest.count >= ControlMessage.headerBytes {
        guard let (length, type) = try? ControlMessage.decodeHeader(Array(rest.prefix(ControlMessage.headerBytes))) else { return 0 }
        rest = rest.dropFirst(ControlMessage.headerBytes)
        guard let message = try? ControlMessage.decode(type: type, body: Array(rest.prefix(length))) else { return 0 }
        let encoded = message.encoded()
        precondition(
            encoded.dropFirst(ControlMessage.headerBytes).elementsEqual(rest.prefix(length)), "a message that was read is written as it was"
        )
        rest = rest.dropFirst(length)
    }
    return 0
}

// What anybody may send to a gateway: an announcement, or a datagram of the tunnel.

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    if let (announcement, mac) = try? Announcement.decode(bytes) {
        precondition(announcement.signedBytes + mac == bytes, "an announcement that was read is written as it was")
    }
    if let isForwarded = TunnelHeader.read(bytes, at: 0, count: count) {
        var written = bytes
        TunnelHeader.write(isForwarded: isForwarded, into: &written, at: 0)
        precondition(written == bytes, "a header that was read is written as it was")
        _ = IPAddress.ends(of: bytes, at: TunnelHeader.bytes, count: count - TunnelHeader.bytes)
    }
    return 0
}

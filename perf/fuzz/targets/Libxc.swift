// What comes from another host of a domain of Xen's: a greeting in its stream, and the outline of the stream of Xen's own helpers. What was read
// is written as it was.

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    if let (greeting, end) = try? StreamGreeting.find(in: bytes) { precondition(end <= bytes.count && !greeting.encoded().isEmpty) }
    try? LibxcHeaders.check(Array(bytes.prefix(LibxcHeaders.bytes)))
    var rest = bytes.dropFirst(LibxcHeaders.bytes)
    while let record = try? LibxcRecord(decoding: Array(rest.prefix(LibxcRecord.headBytes))) {
        precondition(record.encoded() == Array(rest.prefix(LibxcRecord.headBytes)) && record.paddedBytes >= record.bodyBytes)
        rest = rest.dropFirst(LibxcRecord.headBytes)
        guard record.isPages else {
            rest = rest.dropFirst(record.paddedBytes)
            continue
        }
        guard let entries = try? LibxcPageList.entriesBytes(after: Array(rest.prefix(LibxcPageList.headBytes))) else { return 0 }
        let listed = Array(rest.prefix(LibxcPageList.headBytes + entries))
        guard let list = try? LibxcPageList(decoding: listed, of: record, isOutline: true) else { return 0 }
        precondition(list.encoded(isOutline: true) == listed)
        precondition(list.pageCount == list.entries.indices.count(where: list.hasPage))
        rest = rest.dropFirst(listed.count)
    }
    return 0
}

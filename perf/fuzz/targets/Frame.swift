// A data stream as a peer may send it: header, extents, header, …, each checked the way a receiver does.

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let input = unsafe RawSpan(_unsafeStart: UnsafeRawPointer(start), byteCount: count)
    let layout = MemoryLayoutTable(regionPages: [1000, 256, 1, Limits.regionPages], disks: [777], streams: 3)
    var position = 0
    var sequence: UInt64 = 0
    while position < count {
        let rest = input.extracting(droppingFirst: position)
        guard let header = try? FrameHeader.decode(rest, expectedSequence: sequence) else { break }
        precondition(header.payloadBytes <= Limits.framePayloadBytes && header.extentCount <= Limits.frameExtents)
        precondition(header.offset + UInt64(header.payloadBytes) <= UInt64(Limits.deviceStateBytes))
        var copy = InlineArray<40, UInt8>(repeating: 0)
        var span = copy.mutableSpan
        var output = span.mutableBytes
        header.encode(into: &output)
        precondition(same(output.bytes, rest, FrameHeader.bytes), "a header that was read is written as it was")
        position += FrameHeader.bytes
        var payload = 0
        for _ in 0..<header.extentCount {
            let read = try? Extent.decode(input, at: position, of: header.kind, layout: layout, stream: Int(sequence % 3))
            guard let extent = read else { return 0 }
            precondition(
                extent.firstPage.value + extent.pageCount.value <= layout.pages(in: extent.region.value),
                "an extent that was read lies in its region")
            precondition(layout.isDisk(extent.region.value) == (header.kind == .blocks), "blocks are of disks")
            payload += extent.payloadBytes
            position += Extent.bytes
        }
        // What a receiver compares with the header before it takes a byte of payload. Payload itself is not part of the input.
        guard !header.kind.hasExtents || payload == header.payloadBytes else { return 0 }
        sequence += 1
    }
    return 0
}

private func same(_ a: RawSpan, _ b: RawSpan, _ count: Int) -> Bool {
    for index in 0..<count
    where unsafe a.unsafeLoad(fromByteOffset: index, as: UInt8.self) != b.unsafeLoad(fromByteOffset: index, as: UInt8.self) { return false }
    return true
}

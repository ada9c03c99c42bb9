/// Memory that direct I/O can use; its size never changes.
@safe public final class AlignedBuffer: @unchecked Sendable {
    public let bytes: UnsafeMutableRawBufferPointer

    public init(bytes count: Int) { unsafe bytes = .allocate(byteCount: count, alignment: blockAlignment) }
    deinit { unsafe bytes.deallocate() }
}

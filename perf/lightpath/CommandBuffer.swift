/// Collects the bytes of one connection into lines. A line longer than `controlLineBytes` is given up, not stored.
struct CommandBuffer {
    private var bytes: [UInt8] = []
    private var isTooLong = false

    /// The lines `more` completes; nil for one that was too long.
    mutating func lines(adding more: ArraySlice<UInt8>) -> [String?] {
        var lines: [String?] = []
        for byte in more {
            if byte == UInt8(ascii: "\n") {
                lines.append(isTooLong ? nil : String(decoding: bytes, as: UTF8.self))
                bytes.removeAll(keepingCapacity: true)
                isTooLong = false
            } else if bytes.count < LineLimits.controlLineBytes {
                bytes.append(byte)
            } else {
                isTooLong = true
            }
        }
        return lines
    }
}

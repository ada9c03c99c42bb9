internal import TurntableCore

/// Makes exception stores as the kernel would write them.
struct Store {
    var chunkBytes: Int
    var exceptions: [(old: UInt64, new: UInt64)] = []
    var magic: UInt32 = 0x7041_6E53
    var valid: UInt32 = 1
    var version: UInt32 = 1
    var headerChunkBytes: Int?

    init(chunkBytes: Int, saving chunks: [Int]) {
        self.chunkBytes = chunkBytes
        let stride = UInt64(chunkBytes / 16 + 1)
        var next: UInt64 = 2
        for chunk in chunks {
            exceptions.append((UInt64(chunk), next))
            next += 1
            if next % stride == 1 { next += 1 }
        }
    }

    /// - Parameter chunks: of the store; as many as its contents need if nil.
    func bytes(chunks: Int? = nil) -> [UInt8] {
        let perArea = chunkBytes / 16
        func needed() -> Int { max(2 + exceptions.count / perArea * (perArea + 1), Int(exceptions.map(\.new).max() ?? 0) + 1) }
        var bytes = [UInt8](repeating: 0, count: (chunks ?? needed()) * chunkBytes)
        func put<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
            withUnsafeBytes(of: value.littleEndian) {
                if offset + $0.count <= bytes.count { bytes.replaceSubrange(offset..<offset + $0.count, with: $0) }
            }
        }
        put(magic, at: 0)
        put(valid, at: 4)
        put(version, at: 8)
        put(UInt32((headerChunkBytes ?? chunkBytes) / 512), at: 12)
        for (index, exception) in exceptions.enumerated() {
            let offset = (1 + index / perArea * (perArea + 1)) * chunkBytes + index % perArea * 16
            put(exception.old, at: offset)
            put(exception.new, at: offset + 8)
        }
        return bytes
    }
}

extension ChunkSet {
    var members: [Int] { (0..<chunks).filter { contains($0) } }
}

// What the tools of thin provisioning print about a pool's metadata: `thin_dump --dev-id` (what a volume has blocks for) and
// `thin_delta` (where two volumes differ). Source: thin_dump(8), thin_delta(8). XML with one element a line:
//
//   <superblock … data_block_size="128" …>                             sectors of 512 bytes
//   <single_mapping origin_block="3" …/>  <range_mapping origin_begin="0" … length="3" …/>       of a dump
//   <same begin="0" length="3"/>  <different …/>  <left_only …/>  <right_only …/>                of a delta
//   </superblock>                                                      nothing was cut off
//
// Pure, and takes the text piece by piece: no line is kept longer than Limits.toolLineBytes.

public import TurntableCore

public struct ThinMappingError: Error, Hashable {
    public enum Kind: String, Hashable, Sendable {
        case lineTooLong, badNumber, badBlockSize, outOfRange, noSuperblock, unexpectedElement, cutOff
    }
    public var kind: Kind
    /// Of the line, from the start of the text.
    public var offset: Int
    public var text: String
}

public struct ThinMappingReader: ~Copyable {
    /// The blocks that the text names: mapped ones of a dump, differing ones of a delta. Nil before the superblock.
    public private(set) var blocks: ChunkSet?
    private let size: ByteCount
    private var line: [UInt8] = []
    private var offset = 0
    private var isComplete = false

    /// - Parameter size: of the volume; blocks beyond it are an error.
    public init(size: ByteCount) { self.size = size }

    public mutating func take(_ piece: [UInt8]) throws(ThinMappingError) {
        for byte in piece {
            guard byte == UInt8(ascii: "\n") else {
                line.append(byte)
                guard line.count <= Limits.toolLineBytes else { throw failure(.lineTooLong) }
                continue
            }
            try takeLine()
            offset += line.count + 1
            line.removeAll(keepingCapacity: true)
        }
    }

    /// The text is over.
    public consuming func finish() throws(ThinMappingError) -> ChunkSet {
        guard isComplete, line.isEmpty, let blocks else { throw failure(.cutOff) }
        return blocks
    }

    private mutating func takeLine() throws(ThinMappingError) {
        let text = String(decoding: line, as: UTF8.self).drop { $0 == " " || $0 == "\t" }
        guard !text.isEmpty else { return }
        switch text.dropFirst().prefix(while: { $0.isLetter || $0 == "_" || $0 == "/" }) {
        case "superblock":
            let sectors = try number("data_block_size", text)
            let (bytes, isOver) = sectors.multipliedReportingOverflow(by: 512)
            // Blocks of a pool are multiples of 64 KiB up to 1 GiB.
            guard blocks == nil, !isOver, (64 << 10)...(1 << 30) ~= bytes, bytes % (64 << 10) == 0, size.value / bytes < Limits.diskChunks
            else { throw failure(.badBlockSize) }
            blocks = ChunkSet(size: size, chunkBytes: bytes)
        case "single_mapping": try insert(number("origin_block", text), 1)
        case "range_mapping": try insert(number("origin_begin", text), number("length", text))
        case "different", "left_only", "right_only": try insert(number("begin", text), number("length", text))
        case "same", "diff", "/diff", "device", "/device": guard blocks != nil else { throw failure(.noSuperblock) }
        case "/superblock": isComplete = blocks != nil
        default: throw failure(.unexpectedElement)
        }
    }

    private borrowing func insert(_ begin: Int, _ length: Int) throws(ThinMappingError) {
        guard let blocks else { throw failure(.noSuperblock) }
        guard begin <= blocks.chunks, length <= blocks.chunks - begin else { throw failure(.outOfRange) }
        blocks.insert(begin..<begin + length)
    }

    private borrowing func number(_ name: String, _ text: Substring) throws(ThinMappingError) -> Int {
        guard let found = text.firstRange(of: " \(name)=\""), let value = Int(text[found.upperBound...].prefix { $0 != "\"" }), value >= 0
        else { throw failure(.badNumber) }
        return value
    }

    private borrowing func failure(_ kind: ThinMappingError.Kind) -> ThinMappingError {
        ThinMappingError(kind: kind, offset: offset, text: String(decoding: line.prefix(120), as: UTF8.self))
    }
}

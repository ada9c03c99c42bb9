// A program that one host runs for another over a control stream: its words, then its standard streams, both ways, until it
// has ended. Whoever asks is S, whoever runs it T; Ping and Pong meanwhile tell that the other is there.
//
//   S start ─ S bytes of its input ─ T bytes of its output and errors ─ T ended
//   T refuses by Refused
//
//   message = 0 | words: count u32, texts        1 | stream u8 | length u32, bytes; none: that stream ends        2 | code i32

internal import TurntableCore

/// What is said of such a program.
public enum ProgramMessage: Equatable, Sendable {
    case start([String])
    case bytes(StandardStream, [UInt8])
    case ended(code: Int32)

    public enum StandardStream: UInt8, Sendable, CaseIterable {
        case input = 0
        case output
        case errors
    }
    private enum Kind: UInt8 {
        case start = 0
        case bytes
        case ended
    }
}

extension ProgramMessage: MessageBody {
    init(from reader: inout MessageReader) throws(WireError) {
        let kind: Kind = try reader.readEnum(atMost: Kind.ended.rawValue)
        switch kind {
        case .start:
            var words: [String] = []
            for _ in 0..<(try reader.readCount(atMost: Limits.programWords)) { words.append(try reader.readText(atMost: Limits.nameBytes)) }
            self = .start(words)
        case .bytes:
            self = .bytes(
                try reader.readEnum(atMost: StandardStream.errors.rawValue), try reader.readBytes(atMost: Limits.programBytes))
        case .ended: self = .ended(code: try reader.read())
        }
    }

    func write(to writer: inout MessageWriter) {
        switch self {
        case .start(let words):
            writer.append(Kind.start.rawValue)
            writer.append(UInt32(words.count))
            for word in words { writer.append(text: word) }
        case .bytes(let stream, let bytes):
            writer.append(Kind.bytes.rawValue)
            writer.append(stream.rawValue)
            writer.append(bytes: bytes)
        case .ended(let code):
            writer.append(Kind.ended.rawValue)
            writer.append(code)
        }
    }
}

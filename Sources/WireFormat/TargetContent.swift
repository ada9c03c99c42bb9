// What a target holds where nothing of the machine was sent yet: new memory, a volume with anything in it, or an older copy, of which
// the source is told digests so that it sends only what differs.

/// What one region reads as at the target before anything arrived.
public enum TargetContent: UInt8, Sendable, CaseIterable {
    case zero = 0
    /// Anything: zeroes have to be sent.
    case unknown
    /// An older copy of the same region. ``OlderPages`` follow for it, in the order of its pages.
    case older
}

/// Digests of pages that the target holds in an older copy.
public struct OlderPages: Equatable, Sendable, MessageBody {
    /// Pages in one message.
    public static let maximumPages = 1 << 15
    /// Of one page's digest. All zeroes stand for a page that is all zero.
    public static let digestBytes = 16

    public var region: UInt16
    public var firstPage: UInt64
    /// ``digestBytes`` for each page.
    public var digests: [UInt8]
    public var pages: Int { digests.count / Self.digestBytes }

    public init(region: UInt16, firstPage: UInt64, digests: [UInt8]) {
        self.region = region
        self.firstPage = firstPage
        self.digests = digests
    }

    init(from reader: inout MessageReader) throws(WireError) {
        region = try reader.read()
        firstPage = try reader.read()
        let position = reader.offset
        digests = try reader.readBytes(atMost: Self.maximumPages * Self.digestBytes)
        guard digests.count % Self.digestBytes == 0 else {
            throw WireError(.badPayload, value: UInt64(digests.count), limit: UInt64(Self.digestBytes), offset: position)
        }
    }
    func write(to writer: inout MessageWriter) {
        writer.append(region)
        writer.append(firstPage)
        writer.append(bytes: digests)
    }
}

/// Bytes from a peer that are not what the protocol allows: what was wrong, the value met, the limit, and where.
public struct WireError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Reason: String, Sendable {
        case truncated = "is cut short"
        case badMagic = "does not begin with the protocol's magic number: the peer speaks something else"
        case unsupportedVersion = "is of a protocol version that this end does not speak"
        case unknownKind = "is of an unknown kind"
        case reservedNotZero = "has a reserved field that is not zero"
        case tooMany = "names a number of things outside the limit"
        case tooLong = "names a length over the limit"
        case outOfSequence = "is not the next of its stream"
        case badRegion = "names a region that the machine does not have"
        case outsideMemory = "names pages outside its region"
        case crossesStripe = "has an extent that crosses a stripe"
        case foreignStripe = "has pages that belong to another stream"
        case badPayload = "has a payload that is not what its extents add up to"
        case badDigest = "has a digest that is not that of its bytes"
        case badText = "has text that is not UTF-8"
        case trailingBytes = "has bytes after its end"
    }

    public var reason: Reason
    public var value: UInt64
    public var limit: UInt64
    /// Byte offset in the frame or message.
    public var offset: Int

    public init(_ reason: Reason, value: UInt64, limit: UInt64, offset: Int) {
        self.reason = reason
        self.value = value
        self.limit = limit
        self.offset = offset
    }

    public var description: String { "\(reason.rawValue) (value \(value), limit \(limit), at byte \(offset))" }
}

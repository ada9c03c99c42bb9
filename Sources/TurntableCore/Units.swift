// Distinct types for the quantities of the page path, so that a page count is never taken for a byte count.

/// The unit in which guest memory is tracked and sent, whatever the host backs it with.
public let pageBytes = 4096

/// A position in a memory region, in pages of ``pageBytes``.
public struct PageIndex: Hashable, Comparable, Sendable {
    public var value: Int
    public init(_ value: Int) { self.value = value }
    public static func < (a: PageIndex, b: PageIndex) -> Bool { a.value < b.value }
    public static func + (a: PageIndex, b: PageCount) -> PageIndex { PageIndex(a.value + b.value) }
    public static func - (a: PageIndex, b: PageIndex) -> PageCount { PageCount(a.value - b.value) }
    /// Offset of the page's first byte in its region.
    public var byteOffset: Int { value * pageBytes }
}

/// A number of pages of ``pageBytes``.
public struct PageCount: Hashable, Comparable, Sendable, Codable {
    public var value: Int
    public init(_ value: Int) { self.value = value }
    /// As many as so many bytes take, the last of which may be a part.
    public init(covering bytes: ByteCount) { value = (bytes.value + pageBytes - 1) / pageBytes }
    public static func < (a: PageCount, b: PageCount) -> Bool { a.value < b.value }
    public static func + (a: PageCount, b: PageCount) -> PageCount { PageCount(a.value + b.value) }
    public static func += (a: inout PageCount, b: PageCount) { a.value += b.value }
    public var bytes: ByteCount { ByteCount(value * pageBytes) }
}

/// A number of bytes. Prints in binary units.
public struct ByteCount: Hashable, Comparable, Sendable, Codable {
    public var value: Int
    public init(_ value: Int) { self.value = value }
    public static func mebi(_ value: Int) -> ByteCount { ByteCount(value << 20) }
    public static func kibi(_ value: Int) -> ByteCount { ByteCount(value << 10) }
    public static func < (a: ByteCount, b: ByteCount) -> Bool { a.value < b.value }
    public static func + (a: ByteCount, b: ByteCount) -> ByteCount { ByteCount(a.value + b.value) }
    public static func - (a: ByteCount, b: ByteCount) -> ByteCount { ByteCount(a.value - b.value) }
    public static func += (a: inout ByteCount, b: ByteCount) { a.value += b.value }
}

/// A rate on the line, in bits per second. Prints in decimal units, as lines are sold.
public struct BitRate: Hashable, Comparable, Sendable, Codable {
    public var bitsPerSecond: Double
    public init(bitsPerSecond: Double) { self.bitsPerSecond = bitsPerSecond }
    /// The rate that moves `bytes` in `time`; zero when no time passed.
    public init(_ bytes: ByteCount, in time: Nanoseconds) {
        bitsPerSecond = time.value > 0 ? Double(bytes.value) * 8e9 / Double(time.value) : 0
    }
    public static func < (a: BitRate, b: BitRate) -> Bool { a.bitsPerSecond < b.bitsPerSecond }
    public var bytesPerSecond: Double { bitsPerSecond / 8 }
    /// What each of `count` has of it.
    public func share(of count: Int) -> BitRate { BitRate(bitsPerSecond: bitsPerSecond / Double(count)) }
    /// What is moved in `time`.
    public func bytes(in time: Nanoseconds) -> ByteCount { ByteCount(Int(min(bytesPerSecond * time.seconds, 9e18))) }
    /// How long `bytes` take at this rate; ``Nanoseconds/forever`` at rate zero.
    public func time(for bytes: ByteCount) -> Nanoseconds {
        guard bytes.value > 0 else { return .zero }
        guard bitsPerSecond > 0 else { return .forever }
        return Nanoseconds(Int64(min(Double(bytes.value) * 8e9 / bitsPerSecond, 9e18)))
    }
}

/// A span of time, or a point on a monotonic clock.
public struct Nanoseconds: Hashable, Comparable, Sendable, Codable {
    public var value: Int64
    public init(_ value: Int64) { self.value = value }
    public static func milliseconds(_ value: Double) -> Nanoseconds { limited(value * 1e6) }
    public static func seconds(_ value: Double) -> Nanoseconds { limited(value * 1e9) }
    /// What does not fit is ``forever``: a cut line makes such times.
    static func limited(_ value: Double) -> Nanoseconds { value < 9.2e18 ? Nanoseconds(Int64(max(value, -9.2e18))) : .forever }
    public static let zero = Nanoseconds(0)
    public static let forever = Nanoseconds(.max)
    public static func < (a: Nanoseconds, b: Nanoseconds) -> Bool { a.value < b.value }
    public static func + (a: Nanoseconds, b: Nanoseconds) -> Nanoseconds {
        let (sum, overflow) = a.value.addingReportingOverflow(b.value)
        return overflow ? (b.value < 0 ? Nanoseconds(.min) : .forever) : Nanoseconds(sum)
    }
    /// A peer's numbers end up here, so it saturates as well.
    public static func - (a: Nanoseconds, b: Nanoseconds) -> Nanoseconds {
        let (difference, overflow) = a.value.subtractingReportingOverflow(b.value)
        return overflow ? (b.value < 0 ? .forever : Nanoseconds(.min)) : Nanoseconds(difference)
    }
    public static func += (a: inout Nanoseconds, b: Nanoseconds) { a = a + b }
    public static func / (a: Nanoseconds, b: Int64) -> Nanoseconds { Nanoseconds(a.value / b) }
    public var milliseconds: Double { Double(value) / 1e6 }
    public var seconds: Double { Double(value) / 1e9 }
}

/// Which memory region of a machine: its place in the offer's list.
public struct RegionIndex: Hashable, Sendable {
    public var value: Int
    public init(_ value: Int) { self.value = value }
}

/// A fencing token: who holds the highest epoch of a machine has the right to run it.
public struct Epoch: Hashable, Comparable, Sendable, Codable {
    public var value: UInt64
    public init(_ value: UInt64) { self.value = value }
    public static func < (a: Epoch, b: Epoch) -> Bool { a.value < b.value }
    public var next: Epoch { Epoch(value + 1) }
}

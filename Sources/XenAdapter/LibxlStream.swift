internal import CTurntableXen
internal import Glibc
public import TurntableCore
internal import TurntableLinux

/// A descriptor of libxl's: the stream between two helpers, or a helper's standard stream. It is used here and never closed.
public struct LibxlStream: Sendable {
    private let descriptor: Int32
    public init(descriptor: Int32) { self.descriptor = descriptor }

    /// The other end is gone; nothing is taken from the stream to find out.
    public func hasHungUp(within limit: Nanoseconds) -> Bool { tt_xen_has_hung_up(descriptor, Int32(clamping: limit.value / 1_000_000)) != 0 }

    func write(_ bytes: [UInt8], what: String) throws(TurntableError) { try writeAll(bytes, to: descriptor, what: what) }

    func read(_ count: Int, what: String) throws(TurntableError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var start = 0
        while start < count {
            let more = unsafe bytes[start...].withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if more < 0 && errno == EINTR { continue }
            try checked(more < 0 ? Int(-errno) : more, what)
            guard more > 0 else { throw TurntableError(.line, what, "it ended after \(start) bytes of \(count)") }
            start += more
        }
        return bytes
    }

    /// What comes next, without taking it; fewer bytes if the stream ends.
    func peek(_ count: Int, what: String) throws(TurntableError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let found = unsafe bytes.withUnsafeMutableBytes { unsafe tt_xen_peek(descriptor, $0.baseAddress, $0.count) }
        return Array(bytes.prefix(Int(try checked(found, what))))
    }
}

public import TurntableCore

/// One end of a connection: bytes both ways, whatever is between the ends.
public protocol ByteConnection: AnyObject, Sendable {
    /// Writes all of it, waiting for room as long as bytes move.
    func write(_ buffer: UnsafeRawBufferPointer) throws(TurntableError)
    /// Fills the buffer, each piece of it within `limit`.
    func read(into buffer: UnsafeMutableRawBufferPointer, within limit: Nanoseconds) throws(TurntableError)
    /// Waits at most `limit` for a byte, or the end.
    func waitReadable(within limit: Nanoseconds) -> Bool
    /// Bytes that the far end has not read yet, and bytes that it has.
    var sent: (unread: Int, read: Int) { get }
    func shutDown()
}

extension ByteConnection {
    public func write(_ bytes: [UInt8]) throws(TurntableError) {
        // The closure's error comes out as a value: withUnsafeBytes does not rethrow typed errors.
        let failure: TurntableError? = unsafe bytes.withUnsafeBytes { bytes in
            do throws(TurntableError) { try unsafe write(bytes) } catch { return error }
            return nil
        }
        if let failure { throw failure }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError) { try unsafe read(into: buffer, within: Limits.stallTime) }

    /// Reads exactly `count` bytes, each piece of them within `limit`.
    public func read(_ count: Int, within limit: Nanoseconds) throws(TurntableError) -> [UInt8] {
        var failure: TurntableError?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            do throws(TurntableError) {
                try unsafe read(into: UnsafeMutableRawBufferPointer(buffer), within: limit)
                filled = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }
}

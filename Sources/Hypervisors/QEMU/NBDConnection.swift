internal import CTurntableNBD
internal import TurntableCore

/// A connection to a disk that a QEMU shows over NBD. One thread at a time uses it; after an error it is of no more use.
@safe final class NBDConnection: @unchecked Sendable {
    /// Bits of the context `base:allocation` and of QEMU's `qemu:dirty-bitmap:NAME`.
    /// Sources: the NBD protocol (doc/proto.md), "base:allocation" metadata context; QEMU, docs/interop/nbd.txt.
    static let isZero: UInt32 = 2
    static let isDirty: UInt32 = 1

    /// What one request asks about: its length is a number of 32 bits.
    private static let askedBytes = 1 << 31
    private static let timeout = Int32(Limits.hypervisorTime.milliseconds)

    let bytes: Int
    private let export: String
    private let connection: OpaquePointer

    /// - Parameter context: what ``forEachExtent(_:)`` will tell of.
    init(_ path: String, export: String, context: String? = nil) throws(TurntableError) {
        var failure: Int32 = 0
        guard let opened = unsafe tt_nbd_connect(path, export, context, Self.timeout, &failure) else {
            let why = failure == -95 ? "QEMU does not tell of \(context ?? "")" : Self.reason()
            throw TurntableError(.hypervisor, "connecting to the disk \(export)", why)
        }
        unsafe connection = opened
        self.export = export
        bytes = Int(unsafe tt_nbd_bytes(opened))
    }

    deinit { unsafe tt_nbd_close(connection) }

    func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(TurntableError) {
        let result = unsafe tt_nbd_read(connection, buffer.baseAddress, buffer.count, UInt64(offset), Self.timeout)
        guard result == 0 else {
            throw TurntableError(.hypervisor, "reading \(ByteCount(buffer.count)) at \(offset) of the disk \(export)", Self.reason())
        }
    }

    /// All of the disk, in order, as pieces with flags of the context.
    func forEachExtent(_ body: (Range<Int>, UInt32) -> Void) throws(TurntableError) {
        final class Pieces {
            var list: [(length: Int, flags: UInt32)] = []
        }
        let pieces = Pieces()
        var position = 0
        while position < bytes {
            let length = min(bytes - position, Self.askedBytes)
            pieces.list.removeAll(keepingCapacity: true)
            // The callee calls back before it returns, while `pieces` is held here.
            let told = unsafe tt_nbd_extents(
                connection, UInt64(position), UInt64(length), Self.timeout,
                { context, length, flags in
                    let pieces = unsafe Unmanaged<Pieces>.fromOpaque(context!).takeUnretainedValue()
                    pieces.list.append((Int(length), flags))
                }, Unmanaged.passUnretained(pieces).toOpaque())
            guard told > 0 else {
                throw TurntableError(
                    .hypervisor, "asking what the disk \(export) holds at \(position)", told == 0 ? "QEMU says nothing" : Self.reason())
            }
            for piece in pieces.list {
                body(position..<position + piece.length, piece.flags)
                position += piece.length
            }
        }
    }

    private static func reason() -> String { unsafe String(cString: tt_nbd_reason()) }
}

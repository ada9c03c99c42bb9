internal import Glibc
internal import TurntableCore
internal import TurntableLinux

/// Ties an incoming machine to the receiver that started it, until it has all of its memory: a receiver that dies, however
/// suddenly, leaves no half-made machine behind.
///
/// A socket pair. `turntable run --incoming` ends its QEMU when its end is closed without the word to keep it.
final class MachineLease: Sendable {
    private let socket: Descriptor

    private static let keepWord: UInt8 = 0x6b

    init(owning rawValue: Int32) { socket = Descriptor(owning: rawValue) }

    /// The machine stays, whatever becomes of this process.
    func keep() throws(TurntableError) { try Socket.write(socket, [Self.keepWord], what: "keeping the machine") }

    /// Ends the machine, if it was not kept, and waits until nothing of it is left.
    func end(within limit: Nanoseconds) {
        shutdown(socket.rawValue, Int32(SHUT_WR))
        _ = try? Socket.waitReadable(socket, within: limit)
    }

    /// The machine's side: waits for the word to keep it. False if the receiver is gone without it.
    static func awaitKeep(_ rawValue: Int32) -> Bool {
        let socket = Descriptor(owning: rawValue)
        let word = try? Socket.read(socket, atMost: 1, what: "waiting to be kept")
        guard word == [keepWord] else { return false }
        // Held as long as this process, so that the receiver sees its end.
        _ = socket.release()
        return true
    }
}

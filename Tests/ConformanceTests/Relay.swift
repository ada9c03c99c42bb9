internal import TestSupport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// Somebody on the line between source and target: sees every byte, and changes what it likes.
final class Relay: Sendable {
    /// What becomes of bytes that a source sends. `offset` counts from the connection's begin.
    typealias Change = @Sendable (_ bytes: [UInt8], _ offset: Int, _ role: ConnectionRole) -> [UInt8]

    let port: UInt16
    private let isOver = Monitor(false)
    private let recordings = Monitor([(role: ConnectionRole, bytes: [UInt8])]())
    private let thread: WorkerThread

    /// Everything that sources sent, connection by connection.
    var recorded: [(role: ConnectionRole, bytes: [UInt8])] { recordings.read { $0 } }

    init(to target: UInt16, change: @escaping Change = { bytes, _, _ in bytes }) throws {
        let listener = try Socket.listen(on: Address(host: "127.0.0.1", port: 0)) { (_: borrowing Descriptor) throws(TurntableError) in }
        port = Socket.localPort(listener)
        let raw = listener.release()
        thread = WorkerThread("relay") { [isOver, recordings] in
            let listener = Descriptor(owning: raw)
            while !isOver.read({ $0 }) {
                guard let near = try? Socket.accept(listener, within: .milliseconds(20)),
                    let far = try? Socket.connect(
                        to: Address(host: "127.0.0.1", port: target), within: .seconds(5),
                        prepare: { (_: borrowing Descriptor) throws(TurntableError) in })
                else { continue }
                Self.join(near, far, isOver, recordings, change)
            }
        }
    }

    func close() {
        isOver.update { $0 = true }
        thread.join()
    }

    private final class Connection: Sendable {
        let near: Descriptor
        let far: Descriptor
        init(_ near: consuming Descriptor, _ far: consuming Descriptor) {
            self.near = near
            self.far = far
        }
        func end() {
            Socket.shutDown(near)
            Socket.shutDown(far)
        }
    }

    private static func join(
        _ near: consuming Descriptor, _ far: consuming Descriptor, _ isOver: Monitor<Bool>,
        _ recordings: Monitor<[(role: ConnectionRole, bytes: [UInt8])]>, _ change: @escaping Change
    ) {
        let connection = Connection(near, far)
        let index = recordings.update { recordings in
            recordings.append((.control, []))
            return recordings.count - 1
        }
        _ = WorkerThread("relay-forth") {
            var offset = 0
            while let bytes = try? read(connection.near, isOver), !bytes.isEmpty {
                let role = recordings.update { recordings in
                    recordings[index].bytes += bytes
                    if recordings[index].bytes.count > 12, recordings[index].bytes[12] == 1 { recordings[index].role = .data }
                    return recordings[index].role
                }
                guard (try? Socket.write(connection.far, change(bytes, offset, role), what: "a relay")) != nil else { break }
                offset += bytes.count
            }
            connection.end()
        }
        _ = WorkerThread("relay-back") {
            while let bytes = try? read(connection.far, isOver), !bytes.isEmpty {
                guard (try? Socket.write(connection.near, bytes, what: "a relay")) != nil else { break }
            }
            connection.end()
        }
    }

    private static func read(_ socket: borrowing Descriptor, _ isOver: Monitor<Bool>) throws(TurntableError) -> [UInt8] {
        while !isOver.read({ $0 }) {
            if try Socket.waitReadable(socket, within: .milliseconds(20)) { return try Socket.read(socket, atMost: 1 << 16, what: "a relay") }
        }
        return []
    }
}

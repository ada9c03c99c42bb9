internal import Glibc
internal import Synchronization
public import Transport
public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// The control stream over TCP: small messages, each sent at once.
public final class TCPControlChannel: ControlChannel {
    private let socket: Descriptor
    private let isShutDown = Atomic(false)
    /// Whole messages only: a lock keeps two senders' bytes apart.
    private let sending = Monitor(())
    private let named: Monitor<AttachmentID>
    public var attachment: AttachmentID { named.read { $0 } }

    public var peerName: String { "" }
    public var peerKey: [UInt8] { [] }

    init(socket: consuming Descriptor, attachment: AttachmentID = .none) {
        self.socket = socket
        named = Monitor(attachment)
    }

    /// The source learns its attachment from the target.
    func welcome(_ welcome: Welcome) { named.update { $0 = welcome.attachment } }

    public func send(_ message: ControlMessage) throws(TurntableError) {
        let bytes = message.encoded()
        try sending.update { (_: inout Void) throws(TurntableError) in
            try Socket.write(socket, bytes, what: "sending on the control stream")
        }
    }

    public func receive(within limit: Nanoseconds) throws(TurntableError) -> ControlMessage? {
        guard try Socket.waitReadable(socket, within: limit) else {
            if isShutDown.load(ordering: .relaxed) {
                throw TurntableError(.cancelled, "receiving on the control stream", "the stream was shut down")
            }
            return nil
        }
        let header = try Socket.readExactly(socket, ControlMessage.headerBytes, within: Limits.stallTime, what: "receiving on the control stream")
        do {
            let (length, type) = try ControlMessage.decodeHeader(header)
            let body = try Socket.readExactly(socket, length, within: Limits.stallTime, what: "receiving on the control stream")
            return try ControlMessage.decode(type: type, body: body)
        } catch let error as WireError {
            throw TurntableError(.protocol, "a message on the control stream", error.description)
        } catch let error as TurntableError {
            throw error
        } catch {
            preconditionFailure("an error of no known type: \(error)")
        }
    }

    public func shutDown() {
        isShutDown.store(true, ordering: .relaxed)
        Socket.shutDown(socket)
    }
}

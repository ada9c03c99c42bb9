// What has come on a control stream over TLS, between its event loop and the thread that reads it.

internal import NIOCore
internal import NIOSSL
internal import NIOTLS
internal import SwiftASN1
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat
internal import X509

final class ControlInbox: Sendable {
    private struct State {
        var certificate: Certificate?
        var bytes: [UInt8] = []
        /// Bytes of ``bytes`` that were read.
        var taken = 0
        var isHeld = false
        var isShutDown = false
        /// Why nothing more comes.
        var end: String?

        var unread: Int { bytes.count - taken }
    }
    private let state = Monitor(State())

    var end: String? { state.read { $0.end } }

    // MARK: - The event loop's side

    func shookHands(_ certificate: Certificate) { state.update { $0.certificate = certificate } }

    /// Takes what came; false if that is enough until somebody reads.
    func add(_ buffer: inout ByteBuffer) -> Bool {
        let bytes = buffer.readBytes(length: buffer.readableBytes) ?? []
        return state.update { state in
            state.bytes += bytes
            state.isHeld = state.unread > Limits.unreadControlBytes
            return !state.isHeld
        }
    }

    func close(_ reason: String) { state.update { $0.end = $0.end ?? reason } }

    // MARK: - The reader's side

    func shutDown() {
        state.update { state in
            state.isShutDown = true
            state.end = state.end ?? "the stream was shut down"
        }
    }

    func awaitHandshake(_ what: String) throws(TurntableError) -> Certificate {
        let result = state.wait(atMost: Limits.helloTime) { state -> Result<Certificate, TurntableError>? in
            if let certificate = state.certificate { return .success(certificate) }
            // What the other end says in the clear is the reason why it takes no TLS.
            return state.end.map { .failure(TurntableError(.line, what, $0)) }
        }
        guard let result else { throw TurntableError(.line, what, "the TLS handshake took over \(Limits.helloTime)") }
        return try result.get()
    }

    /// The next message. What came before the end is read before it.
    func next(within limit: Nanoseconds, from channel: any Channel) throws(TurntableError) -> ControlMessage? {
        let result = state.wait(atMost: limit) { state -> Result<ControlMessage, TurntableError>? in
            do throws(WireError) {
                if let message = try Self.takeMessage(from: &state) { return .success(message) }
            } catch {
                return .failure(TurntableError(.protocol, "a message on the control stream", error.description))
            }
            guard let end = state.end else { return nil }
            return .failure(TurntableError(state.isShutDown ? .cancelled : .line, "receiving on the control stream", end))
        }
        let goesOn = state.update { state in
            defer { if state.unread <= Limits.unreadControlBytes / 2 { state.isHeld = false } }
            return state.isHeld && state.unread <= Limits.unreadControlBytes / 2
        }
        if goesOn { channel.setOption(.autoRead, value: true).whenComplete { _ in } }
        return try result?.get()
    }

    private static func takeMessage(from state: inout State) throws(WireError) -> ControlMessage? {
        let header = ControlMessage.headerBytes
        guard state.unread >= header else { return nil }
        let (length, type) = try ControlMessage.decodeHeader(Array(state.bytes[state.taken..<state.taken + header]))
        guard state.unread >= header + length else { return nil }
        let body = Array(state.bytes[(state.taken + header)..<(state.taken + header + length)])
        state.taken += header + length
        // Now and then, not at each message.
        if state.taken == state.bytes.count || state.taken > Limits.unreadControlBytes {
            state.bytes.removeFirst(state.taken)
            state.taken = 0
        }
        return try ControlMessage.decode(type: type, body: body)
    }
}

/// Puts into the inbox what TLS lets through.
final class ControlInboxHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let inbox: ControlInbox

    init(_ inbox: ControlInbox) { self.inbox = inbox }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        if !inbox.add(&buffer) { context.channel.setOption(.autoRead, value: false).whenComplete { _ in } }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .handshakeCompleted? = event as? TLSUserEvent else { return context.fireUserInboundEventTriggered(event) }
        do {
            guard let certificate = try context.pipeline.syncOperations.nioSSL_peerCertificate() else {
                throw TurntableError(.line, "a control stream", "the other end has no certificate")
            }
            inbox.shookHands(try Certificate(derEncoded: try certificate.toDERBytes()))
        } catch {
            errorCaught(context: context, error: error)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        inbox.close("TLS: \(error)")
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { inbox.close("the peer closed it") }
}

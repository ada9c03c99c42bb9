// The control stream of a protected line: TLS 1.3 with both certificates, by swift-nio-ssl. Its event loop is a thread of
// its own, which encrypts and decrypts; senders and the reader meet it as they meet any other: through a lock.

internal import Crypto
internal import NIOCore
internal import NIOPosix
internal import NIOSSL
internal import Protection
internal import SwiftASN1
public import Transport
public import TurntableCore
internal import TurntableLinux
public import WireFormat
internal import X509

/// The control stream over TLS.
public final class TLSControlChannel: ControlChannel {
    private let channel: any Channel
    private let inbox: ControlInbox
    private let named = Monitor(AttachmentID.none)
    /// The other end's certificate, and what it is called in it.
    let peerCertificate: Certificate
    public let peerName: String
    public var peerKey: [UInt8] { KeyDigest.of(peerCertificate) }

    public var attachment: AttachmentID { named.read { $0 } }

    enum Side {
        case source
        case target
    }

    private static let eventLoops = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    /// Takes a connected socket and shakes hands on it, in at most ``Limits/helloTime``.
    init(socket: consuming Descriptor, as side: Side, _ identity: HostIdentity) throws(TurntableError) {
        let what = side == .source ? "greeting the target" : "a control stream"
        let inbox = ControlInbox()
        let configuration = try Self.configuration(side, identity)
        let raw = socket.release()
        let connected = Monitor<Result<any Channel, any Error>?>(nil)
        ClientBootstrap(group: Self.eventLoops)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let context = try NIOSSLContext(configuration: configuration)
                    // Names are compared when the handshake is done: a certificate may be for an address.
                    let handler: NIOSSLHandler =
                        side == .source ? try NIOSSLClientHandler(context: context, serverHostname: nil) : NIOSSLServerHandler(context: context)
                    try channel.pipeline.syncOperations.addHandlers(handler, ControlInboxHandler(inbox))
                }
            }
            .withConnectedSocket(raw)
            .whenComplete { result in connected.update { $0 = result } }
        guard let result = connected.wait(atMost: Limits.helloTime, until: { $0 }) else {
            preconditionFailure("an event loop takes a socket at once")
        }
        do { channel = try result.get() } catch { throw TurntableError(.line, what, "\(error)") }
        self.inbox = inbox
        do throws(TurntableError) {
            peerCertificate = try inbox.awaitHandshake(what)
        } catch {
            channel.close(promise: nil)
            throw error
        }
        peerName = CertificateNames(peerCertificate).description
    }

    private static func configuration(_ side: Side, _ identity: HostIdentity) throws(TurntableError) -> TLSConfiguration {
        do {
            let chain = try identity.chain.map { try NIOSSLCertificate(bytes: try derBytes($0), format: .der) }
            let key = try NIOSSLPrivateKey(bytes: Array(identity.key.derRepresentation), format: .der)
            let authorities = try identity.authorities.map { try NIOSSLCertificate(bytes: try derBytes($0), format: .der) }
            var configuration: TLSConfiguration
            switch side {
            case .source:
                configuration = .makeClientConfiguration()
                configuration.certificateChain = chain.map { .certificate($0) }
                configuration.privateKey = .privateKey(key)
                configuration.trustRoots = .certificates(authorities)
                configuration.certificateVerification = .noHostnameVerification
            case .target:
                configuration = .makeServerConfigurationWithMTLS(
                    certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key), trustRoots: .certificates(authorities))
            }
            configuration.minimumTLSVersion = .tlsv13
            return configuration
        } catch {
            throw TurntableError(.usage, "using this host's certificate", "\(error)")
        }
    }

    deinit { channel.close(promise: nil) }

    func name(_ attachment: AttachmentID) { named.update { $0 = attachment } }

    public func send(_ message: ControlMessage) throws(TurntableError) {
        let sent = Monitor<Result<Void, any Error>?>(nil)
        channel.writeAndFlush(ByteBuffer(bytes: message.encoded())).whenComplete { result in sent.update { $0 = result } }
        let what = "sending on the control stream"
        switch sent.wait(atMost: Limits.stallTime, until: { $0 }) {
        case .success?: return
        case .failure(let error)?: throw TurntableError(.line, what, inbox.end ?? "\(error)")
        case nil:
            shutDown()
            throw TurntableError(.line, what, "nothing moved for \(Limits.stallTime)")
        }
    }

    public func receive(within limit: Nanoseconds) throws(TurntableError) -> ControlMessage? {
        try inbox.next(within: limit, from: channel)
    }

    public func shutDown() {
        inbox.shutDown()
        channel.close(promise: nil)
    }
}

/// A certificate as it is on the wire.
func derBytes(_ certificate: Certificate) throws(TurntableError) -> [UInt8] {
    var serializer = DER.Serializer()
    do { try serializer.serialize(certificate) } catch { throw TurntableError(.usage, "using a certificate", "\(error)") }
    return serializer.serializedBytes
}

internal import CTurntableLinux
public import Protection
public import Transport
public import TurntableCore
public import TurntableLinux
package import WireFormat

/// Listens for sources over TCP.
public final class TCPTargetTransport: TargetTransport {
    private let listener: Descriptor
    /// The port that was bound, also when 0 was asked for.
    public let port: UInt16
    private let security: LineSecurity
    /// The names of hosts that may send; everybody with a certificate if there is none.
    private let allowedPeers: [String]
    private let arrived = Monitor(Arrived())
    /// Told of connections that were turned away: who, and why.
    private let turnedAway: @Sendable (String) -> Void

    private struct Arrived {
        /// Connections that have not said yet what they want.
        var greeting = 0
        var greeted: [IncomingConnection] = []
        /// Control streams with the secrets of their attachments, as long as somebody holds them.
        var secrets: [AttachmentID: SecretOfControl] = [:]
    }
    private struct SecretOfControl {
        weak var control: TLSControlChannel?
        var secret: SessionSecret
    }

    /// - Parameter allowedPeers: names that the sources' certificates must be for; empty for all whom an authority vouches for.
    public init(
        listening address: Address, security: LineSecurity, allowedPeers: [String] = [], turnedAway: @escaping @Sendable (String) -> Void
    ) throws(TurntableError) {
        listener = try Socket.listen(on: address) { (socket: borrowing Descriptor) throws(TurntableError) in
            try LineOptions.setReceiveBuffer(socket, ByteCount(LineOptions.receiveBufferBytes))
        }
        port = Socket.localPort(listener)
        self.security = security
        self.allowedPeers = allowedPeers
        self.turnedAway = turnedAway
    }

    public func accept(within limit: Nanoseconds) throws(TurntableError) -> IncomingConnection? {
        let deadline = Clock.now + limit
        while true {
            if let next = arrived.update({ $0.greeted.isEmpty ? nil : $0.greeted.removeFirst() }) { return next }
            guard Clock.now < deadline else { return nil }
            guard let socket = try Socket.accept(listener, within: min(Limits.greetingPollTime, deadline - Clock.now)) else { continue }
            greet(socket)
        }
    }

    /// Reads the preface on a thread of its own, so that a silent stranger holds nobody up.
    private func greet(_ socket: consuming Descriptor) {
        let peer = Socket.peerName(socket)
        let isFull = arrived.update { state in
            state.greeting += 1
            return state.greeting > Limits.greetings
        }
        if isFull {
            arrived.update { $0.greeting -= 1 }
            return turnedAway("a connection from \(peer): \(Limits.greetings) others have not said what they want yet")
        }
        let raw = socket.release()
        _ = WorkerThread("greeting") { [self] in
            do throws(TurntableError) { try identify(Descriptor(owning: raw), peer: peer) } catch {
                turnedAway("a connection from \(peer): \(error)")
            }
            arrived.update { $0.greeting -= 1 }
        }
    }

    private func identify(_ socket: consuming Descriptor, peer: String) throws(TurntableError) {
        let bytes = try Socket.readExactly(socket, Preface.bytes, within: Limits.helloTime, what: "a preface")
        let preface: Preface
        do { preface = try Preface.decode(bytes) } catch { throw TurntableError(.protocol, "a preface", error.description) }
        switch preface.role {
        case .control:
            try configureControl(socket)
            if case .sealed(let identity) = security, Greeting.objection(to: preface, protection: .sealed) == nil {
                try admitSealed(socket, preface, identity, peer)
            } else {
                try admitPlain(socket, preface, peer)
            }
        case .data: try admitStream(socket, preface)
        }
    }

    private func admitPlain(_ socket: consuming Descriptor, _ preface: Preface, _ peer: String) throws(TurntableError) {
        let control = TCPControlChannel(socket: socket, attachment: .random())
        let answer = Greeting.answer(to: preface, Welcome(attachment: control.attachment), protection: security.protection)
        if case .refused(let refusal) = answer {
            try control.send(answer)
            throw TurntableError(.protocol, "a control stream", refusal.reason)
        }
        // Before its data streams can come.
        arrived.update { $0.greeted.append(.control(control, peer: peer)) }
        try control.send(answer)
    }

    private func admitSealed(
        _ socket: consuming Descriptor, _ preface: Preface, _ identity: HostIdentity, _ peer: String
    ) throws(TurntableError) {
        let control = try TLSControlChannel(socket: socket, as: .target, identity)
        let names = CertificateNames(control.peerCertificate)
        guard allowedPeers.isEmpty || allowedPeers.contains(where: names.include) else {
            let why = "\(names) is not among those who may send here"
            try control.send(.refused(Refusal(epoch: Epoch(0), reason: why)))
            control.shutDown()
            throw TurntableError(.refused, "a control stream", why, remedy: "allow it with --allow-peer \(names)")
        }
        let agreement = KeyAgreement()
        let welcome = Welcome(attachment: .random(), keyShare: agreement.share)
        control.name(welcome.attachment)
        try control.send(.welcome(welcome))
        guard case .keys(let keys)? = try control.receive(within: Limits.helloTime) else {
            control.shutDown()
            throw TurntableError(.protocol, "a control stream", "\(names) sent no keys")
        }
        let secret = try agreement.secret(
            keys,
            SessionSecret.Transcript(
                preface: preface, welcome: welcome, sourceCertificate: try derBytes(control.peerCertificate),
                targetCertificate: try derBytes(identity.chain[0])))
        arrived.update { state in
            state.secrets = state.secrets.filter { $0.value.control != nil }
            state.secrets[welcome.attachment] = SecretOfControl(control: control, secret: secret)
            state.greeted.append(.control(control, peer: "\(names) at \(peer)"))
        }
    }

    /// What data streams of the attachment prove themselves with, as long as its control stream is held.
    package func secret(of attachment: AttachmentID) -> SessionSecret? {
        arrived.read { $0.secrets[attachment].flatMap { $0.control == nil ? nil : $0.secret } }
    }

    private func admitStream(_ socket: consuming Descriptor, _ preface: Preface) throws(TurntableError) {
        let what = "data stream \(preface.stream)"
        if let objection = Greeting.objection(to: preface, protection: security.protection) {
            throw TurntableError(.protocol, what, objection)
        }
        var cipher: FrameCipher?
        if case .sealed = security {
            let proof = try Socket.readExactly(socket, SessionSecret.proofBytes, within: Limits.helloTime, what: what)
            // The keys are on their way over the control stream, which another thread reads.
            let secret = arrived.wait(atMost: Limits.helloTime) { $0.secrets[preface.attachment].flatMap { $0.control == nil ? nil : $0.secret } }
            guard let secret, secret.verifies(proof, of: preface) else {
                throw TurntableError(.refused, what, "it does not prove that it belongs to a control stream here")
            }
            cipher = FrameCipher(secret.key(forStream: Int(preface.stream)), for: .opening)
        }
        try Socket.setTimeouts(socket, receive: Limits.pollTime, send: Limits.pollTime)
        let receiver = TCPFrameReceiver(socket: StreamSocket(socket, stream: Int(preface.stream)), cipher: cipher)
        arrived.update { $0.greeted.append(.data(receiver, preface)) }
    }
}

internal import CTurntableLinux
public import Protection
public import Transport
public import TurntableCore
public import TurntableLinux
public import WireFormat

/// Connects to a target over TCP; sockets are sized to the line before their handshake.
public final class TCPSourceTransport: SourceTransport {
    private let address: Address
    private let options: LineOptions
    private let security: LineSecurity
    /// What the target's certificate must be for.
    private let peer: String
    /// For the link elements on the way.
    private let passage: LinkPassage?
    /// Of the attachment that was made last.
    private let secret = Monitor<(attachment: AttachmentID, secret: SessionSecret)?>(nil)
    /// The control stream's handshake tells the round trip that the data streams are sized to.
    private let measuredRoundTrip = Monitor(Nanoseconds.zero)

    /// - Parameters:
    ///   - peer: the name or address that the target's certificate must be for; by default that of `address`.
    ///   - passage: for link elements on the way; only on a protected line.
    public init(address: Address, options: LineOptions, security: LineSecurity, peer: String? = nil, passage: LinkPassage? = nil) {
        self.passage = passage
        self.address = address
        self.options = options
        self.security = security
        self.peer = peer ?? address.host
    }

    /// Where connections begin.
    private var begin: Address { passage?.first ?? address }

    public func connectControl() throws(TurntableError) -> any ControlChannel {
        let socket = try Socket.connect(to: begin, within: Limits.helloTime) { _ in }
        try configureControl(socket)
        if let roundTrip = Socket.roundTrip(socket) { measuredRoundTrip.update { $0 = roundTrip } }
        if options.isControlOnly { _ = try prepareForBulk(socket, what: "the control stream") }
        let preface = Preface(role: .control, protection: security.protection)
        _ = try open(socket, preface, what: "greeting \(address)")
        guard case .sealed(let identity) = security else {
            let control = TCPControlChannel(socket: socket)
            control.welcome(try Greeting.await(on: control))
            return control
        }
        return try shakeHands(socket, preface, identity)
    }

    private func shakeHands(
        _ socket: consuming Descriptor, _ preface: Preface, _ identity: HostIdentity
    ) throws(TurntableError) -> TLSControlChannel {
        let control: TLSControlChannel
        let welcome: Welcome
        do {
            control = try TLSControlChannel(socket: socket, as: .source, identity)
            try checkName(control)
            welcome = try Greeting.await(on: control)
        } catch {
            guard error.kind == .line else { throw error }
            throw TurntableError(
                error.kind, error.what, error.why,
                remedy: "check that the target's `turntable receive` has protection on, and a certificate of an authority that both ends have")
        }
        let transcript = SessionSecret.Transcript(
            preface: preface, welcome: welcome, sourceCertificate: try derBytes(identity.chain[0]),
            targetCertificate: try derBytes(control.peerCertificate))
        let (secret, keys) = try SessionSecret.forTarget(transcript)
        try control.send(.keys(keys))
        self.secret.update { $0 = (welcome.attachment, secret) }
        control.name(welcome.attachment)
        return control
    }

    /// What another transport's data streams of the attachment prove themselves with; nil on a line without protection.
    package func secret(of attachment: AttachmentID) -> SessionSecret? { secret.read { $0?.attachment == attachment ? $0?.secret : nil } }

    /// What the last control stream's handshake took.
    package var roundTrip: Nanoseconds { options.roundTrip ?? measuredRoundTrip.read { $0 } }

    /// A certificate of a common authority is not enough: it must be the target's own.
    private func checkName(_ control: TLSControlChannel) throws(TurntableError) {
        let names = CertificateNames(control.peerCertificate)
        guard !names.include(peer) else { return }
        control.shutDown()
        throw TurntableError(
            .refused, "greeting the target", "\(address) has the certificate of \(names), not of \(peer)",
            remedy: "if that is the host it should go to, say so with --peer \(names)")
    }

    public func connectStream(_ index: Int, attachment: AttachmentID, pages: any PageSource) throws(TurntableError) -> any FrameSender {
        var prepared: (granted: Int64, notes: [String]) = (0, [])
        let socket = try Socket.connect(to: begin, within: Limits.helloTime) { (socket: borrowing Descriptor) throws(TurntableError) in
            prepared = try prepareForBulk(socket, what: "data stream \(index)")
        }
        // A frame's end must not wait for an acknowledgement; within a frame MSG_MORE joins what belongs together.
        try checked(tt_set_no_delay(socket.rawValue, 1), "setting up data stream \(index)")
        // The waits are the sender's own; the kernel wakes it often enough to heed a shutdown.
        try Socket.setTimeouts(socket, receive: Limits.pollTime, send: Limits.pollTime)
        try checked(tt_set_user_timeout(socket.rawValue, UInt32(Limits.stallTime.milliseconds)), "bounding silence on data stream \(index)")
        let preface = Preface(role: .data, protection: security.protection, stream: UInt16(index), attachment: attachment)
        let line = describe(socket, prepared.granted, prepared.notes)
        guard case .sealed = security else {
            _ = try open(socket, preface, what: "opening data stream \(index)")
            return TCPFrameSender(socket: StreamSocket(socket, stream: index), pages: pages, options: options, line: line)
        }
        guard let secret = secret(of: attachment) else {
            throw TurntableError(.line, "opening data stream \(index)", "its control stream was replaced by another")
        }
        let mac = try open(socket, preface, secret.proof(of: preface), what: "opening data stream \(index)")
        return SealedFrameSender(
            socket: StreamSocket(socket, stream: index, isRelayed: passage != nil), pages: pages,
            cipher: FrameCipher(secret.key(forStream: index), for: .sealing), mac: mac, line: line)
    }

    /// Says what the connection is for, first to the link elements on the way. Gives what its frames are marked with, if there are any.
    private func open(
        _ socket: borrowing Descriptor, _ preface: Preface, _ proof: [UInt8] = [], what: String
    ) throws(TurntableError) -> HeaderMAC? {
        guard let passage else {
            try Socket.write(socket, preface.encoded() + proof, what: what)
            return nil
        }
        let (pass, key) = try passage.pass(for: preface, to: address)
        try Socket.write(socket, pass.encoded() + preface.encoded() + proof, what: what)
        try LinkAnswer.awaitPassage(on: socket)
        return HeaderMAC(key)
    }

    /// Sizes a socket to the line. Gives the send buffer that was granted, and what is to be said of it.
    private func prepareForBulk(_ socket: borrowing Descriptor, what: String) throws(TurntableError) -> (granted: Int64, notes: [String]) {
        let wanted = options.sendBufferBytes(roundTrip: roundTrip)
        let congestion = options.congestionControl(roundTrip: roundTrip)
        var notes: [String] = []
        let granted = try checked(tt_set_send_buffer(socket.rawValue, Int32(wanted)), "sizing the send buffer of \(what)")
        if !Socket.setCongestionControl(socket, congestion) {
            guard options.congestionControl == nil else {
                throw TurntableError(
                    .usage, "using the congestion control \(congestion)", "this kernel does not have it",
                    remedy: "see net.ipv4.tcp_available_congestion_control")
            }
            notes.append("no \(congestion) here")
        }
        if let rate = options.pacingRate {
            try checked(tt_set_pacing_rate(socket.rawValue, UInt64(rate.bytesPerSecond)), "pacing \(what)")
        }
        try checked(tt_set_unsent_low_water(socket.rawValue, options.unsentBytes()), "bounding what \(what) holds back")
        if granted < wanted {
            notes.append("send buffer \(ByteCount(Int(granted))) of \(ByteCount(wanted)) wanted: raise net.core.wmem_max or run as root")
        }
        return (granted, notes)
    }

    private func describe(_ socket: borrowing Descriptor, _ buffer: Int64, _ notes: [String]) -> String {
        let congestion = unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 32) { name in
            unsafe name.initialize(repeating: 0)
            _ = unsafe tt_get_congestion_control(socket.rawValue, name.baseAddress!, 31)
            return unsafe String(cString: name.baseAddress!)
        }
        let pacing = options.pacingRate.map { ", paced at \($0)" } ?? ""
        let extra = notes.isEmpty ? "" : " (\(notes.joined(separator: "; ")))"
        return "tcp \(congestion)\(pacing), path MTU \(tt_path_mtu(socket.rawValue)), buffer \(ByteCount(Int(buffer)))\(extra)"
    }
}

/// Options that both ends of a control stream set.
func configureControl(_ socket: borrowing Descriptor) throws(TurntableError) {
    try checked(tt_set_no_delay(socket.rawValue, 1), "setting up the control stream")
    try checked(tt_set_user_timeout(socket.rawValue, UInt32(Limits.stallTime.milliseconds)), "setting up the control stream")
    try Socket.setTimeouts(socket, receive: Limits.stallTime, send: Limits.stallTime)
}

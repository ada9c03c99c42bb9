internal import Protection
internal import TestSupport
internal import Testing
internal import Transport
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What a protected line withstands, from somebody on it and from the wrong ends. That it delivers is the other suites' work.
@Suite(.serialized) struct SealedLineTests {
    /// The bytes of a data connection before its first frame.
    static let openingBytes = Preface.bytes + SessionSecret.proofBytes

    /// Both ends, and a relay between them.
    final class Stage {
        let target: TCPTargetTransport
        let relay: Relay
        private let strangers = Monitor([String]())
        var turnedAway: [String] { strangers.read { $0 } }

        init(
            target security: LineSecurity? = nil, allowedPeers: [String] = [], change: @escaping Relay.Change = { bytes, _, _ in bytes }
        ) throws {
            target = try TCPTargetTransport(
                listening: Address(host: "127.0.0.1", port: 0), security: try security ?? .sealed(Identities.shared.beta),
                allowedPeers: allowedPeers
            ) { [strangers] why in strangers.update { $0.append(why) } }
            relay = try Relay(to: target.port, change: change)
        }
        deinit { relay.close() }

        func source(_ security: LineSecurity? = nil, peer: String = "beta.test") throws -> TCPSourceTransport {
            TCPSourceTransport(
                address: Address(host: "127.0.0.1", port: relay.port), options: LineOptions(),
                security: try security ?? .sealed(Identities.shared.alpha), peer: peer)
        }

        /// The source's error; the target may turn it away or not.
        func refusal(_ source: TCPSourceTransport) throws -> TurntableError {
            let connecting = Background { () throws(TurntableError) in try source.connectControl() }
            if try target.accept(within: .milliseconds(500)) != nil { throw Unexpected("the target took it") }
            guard case .failure(let error)? = connecting.outcome(within: .seconds(12)) else { throw Unexpected("the source went on") }
            return error
        }

        /// One page frame of two pages over a session; what the receiver made of it, and the memory it wrote to.
        func sendOneFrame() throws -> (error: TurntableError?, memory: TestMemory) {
            let pages = try TestMemory(pages: [256]), memory = try TestMemory(pages: [256])
            var generator = SeededGenerator(seed: 9)
            pages.fillAll(with: &generator)
            let line = Wire(source: try source(), target: target)
            let session = try Session(line, streams: 1, pages: pages)
            let draft = FrameDraft(limits: session.senders[0].limits)
            precondition(draft.append(extent(0, 3, 2)))
            try session.senders[0].send(draft)
            let error = failure { () throws(TurntableError) in try session.receivers[0].receive(1, into: TestSink(memory, streams: 1)) }
            #expect(session.sourceControl.peerName == "beta.test" && session.targetControl.peerName == "alpha.test")
            return (error, memory)
        }
    }

    private final class Wire: Line {
        let source: any SourceTransport
        let target: any TargetTransport
        var turnedAway: Int { 0 }
        init(source: any SourceTransport, target: any TargetTransport) {
            self.source = source
            self.target = target
        }
        func stranger() throws -> any RawConnection { throw Unexpected("nobody else is here") }
        func sourceOfDeafTarget() throws -> (any SourceTransport, accept: @Sendable () throws -> any RawConnection) {
            throw Unexpected("nobody else is here")
        }
    }

    // MARK: - On the line

    @Test func nothingOfAPageOrOfTheControlStreamIsOnTheLine() throws {
        let stage = try Stage()
        let (error, memory) = try stage.sendOneFrame()
        #expect(error == nil)
        let page = Array(UnsafeRawBufferPointer(start: memory.address(of: PageIndex(3), in: RegionIndex(0)), count: 64))
        #expect(eventually { stage.relay.recorded.contains { $0.role == .data && $0.bytes.count > 8192 } })
        for recording in stage.relay.recorded {
            #expect(!contains(recording.bytes, page), "a page is readable on the line")
            #expect(recording.role == .data || !contains(recording.bytes, Array("alpha.test".utf8)), "the source's name is readable")
        }
    }

    /// Header (its magic, its length), extent, the head's tag, payload, the payload's tag. No changed frame counts; where the
    /// head was changed not one byte is written.
    @Test(arguments: [0, 16, 31, 32, 39, 40, 48, 56, 71, 72, 4000, 8263, 8264, 8279])
    func aChangedBitEndsTheStream(position: Int) throws {
        let stage = try Stage { bytes, offset, role in
            let at = Self.openingBytes + position - offset
            guard role == .data, bytes.indices.contains(at) else { return bytes }
            var changed = bytes
            changed[at] ^= 4
            return changed
        }
        let (error, memory) = try stage.sendOneFrame()
        #expect([.line, .protocol].contains(try #require(error).kind))
        if position < 64 { #expect(memory.differences(from: try TestMemory(pages: [256])) == []) }
    }

    /// The first 64 bytes of a data connection are in the clear, and proved: role, protection, stream, attachment, proof.
    @Test(arguments: [12, 13, 14, 16, 31, 32, 63])
    func aChangedBeginningIsTurnedAway(position: Int) throws {
        let stage = try Stage { bytes, offset, role in
            guard role == .data, bytes.indices.contains(position - offset) else { return bytes }
            var changed = bytes
            changed[position - offset] ^= 1
            return changed
        }
        let source = try stage.source()
        let session = try Session(Wire(source: source, target: stage.target), streams: 0, pages: TestMemory(pages: [1]))
        _ = try source.connectStream(0, attachment: session.sourceControl.attachment, pages: TestMemory(pages: [1]))
        if try stage.target.accept(within: .milliseconds(300)) != nil { throw Unexpected("the target took the stream") }
    }

    @Test func aRecordedStreamIsNotTakenBySomeoneElse() throws {
        let stage = try Stage()
        #expect(try stage.sendOneFrame().error == nil)
        #expect(eventually { stage.relay.recorded.contains { $0.role == .data && $0.bytes.count > 8192 } })
        let recording = try #require(stage.relay.recorded.first { $0.role == .data })
        // Its attachment has ended: nobody holds its control stream any more.
        let thief = try Socket.connect(to: Address(host: "127.0.0.1", port: stage.target.port), within: .seconds(5)) {
            (_: borrowing Descriptor) throws(TurntableError) in
        }
        try Socket.write(thief, recording.bytes, what: "a test")
        if try stage.target.accept(within: .milliseconds(500)) != nil { throw Unexpected("the target took the stream") }
    }

    @Test(arguments: [LineProtection.none, .sealed])
    func nobodyTalksTheEndsOutOfProtection(asked: LineProtection) throws {
        // Somebody on the line changes what the control stream's preface asks for.
        let stage = try Stage { bytes, offset, role in
            guard role == .control, bytes.indices.contains(13 - offset) else { return bytes }
            var changed = bytes
            changed[13 - offset] = asked == .none ? 0 : 1
            return changed
        }
        if asked == .none {
            #expect(try stage.refusal(stage.source()).kind == .line)
        } else {
            // A source without protection, made to look as if it had some.
            #expect([.line, .protocol].contains(try stage.refusal(stage.source(LineSecurity.none)).kind))
        }
    }

    // MARK: - The wrong ends

    @Test func aSourceWithoutProtectionIsRefusedWithTheReason() throws {
        let stage = try Stage()
        let error = try stage.refusal(stage.source(LineSecurity.none))
        #expect(error.kind == .refused && error.why.contains("without protection"), "\(error)")
    }

    @Test func aTargetWithoutProtectionGetsNothing() throws {
        let stage = try Stage(target: LineSecurity.none)
        let error = try stage.refusal(stage.source())
        #expect(error.kind == .line && error.remedy.contains("protection"), "\(error)")
        // A preface, and a TLS greeting that nobody answered.
        #expect(stage.relay.recorded.allSatisfy { $0.bytes.count < 4096 })
    }

    @Test func aHostOfAnotherAuthorityIsNeitherSourceNorTarget() throws {
        let stranger = LineSecurity.sealed(try Identities.shared.stranger)
        #expect(try Stage().refusal(Stage().source(stranger)).kind == .line)
        let stage = try Stage(target: stranger)
        #expect(try stage.refusal(stage.source(peer: "beta.test.stranger")).kind == .line)
    }

    @Test func aHostOfTheSameAuthorityIsNotTakenForTheTarget() throws {
        let stage = try Stage(target: .sealed(try Identities.shared.alpha))
        let error = try stage.refusal(stage.source())
        #expect(error.kind == .refused && error.why.contains("alpha.test"), "\(error)")
    }

    @Test func onlyAllowedPeersSend() throws {
        let stage = try Stage(allowedPeers: ["gamma.test"])
        let error = try stage.refusal(stage.source())
        #expect(error.kind == .refused && error.why.contains("alpha.test"), "\(error)")
        #expect(try Stage(allowedPeers: ["gamma.test", "alpha.test"]).sendOneFrame().error == nil)
    }

    @Test func aBlockedSenderHeedsItsEnd() throws {
        let stage = try Stage()
        let memory = try TestMemory(pages: [256])
        let session = try Session(Wire(source: try stage.source(), target: stage.target), streams: 1, pages: memory)
        let sent = Monitor(0)
        let sending = Background { () throws(TurntableError) in
            let draft = FrameDraft(limits: session.senders[0].limits)
            while true {
                precondition(draft.append(extent(0, 0, 256)))
                try session.senders[0].send(draft)
                draft.startNext()
                sent.update { $0 += 1 }
            }
        }
        _ = waitUntilStill(sent)
        session.senders[0].shutDown()
        guard case .failure(let error)? = sending.outcome(within: .seconds(5)) else { throw Unexpected("the sender is still blocked") }
        #expect([.cancelled, .line].contains(error.kind), "\(error)")
    }

    private func contains(_ bytes: [UInt8], _ pattern: [UInt8]) -> Bool {
        guard bytes.count >= pattern.count else { return false }
        return (0...(bytes.count - pattern.count)).contains { start in
            bytes[start] == pattern[0] && bytes[start..<start + pattern.count].elementsEqual(pattern)
        }
    }
}

internal import Protection
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// One connection through an element, before it goes on. Its thread's alone.
struct LinkConnection: ~Copyable {
    let source: Descriptor
    let peer: String
    let element: LinkElement

    consuming func run() {
        let relay: LinkRelay
        do throws(TurntableError) {
            let (pass, greeting) = try readPass()
            let passage = try element.gate.admit(pass)
            let next = try connect(greeting, passage)
            try Socket.write(source, LinkAnswer(.passed).encoded(), what: "answering \(peer)")
            relay = LinkRelay(from: try source.duplicate(), to: next, pass.preface, passage, peer: peer, at: element)
        } catch {
            element.report(.refused(peer: peer, error))
            return element.answer(source, error)
        }
        relay.run()
    }

    /// The pass, with all that came.
    private func readPass() throws(TurntableError) -> (LinkPass, [UInt8]) {
        try Socket.setTimeouts(source, receive: Limits.pollTime, send: Limits.stallTime)
        let what = "a pass"
        func read(_ count: Int) throws(TurntableError) -> [UInt8] { try Socket.readExactly(source, count, within: Limits.helloTime, what: what) }
        func decoded<Value>(_ body: () throws(WireError) -> Value) throws(TurntableError) -> Value {
            do { return try body() } catch {
                throw TurntableError(.protocol, what, error.description, remedy: "send with --token, and with --via for each element on the way")
            }
        }
        let head = try read(LinkPass.headBytes)
        let body = try read(decoded { () throws(WireError) in try LinkPass.bodyBytes(head) })
        let pass = try decoded { () throws(WireError) in try LinkPass(decodingBody: body) }
        // Both are signed: what follows is what the pass is for.
        let preface = try read(Preface.bytes)
        guard preface == pass.preface.encoded() else { throw TurntableError(.protocol, what, "the preface that follows is another than it is for") }
        guard pass.preface.protection == .sealed else {
            throw TurntableError(.protocol, what, "it is for a line without protection", remedy: "send with protection")
        }
        return (pass, head + body + preface)
    }

    /// Goes on to the target, or to the next element, which says whether it goes on from there.
    private func connect(_ greeting: [UInt8], _ passage: Passage) throws(TurntableError) -> Descriptor {
        let next = try Socket.connect(to: passage.next, within: Limits.helloTime) { _ in }
        try LineOptions.prepareRelay(next)
        try Socket.write(next, passage.isNextElement ? greeting : Array(greeting.suffix(Preface.bytes)), what: "greeting \(passage.next)")
        if passage.isNextElement { try LinkAnswer.awaitPassage(on: next) }
        try Socket.setTimeouts(next, receive: Limits.pollTime, send: Limits.pollTime)
        try Socket.setTimeouts(source, receive: Limits.pollTime, send: Limits.pollTime)
        return next
    }
}

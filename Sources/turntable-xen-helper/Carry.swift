// PV domains: their page tables name the host's own frames, so their memory is Xen's own helper's work at both ends, and its libraries'.
// It runs as a child of this process, and what it and libxl say to each other passes here (XenAdapter/MessageRelay.swift); the stream that it
// writes or reads is a socket to this process, which carries it to the other end.
//
// On our line libxl at the target goes on to the domain's devices as soon as Xen's helper there has given the rings of xenstore and console
// their memory, and the guest is suspended when those devices are made.

internal import CTurntableXen
internal import Glibc
internal import Protection
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat
internal import XenAdapter
internal import XenStream

/// Xen's own helper at work.
private struct StockHelper {
    private let process: pid_t
    /// The other end of its stream, and of its standard input and output.
    let stream: Int32
    let messages: Int32

    init(_ invocation: Invocation, _ settings: Settings) throws(TurntableError) {
        let what = "starting \(settings.stockHelper)"
        let remedy = "say where it is with TURNTABLE_STOCK_HELPER"
        guard unsafe access(settings.stockHelper, X_OK) == 0 else { throw TurntableError(.unsupported, what, errorText(errno), remedy: remedy) }
        let (ourStream, itsStream) = try Socket.pair()
        let (ourMessages, itsMessages) = try Socket.pair()
        var words = unsafe Helper.words(invocation, settings)
        let started = unsafe words.withUnsafeMutableBufferPointer {
            unsafe tt_xen_start(settings.stockHelper, $0.baseAddress!, Int32(Invocation.streamWord), itsStream, itsMessages)
        }
        close(itsStream)
        close(itsMessages)
        process = try checked(started, what, remedy: remedy)
        (stream, messages) = (ourStream, ourMessages)
    }

    /// Ends this process with it, when it has ended; as a failure if `failure` is one.
    /// - Parameter afterwards: what is left to do when both have ended well.
    func end(_ failure: TurntableError?, afterwards: () -> Void = {}) -> Never {
        let code = tt_xen_wait(process)
        if let failure { Helper.say("\(failure)") }
        if code == 0, failure == nil { afterwards() }
        exit(code != 0 ? code : failure?.kind.exitCode ?? 0)
    }
}

extension Save {
    /// Carries what Xen's own helper saves to the helper that was met, and the disks beside it.
    func carry(
        _ met: Meeting.Met, _ domain: XenDomain, _ chosen: SourceDisks, _ libxl: LibxlCallbacks, _ security: LineSecurity
    ) throws(TurntableError) -> Never {
        let front = chosen.isEmpty ? nil : Front(
            descriptor: try checked(tt_xen_split(), "starting what sends"), stream: invocation.streamDescriptor, ending: chosen.ending)
        let transport = TCPSourceTransport(address: met.address, options: line, security: security, peer: settings.peer)
        let rings = try XenRings(ofPV: domain)
        let disks = chosen.isEmpty ? nil : PVSourceDisks(of: try domain.name(), try chosen.open(for: domain.name(), note: Helper.say))
        let saver = try StockHelper(invocation, settings)
        let source = StreamSource(
            saver: Descriptor(owning: saver.stream), transport: transport, streams: settings.streams, token: met.token,
            rings: rings, afterRings: { disks?.awaitCopy() })
        let relay = MessageRelay(
            helper: Descriptor(owning: saver.messages), libxl: libxl,
            maySuspend: {
                if !source.awaitReadiness(), !source.isOver {
                    Helper.say("the target is not ready after \(Limits.readinessTime): the domain moves all the same, and may stand still longer")
                }
                return !source.isOver && disks?.awaitPause() ?? true
            }, wasAsked: { disks?.tell(isSuspended: $0) })
        _ = WorkerThread("tt-messages") { relay.run() }
        Watch.start(invocation.stream) { source.interrupt("the target's xl has left") }
        let copy = disks.map { DiskCopy($0, self, met, security, beside: source) }
        var failure: TurntableError?
        do throws(TurntableError) {
            let figures = try source.run()
            Helper.say("\(figures.pages) pages went, \(figures.zeroPages) of them as zeroes, on \(settings.streams) streams")
        } catch {
            failure = error
            copy?.cancel()
        }
        // The stream's failure has the reason of the disks', if that was first.
        let ofDisks = copy?.awaitCompletion()
        failure = failure ?? ofDisks
        saver.end(failure) {
            // The target has it: libxl need not wait until the snapshots are removed.
            front?.letGo()
            copy?.end()
        }
    }
}

extension Restore {
    /// Gives Xen's own helper what the one at the source saves.
    func carry(_ heard: Meeting.Heard) throws(TurntableError) -> Never {
        guard let readiness = heard.isLast ? settings.readinessFile : nil else { try carryInOrder(heard) }
        // libxl waits for the one process, and the other may go on when that has ended.
        let front = Front(descriptor: try checked(tt_xen_split(), "starting what receives"), stream: invocation.streamDescriptor)
        let security = try settings.security()
        let transport = try listen(security) { Helper.say("turned away \($0)") }
        let disks = try DiskReception(self, readiness, security)
        try heard.answer(transport.port, disks: disks.port)
        let restorer = try StockHelper(invocation, settings)
        let relay = MessageRelay(
            helper: Descriptor(owning: restorer.messages), libxl: LibxlCallbacks(understood: invocation.messages), isEarly: true, note: Helper.say)
        _ = WorkerThread("tt-messages") { relay.run() }
        let target = StreamTarget(
            restorer: Descriptor(owning: restorer.stream), token: heard.token,
            early: StreamTarget.Early(
                begin: { [invocation] (rings) throws(TurntableError) in
                    let its = try rings.establish(onPV: try XenDomain(invocation.domain), invocation.services)
                    try relay.completeEarly(its) { front.letGo(keepsStream: true) }
                },
                isReady: { XenTargetHost.isReady(readiness) }, awaitRestorer: { () throws(TurntableError) in try relay.awaitCompletion() }))
        Watch.start(invocation.stream) { target.interrupt("the source's xl has left") }
        var failure: TurntableError?
        do throws(TurntableError) { try target.run(transport) } catch { failure = error }
        disks.end(isWhole: failure == nil)
        target.end()
        restorer.end(failure)
    }

    /// Where libxl goes on when all is there.
    private func carryInOrder(_ heard: Meeting.Heard) throws(TurntableError) -> Never {
        let transport = try listen(try settings.security()) { Helper.say("turned away \($0)") }
        try heard.answer(transport.port)
        let restorer = try StockHelper(invocation, settings)
        let relay = MessageRelay(helper: Descriptor(owning: restorer.messages), libxl: LibxlCallbacks(understood: invocation.messages))
        _ = WorkerThread("tt-messages") { relay.run() }
        let target = StreamTarget(restorer: Descriptor(owning: restorer.stream), token: heard.token)
        Watch.start(invocation.stream) { target.interrupt("the source's xl has left") }
        do throws(TurntableError) { try target.run(transport) } catch { restorer.end(error) }
        target.end()
        restorer.end(nil)
    }
}

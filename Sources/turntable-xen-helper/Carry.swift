// PV domains: their page tables name the host's own frames, so their memory is Xen's own helper's work at both ends, and its libraries'.
// It runs as a child of this process, and what it and libxl say to each other passes here (XenAdapter/MessageRelay.swift); the stream that it
// writes or reads is a socket to this process, which carries it to the other end.
//
// On our line libxl at the target goes on to the domain's devices as soon as Xen's helper there has given the rings of xenstore and console
// their memory, and the guest is suspended when those devices are made.

internal import CTurntableXen
internal import Glibc
internal import MigrationEngine
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
        if code == 0, failure == nil { afterwards() }
        exit(failure?.kind.exitCode ?? code)
    }
}

extension Save {
    /// Carries what Xen's own helper saves to the helper that was met, and what is the engine's beside it.
    func carry(
        _ met: Meeting.Met, _ domain: XenDomain, _ disks: SourceDisks, _ libxl: LibxlCallbacks, _ security: LineSecurity
    ) throws(TurntableError) -> Never {
        let hasEngine = settings.machine != nil || !disks.isEmpty
        let front = hasEngine
            ? Front(descriptor: try checked(tt_xen_split(), "starting what sends"), stream: invocation.streamDescriptor, ending: disks.ending) : nil
        // Not by libxl, which Xen's own helper speaks to.
        let reports = Reports(path: Settings.reports) { level, text in if level != .detail { Helper.say(text) } }
        do throws(TurntableError) {
            let name = try domain.name()
            let letRunOn: @Sendable () throws(TurntableError) -> Void = { () throws(TurntableError) in try domain.resume() }
            let machine = !hasEngine ? nil : PVSourceMachine(
                settings.machine ?? name, try disks.open(for: name) { reports.note($0) }, letRunOn: settings.machine == nil ? nil : letRunOn)
            try carry(met, domain, machine, libxl, security, front, reports)
        } catch {
            reports.failed(error)
            exit(error.kind.exitCode)
        }
    }

    private func carry(
        _ met: Meeting.Met, _ domain: XenDomain, _ machine: PVSourceMachine?, _ libxl: LibxlCallbacks, _ security: LineSecurity, _ front: Front?,
        _ reports: Reports
    ) throws(TurntableError) -> Never {
        guard settings.machine == nil || settings.verification == .off else {
            throw TurntableError(
                .unsupported, "comparing the memory of domain \(domain.number)", "that of a PV domain is carried by Xen's own helpers",
                remedy: "move it without --verify")
        }
        let transport = TCPSourceTransport(address: met.address, options: line, security: security, peer: settings.peer)
        let saver = try StockHelper(invocation, settings)
        let source = StreamSource(
            saver: Descriptor(owning: saver.stream), transport: transport, streams: settings.streams, token: met.token,
            rings: try XenRings(ofPV: domain), afterRings: { machine?.awaitCopy() }, hasLeft: { machine?.memoryHasLeft() })
        let memory = CarriedMemory(of: try domain.pageCount(), by: source, reports)
        let relay = MessageRelay(
            helper: Descriptor(owning: saver.messages), libxl: libxl,
            maySuspend: {
                if !source.awaitReadiness(), !source.isOver {
                    reports.note("the target is not ready after \(Limits.readinessTime): the domain moves all the same, and may stand still longer")
                }
                return !source.isOver && machine?.awaitPause() ?? true
            }, wasAsked: { machine?.tell(isSuspended: $0) }, progress: memory.tell)
        _ = WorkerThread("tt-messages") { relay.run() }
        Watch.start(invocation.stream) { source.interrupt("the target has left") }
        let engine = try machine.map { (machine) throws(TurntableError) in
            try EngineBeside(machine, self, met, security, beside: source) { (event: MigrationEvent) in
                // A round of nothing.
                if case .round = event, machine.disks.isEmpty { return }
                reports.pass(event)
            }
        }
        var figures = StreamFigures()
        var failure: TurntableError?
        do throws(TurntableError) {
            figures = try source.run()
            reports.note("\(figures.pages) pages went, \(figures.zeroPages) of them as zeroes, on \(settings.streams) streams")
        } catch {
            failure = error
            engine?.cancel()
        }
        // Each ends the other: which was first is the reason.
        if let its = engine?.awaitCompletion(), failure == nil || its.kind != .cancelled { failure = its }
        if let failure { reports.failed(failure) }
        saver.end(failure) {
            // The target has it: libxl need not wait until the snapshots are removed.
            front?.letGo()
            if let report = engine?.end() { reports.completed(memory.added(figures, to: report)) }
        }
    }
}

extension Restore {
    /// Gives Xen's own helper what the one at the source saves.
    func carry(_ heard: Meeting.Heard) throws(TurntableError) -> Never {
        guard let readiness = heard.isLast ? settings.readinessFile : nil else { try carryInOrder(heard) }
        let domain = try XenDomain(invocation.domain)
        // libxl waits for the one process, and the other may go on when that has ended.
        let front = Front(descriptor: try checked(tt_xen_split(), "starting what receives"), stream: invocation.streamDescriptor)
        let owner = try settings.owner.map { (path) throws(TurntableError) in try DomainOwner(path: path, domain.number) }
        let areReady: @Sendable () -> Bool = { owner?.hasDevices ?? XenTargetHost.isReady(readiness) }
        let security = try settings.security()
        let transport = try listen(security) { Helper.say("turned away \($0)") }
        let beside = try ReceptionBeside(self, domain, security, owner: owner, areReady: areReady)
        try heard.answer(transport.port, disks: beside.port)
        let restorer = try StockHelper(invocation, settings)
        let relay = MessageRelay(
            helper: Descriptor(owning: restorer.messages), libxl: LibxlCallbacks(understood: invocation.messages), isEarly: true, note: Helper.say)
        _ = WorkerThread("tt-messages") { relay.run() }
        let target = StreamTarget(
            restorer: Descriptor(owning: restorer.stream), token: heard.token,
            early: StreamTarget.Early(
                begin: { [invocation] (rings) throws(TurntableError) in
                    try relay.completeEarly(try rings.establish(onPV: domain, invocation.services)) { front.letGo(keepsStream: true) }
                    owner?.listen()
                },
                isReady: areReady, awaitRestorer: { () throws(TurntableError) in try relay.awaitCompletion() }))
        Watch.start(invocation.stream) { target.interrupt("the source has left") }
        if let owner {
            Watch.start(LibxlStream(descriptor: owner.descriptor)) {
                target.interrupt("what had libxl make the domain has ended")
                beside.interrupt()
            }
        }
        var failure: TurntableError?
        do throws(TurntableError) { try target.run(transport) } catch {
            failure = error
            Helper.say("\(error)")
        }
        beside.end(isWhole: failure == nil)
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
        Watch.start(invocation.stream) { target.interrupt("the source has left") }
        do throws(TurntableError) { try target.run(transport) } catch {
            Helper.say("\(error)")
            restorer.end(error)
        }
        target.end()
        restorer.end(nil)
    }
}

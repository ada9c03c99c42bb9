// PV domains: their page tables name the host's own frames, so their memory is Xen's own helper's work at both ends, and its libraries'.
// It runs as a child of this process and speaks with libxl itself; the stream that it writes or reads is a socket to this process, which
// carries it to the other end.

internal import CTurntableXen
internal import Glibc
internal import Protection
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
internal import XenAdapter
internal import XenStream

/// Xen's own helper at work.
private struct StockHelper {
    private let process: pid_t
    /// The other end of its stream.
    let stream: Int32

    init(_ invocation: Invocation, _ settings: Settings) throws(TurntableError) {
        let what = "starting \(settings.stockHelper)"
        let remedy = "say where it is with TURNTABLE_STOCK_HELPER"
        guard unsafe access(settings.stockHelper, X_OK) == 0 else { throw TurntableError(.unsupported, what, errorText(errno), remedy: remedy) }
        let (ours, theirs) = try Socket.pair()
        var words = unsafe Helper.words(invocation, settings)
        let started = unsafe words.withUnsafeMutableBufferPointer {
            unsafe tt_xen_start(settings.stockHelper, $0.baseAddress!, Int32(Invocation.streamWord), theirs)
        }
        close(theirs)
        process = try checked(started, what, remedy: remedy)
        stream = ours
    }

    /// Ends this process with it, when it has ended; as a failure if `failure` is one.
    func end(_ failure: TurntableError?) -> Never {
        let code = tt_xen_wait(process)
        if let failure { Helper.say("\(failure)") }
        exit(code != 0 ? code : failure?.kind.exitCode ?? 0)
    }
}

extension Save {
    /// Carries what Xen's own helper saves to the helper that was met.
    func carry(_ met: Meeting.Met, _ security: LineSecurity) throws(TurntableError) -> Never {
        let transport = TCPSourceTransport(address: met.address, options: line, security: security, peer: settings.peer)
        let saver = try StockHelper(invocation, settings)
        let source = StreamSource(saver: Descriptor(owning: saver.stream), transport: transport, streams: settings.streams, token: met.token)
        Watch.start(invocation.stream) { source.interrupt("the target's xl has left") }
        do throws(TurntableError) {
            let figures = try source.run()
            Helper.say("\(figures.pages) pages went, \(figures.zeroPages) of them as zeroes, on \(settings.streams) streams")
        } catch {
            saver.end(error)
        }
        saver.end(nil)
    }
}

extension Restore {
    /// Gives Xen's own helper what the one at the source saves.
    func carry(_ heard: Meeting.Heard) throws(TurntableError) -> Never {
        let transport = try listen(try settings.security()) { Helper.say("turned away \($0)") }
        try heard.answer(transport.port)
        let restorer = try StockHelper(invocation, settings)
        let target = StreamTarget(restorer: Descriptor(owning: restorer.stream), token: heard.token)
        Watch.start(invocation.stream) { target.interrupt("the source's xl has left") }
        do throws(TurntableError) { try target.run(transport) } catch { restorer.end(error) }
        target.end()
        restorer.end(nil)
    }
}

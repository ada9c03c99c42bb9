// The end that runs programs for other hosts (WireFormat/ProgramMessage.swift), each on a control stream of its own.

public import Transport
public import TurntableCore
internal import TurntableLinux
public import WireFormat

public final class ProgramServer: Sendable {
    /// What is started for the words that were asked for; an error is the reason of a refusal.
    public typealias Policy = @Sendable (_ words: [String]) throws(TurntableError) -> [String]

    /// What became of a machine that came here; an error is the reason of a refusal.
    public typealias Resolver = @Sendable (Query) throws(TurntableError) -> Resolution

    private let transport: any TargetTransport
    private let policy: Policy
    private let hasHelper: @Sendable ([String]) -> Bool
    private let resolve: Resolver
    private let note: @Sendable (String) -> Void
    private let running = Monitor(0)
    private let isInterrupted = Monitor(false)

    /// - Parameters:
    ///   - hasHelper: whether what is asked for in these words starts turntable-xen-helper here (EarlyEnd.swift).
    ///   - note: told of what begins, ends, and is turned away.
    public init(
        _ transport: any TargetTransport, policy: @escaping Policy, hasHelper: @escaping @Sendable (_ words: [String]) -> Bool = { _ in true },
        resolve: @escaping Resolver = ProgramServer.knowsNothing, note: @escaping @Sendable (String) -> Void
    ) {
        (self.transport, self.policy, self.hasHelper, self.resolve, self.note) = (transport, policy, hasHelper, resolve, note)
    }

    /// Of a server whose programs keep no journals.
    public static let knowsNothing: Resolver = { (_) throws(TurntableError) in
        throw TurntableError(.refused, "a query", "nothing is known here of machines that came")
    }

    /// Nobody is taken any more.
    public func interrupt() { isInterrupted.update { $0 = true } }

    /// Serves whoever comes, until it is interrupted.
    public func serve() throws(TurntableError) {
        while !isInterrupted.read({ $0 }) {
            switch try transport.accept(within: Limits.pollTime) {
            case .control(let control, let peer)?:
                _ = WorkerThread("program") { [self] in
                    do throws(TurntableError) { try serve(control, peer) } catch {
                        try? control.send(.refused(Refusal(epoch: Epoch(0), reason: "\(error)")))
                        note("turned away \(peer): \(error)")
                    }
                    control.shutDown()
                }
            case .data(let receiver, _)?: receiver.shutDown()
            case nil: continue
            }
        }
    }

    private func serve(_ control: any ControlChannel, _ peer: String) throws(TurntableError) {
        switch try control.receive(within: Limits.helloTime) {
        case .program(.start(let words))?: note("what \(peer) asked for ended with \(try run(words, control, peer))")
        case .query(let query)?: try control.send(.resolution(try resolve(query)))
        default: throw TurntableError(.protocol, "a control stream", "it named no program")
        }
    }

    private func run(_ words: [String], _ control: any ControlChannel, _ peer: String) throws(TurntableError) -> Int32 {
        let count = running.update { count in
            count += 1
            return count
        }
        defer { running.update { $0 -= 1 } }
        guard count <= Limits.programs else {
            throw TurntableError(.refused, "running a program", "\(Limits.programs) run already", remedy: "try again later")
        }
        let program = try RunningProgram(try policy(words), control, hasHelper: hasHelper(words))
        note("\(peer) asked for `\(words.joined(separator: " "))`")
        return program.serve()
    }
}

/// A program that was started for another host, its standard streams on the line.
private final class RunningProgram: Sendable {
    private let control: any ControlChannel
    private let child: ChildProcess
    /// Our ends of its standard input and output, and of its errors.
    private let channel: Descriptor
    private let errors: Descriptor
    private let readers: [WorkerThread]
    private let pulse: Pulse
    private let hasHelper: Bool

    init(_ command: [String], _ control: any ControlChannel, hasHelper: Bool) throws(TurntableError) {
        (self.control, self.hasHelper) = (control, hasHelper)
        // Sockets, not pipes: an end can be made at the one end whoever still holds the other.
        let (ours, theirs) = try Socket.pair()
        channel = Descriptor(owning: ours)
        let itsChannel = Descriptor(owning: theirs)
        let (ourErrors, theirErrors) = try Socket.pair()
        errors = Descriptor(owning: ourErrors)
        let itsErrors = Descriptor(owning: theirErrors)
        let copies = (output: try channel.duplicate().release(), errors: try errors.duplicate().release())
        let readiness = try Readiness()
        child = try ChildProcess(
            command, environment: [EarlyEnd.setting: readiness.path], channel: itsChannel.rawValue, errors: itsErrors.rawValue)
        readers = [
            WorkerThread("output") { pass(Descriptor(owning: copies.output), as: .output, over: control) { readiness.hear($0) } },
            WorkerThread("errors") { pass(Descriptor(owning: copies.errors), as: .errors, over: control) },
        ]
        pulse = Pulse(control)
    }

    /// Returns its exit code when it has ended and the other end knows, or is gone.
    func serve() -> Int32 {
        let feeder = WorkerThread("input") { [self] in feed() }
        let code = child.wait()
        // What it said is read to its end; a process that it left behind says nothing to the other host.
        Socket.shutDown(channel)
        Socket.shutDown(errors)
        for reader in readers { reader.join() }
        try? control.send(.program(.ended(code: code)))
        // The other end leaves when it has heard that.
        feeder.join()
        pulse.end()
        return code
    }

    /// Gives it what the other host has for it, until that leaves: then it sees the end of its input, and of its output.
    private func feed() {
        var stream = EarlyEnd(isUsed: hasHelper)
        do throws(TurntableError) {
            while case .program(.bytes(.input, let bytes)) = try pulse.next() {
                if bytes.isEmpty { Socket.endWriting(channel) }
                let passed = try stream.pass(bytes)
                // A program that reads no more is about to end.
                try? Socket.write(channel, passed, what: "feeding a program")
            }
        } catch {
            try? control.send(.refused(Refusal(epoch: Epoch(0), reason: "\(error)")))
        }
        Socket.shutDown(channel)
        control.shutDown()
    }
}

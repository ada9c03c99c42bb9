public import TurntableCore
internal import TurntableLinux
public import WireFormat

/// Says now and then, from a thread of its own, that this end is there; whatever the other says, it is there too. What an end
/// does with what it hears may take its time: xl stops reading for seconds.
public final class Pulse: Sendable {
    private let control: any ControlChannel
    private let hasEnded = Monitor(false)

    public init(_ control: any ControlChannel) {
        self.control = control
        _ = WorkerThread("pulse") { [control, hasEnded] in
            while hasEnded.wait(atMost: Limits.heartbeatTime, until: { $0 ? true : nil }) == nil {
                guard (try? control.send(.ping(0))) != nil else { return }
            }
        }
    }

    public func end() { hasEnded.update { $0 = true } }

    /// The next message that says something.
    public func next() throws(TurntableError) -> ControlMessage {
        var lastHeard = Clock.now
        while true {
            guard let message = try control.receive(within: Limits.pollTime) else {
                let silence = Clock.now - lastHeard
                guard silence <= Limits.stallTime else { throw TurntableError(.line, "hearing from the other host", "silent for \(silence)") }
                continue
            }
            lastHeard = Clock.now
            if case .ping = message { continue }
            return message
        }
    }
}

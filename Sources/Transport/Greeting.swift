// How a control stream begins, whatever carries it: the source's preface, the target's Welcome or Refused.

public import TurntableCore
public import WireFormat

public enum Greeting {
    /// The target's answer to a control preface. A `.refused` is the last word on that connection.
    public static func answer(to preface: Preface, attachment: AttachmentID) -> ControlMessage {
        do throws(WireError) {
            return .welcome(Welcome(version: try preface.commonVersion(), attachment: attachment))
        } catch {
            return .refused(Refusal(epoch: Epoch(0), reason: "the greeting: \(error)"))
        }
    }

    /// What the source makes of the answer; nil is silence for ``Limits/helloTime``.
    public static func check(_ answer: ControlMessage?) throws(TurntableError) -> Welcome {
        let remedy = "check that `turntable receive` listens there"
        switch answer {
        case .welcome(let welcome) where welcome.version == Preface.version: return welcome
        case .refused(let refusal): throw TurntableError(.refused, "the target", refusal.reason)
        case nil: throw TurntableError(.line, "greeting the target", "it said nothing for \(Limits.helloTime)", remedy: remedy)
        default: throw TurntableError(.protocol, "greeting the target", "it did not answer with a welcome", remedy: remedy)
        }
    }

    /// Reads the target's answer from a fresh control stream.
    public static func await(on control: any ControlChannel) throws(TurntableError) -> Welcome {
        let answer: ControlMessage?
        do { answer = try control.receive(within: Limits.helloTime) } catch {
            throw TurntableError(
                error.kind, "greeting the target", "\(error.what): \(error.why)", remedy: "check that `turntable receive` listens there")
        }
        return try check(answer)
    }
}

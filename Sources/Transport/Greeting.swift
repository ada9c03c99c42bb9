// How a control stream begins, whatever carries it: the source's preface, the target's Welcome or Refused.

public import TurntableCore
public import WireFormat

public enum Greeting {
    /// The target's answer to a control preface. A `.refused` is the last word on that connection.
    /// - Parameter protection: how this target wants its lines.
    public static func answer(to preface: Preface, _ welcome: Welcome, protection: LineProtection) -> ControlMessage {
        if let reason = objection(to: preface, protection: protection) {
            return .refused(Refusal(epoch: Epoch(0), reason: "the greeting: \(reason)"))
        }
        return .welcome(welcome)
    }

    /// Why a target does not take a connection with this preface; nil if it does.
    public static func objection(to preface: Preface, protection: LineProtection) -> String? {
        do throws(WireError) { _ = try preface.commonVersion() } catch { return error.description }
        switch (preface.protection, protection) {
        case (.none, .sealed): return "the source asks for a line without protection; this target takes none"
        case (.sealed, .none): return "this target has its lines without protection, and the source did not ask for that"
        case (.none, .none), (.sealed, .sealed): return nil
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

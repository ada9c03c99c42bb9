// The asking end of a program that another host runs (WireFormat/ProgramMessage.swift): what ssh does for `xl migrate`, over our
// line. xl starts it with a pipe as standard input and one as standard output, and says in words what the other host is to run.

public import Transport
public import TurntableCore
public import TurntableLinux
internal import WireFormat

public enum RemoteProgram {
    /// Has the other end run a program whose standard streams are these, and gives its exit code.
    /// - Parameters:
    ///   - input: read until it ends or the program has; then it is no longer used here.
    ///   - output, errors: descriptors that what it says is written to.
    public static func run(
        _ words: [String], over control: any ControlChannel, input: consuming Descriptor, output: Int32, errors: Int32
    ) throws(TurntableError) -> Int32 {
        try control.send(.program(.start(words)))
        let raw = input.release()
        _ = WorkerThread("input") { pass(Descriptor(owning: raw), as: .input, over: control) }
        let pulse = Pulse(control)
        defer { pulse.end() }
        while true {
            switch try pulse.next() {
            case .program(.bytes(.output, let bytes)): try writeAll(bytes, to: output, what: "passing on what the program said")
            case .program(.bytes(.errors, let bytes)): try writeAll(bytes, to: errors, what: "passing on what the program complained of")
            case .program(.ended(let code)): return code
            case .refused(let refusal): throw TurntableError(.refused, "running \(words.joined(separator: " ")) there", refusal.reason)
            default: throw TurntableError(.protocol, "the other host", "it sent a message that is not for now")
            }
        }
    }
}

/// Sends what comes from a descriptor, and its end, which `heard` gets too. If the line is gone, whoever receives on it hears why.
func pass(
    _ source: consuming Descriptor, as stream: ProgramMessage.StandardStream, over control: any ControlChannel, heard: ([UInt8]) -> Void = { _ in }
) {
    while true {
        let bytes = (try? Socket.read(source, atMost: Limits.programBytes, what: "reading for the other host")) ?? []
        heard(bytes)
        guard (try? control.send(.program(.bytes(stream, bytes)))) != nil, !bytes.isEmpty else { return }
    }
}

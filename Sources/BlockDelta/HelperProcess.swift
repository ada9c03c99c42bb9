public import TurntableCore
internal import TurntableLinux

/// The process that runs LVM's library, which is not for threads and locks all memory of the process that it is in.
///
/// A request is a line "NUMBER VERB WORD…"; the answer is lines "NUMBER = TEXT", then "NUMBER ok" or "NUMBER failed TEXT". One
/// at a time. A helper that dies, hangs or says something else is ended, and the next request starts another: what it was
/// doing is then in doubt, which the error says, and is to be looked up in the volume group.
public final class HelperProcess {
    /// A process and our end of its standard input and output.
    private final class Running {
        let process: Int32
        let channel: Descriptor
        private let child: ChildProcess
        init(_ child: consuming ChildProcess, _ channel: consuming Descriptor) {
            process = child.identifier
            self.child = child
            self.channel = channel
        }
        deinit {
            // It ends by itself when its input does, but not while LVM hangs.
            child.kill()
            _ = child.wait()
        }
    }

    let command: [String]
    private let limit: Nanoseconds
    private var running: Running?
    private var number = 0

    public init(_ command: [String], within limit: Nanoseconds = Limits.lvmTime) {
        self.command = command
        self.limit = limit
    }

    /// For tests of its death: the process, if one is running.
    public var process: Int32? { running?.process }

    /// The lines of an answer.
    public func call(_ request: String) throws(TurntableError) -> [String] {
        precondition(!request.contains("\n"))
        if self.running == nil { self.running = try start() }
        guard let running = self.running else { return [] }
        number += 1
        let what = "asking LVM to \(request)"
        let answer: (lines: [String], complaint: String?)
        do throws(TurntableError) {
            try Socket.write(running.channel, Array("\(number) \(request)\n".utf8), what: what)
            answer = try self.answer(of: running, what)
        } catch {
            // Its answer, should it come, would be taken for another's.
            self.running = nil
            throw TurntableError(
                .unsupported, what, "the helper \(command[0]): \(error.why)",
                remedy: "look at the volume group with `lvs`: the command may have been carried out; `turntable gc` removes snapshots")
        }
        if let complaint = answer.complaint { throw TurntableError(.refused, what, complaint) }
        return answer.lines
    }

    private func start() throws(TurntableError) -> Running {
        let ends = try Socket.pair()
        let ours = Descriptor(owning: ends.0), theirs = Descriptor(owning: ends.1)
        return Running(try ChildProcess(command, channel: theirs.rawValue), ours)
    }

    private func answer(of running: Running, _ what: String) throws(TurntableError) -> (lines: [String], complaint: String?) {
        let deadline = Clock.now + limit
        var lines: [String] = []
        var line: [UInt8] = []
        while true {
            guard try Socket.waitReadable(running.channel, within: deadline - Clock.now) else {
                if Clock.now < deadline { continue }
                throw TurntableError(.unsupported, what, "it gave no answer within \(limit.seconds) s and was ended")
            }
            let piece = try Socket.read(running.channel, atMost: 64 << 10, what: what)
            guard !piece.isEmpty else { throw TurntableError(.unsupported, what, "it ended in the middle of it") }
            for byte in piece {
                guard byte == UInt8(ascii: "\n") else {
                    line.append(byte)
                    guard line.count <= Limits.toolLineBytes else { throw strange(what, line) }
                    continue
                }
                let words = String(decoding: line, as: UTF8.self).split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
                guard words.count >= 2, words[0] == "\(number)", lines.count < Limits.helperLines else { throw strange(what, line) }
                let text = words.count > 2 ? String(words[2]) : ""
                switch words[1] {
                case "=": lines.append(text)
                case "ok": return (lines, nil)
                case "failed": return (lines, text)
                default: throw strange(what, line)
                }
                line.removeAll(keepingCapacity: true)
            }
        }
    }

    private func strange(_ what: String, _ line: [UInt8]) -> TurntableError {
        TurntableError(.unsupported, what, "it said something unknown: \"\(String(decoding: line.prefix(80), as: UTF8.self))\"")
    }
}

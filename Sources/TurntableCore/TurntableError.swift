/// An error as an operator reads it: what failed, on what, the value met, the limit it broke, and one remedy.
public struct TurntableError: Error, Hashable, Sendable, Codable, CustomStringConvertible {
    /// What kind of failure, which decides the exit code.
    public enum Kind: String, Hashable, Sendable, Codable, CaseIterable {
        /// The command line or the configuration is wrong.
        case usage
        /// This machine lacks something that is needed.
        case unsupported
        /// Somebody said no: a budget, a policy, a peer. The machine runs on where it was.
        case refused
        /// The line or the peer failed before the hand-off. The machine runs on where it was.
        case line
        /// The peer broke the protocol.
        case `protocol`
        /// The hypervisor failed.
        case hypervisor
        /// The operator stopped it before the hand-off. The machine runs on where it was.
        case cancelled
        /// The machine runs, but its memory is not what the source had.
        case damaged
        /// The right to run was given away and no answer came: the machine is stopped and preserved here.
        case relinquished

        /// The process's exit code for this kind.
        public var exitCode: Int32 {
            switch self {
            case .usage: 2
            case .refused: 3
            case .line: 4
            case .protocol: 5
            case .hypervisor: 6
            case .unsupported: 7
            case .relinquished: 8
            case .damaged: 9
            case .cancelled: 130
            }
        }
    }

    public var kind: Kind
    /// What failed, on what: "receiving a page frame on stream 2".
    public var what: String
    /// Why: the value met, and the limit if there is one.
    public var why: String
    /// One thing to do about it, or empty.
    public var remedy: String

    public init(_ kind: Kind, _ what: String, _ why: String, remedy: String = "") {
        self.kind = kind
        self.what = what
        self.why = why
        self.remedy = remedy
    }

    public var description: String {
        remedy.isEmpty ? "\(what): \(why)" : "\(what): \(why) (\(remedy))"
    }
}

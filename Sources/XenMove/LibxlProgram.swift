// The asking end of turntable-xen, the program that libxl is linked to: this one stays free of it.

public import TurntableCore
internal import TurntableLinux

/// A domain as turntable-xen describes it, in words: its number, its UUID, and how it stands.
public struct DomainFacts: Equatable, Sendable {
    public var number: UInt32
    public var uuid: String
    public var standing: DomainStanding

    public init(number: UInt32, uuid: String, standing: DomainStanding) { (self.number, self.uuid, self.standing) = (number, uuid, standing) }

    public var words: String { "\(number) \(uuid) \(standing.rawValue)" }

    public init?(words: String) {
        let parts = words.split(whereSeparator: \.isWhitespace).map(String.init)
        guard parts.count == 3, let number = UInt32(parts[0]), let standing = DomainStanding(rawValue: parts[2]) else { return nil }
        self.init(number: number, uuid: parts[1], standing: standing)
    }
}

public struct LibxlProgram: Sendable {
    public let path: String
    public init(path: String) { self.path = path }

    /// What the asking host says to have a domain taken.
    public static let takeWords = ["turntable-xen", "take"]

    public func describe(_ name: String) throws(TurntableError) -> DomainFacts {
        let said = String(decoding: try run(["describe", name]), as: UTF8.self)
        guard let facts = DomainFacts(words: said) else {
            throw TurntableError(.hypervisor, "asking for the domain \(name)", "\(path) says \"\(said)\"", remedy: "use one version of both programs")
        }
        return facts
    }

    public func resume(_ domain: UInt32) throws(TurntableError) { _ = try run(["resume", "\(domain)"]) }
    public func destroy(_ domain: UInt32) throws(TurntableError) { _ = try run(["destroy", "\(domain)"]) }

    /// Starts to save a domain; libxl's stream, with a ``MoveHead`` before it, goes to `stream`.
    func save(_ domain: UInt32, to stream: Int32, holding lock: Int32, _ environment: [String: String]) throws(TurntableError) -> ChildProcess {
        try ChildProcess([path, "save", "\(domain)"], environment: environment, inherited: [lock], channel: stream)
    }

    /// What it prints; what it complains of is seen by our user.
    private func run(_ words: [String]) throws(TurntableError) -> [UInt8] {
        let what = "running \(path) \(words.joined(separator: " "))"
        let ends = try Socket.pair()
        let mine = Descriptor(owning: ends.0)
        let child: ChildProcess
        do {
            let theirs = Descriptor(owning: ends.1)
            child = try ChildProcess([path] + words, channel: theirs.rawValue)
        }
        var said: [UInt8] = []
        while said.count < Limits.toolLineBytes {
            let piece = try Socket.read(mine, atMost: Limits.toolLineBytes, what: what)
            if piece.isEmpty { break }
            said += piece
        }
        let code = child.wait()
        guard code == 0 else {
            let kind = TurntableError.Kind.allCases.first { $0.exitCode == code } ?? .hypervisor
            throw TurntableError(kind, what, "it ended with \(code)", remedy: "see what it says above")
        }
        return said
    }
}

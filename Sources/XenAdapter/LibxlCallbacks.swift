// What a save helper says to libxl and asks of it, on its standard streams: libxl 4.17's own protocol between the two, which is
// the same on both sides of a move. libxl tells by a bit mask which messages it understands.
//
//   message = length u16 | kind u16 | arguments, packed; the length counts from the kind on
//   reply   = int, for kinds that have one
//   text    = length u32, with its zero | bytes
//
// Others, which only Xen's own helper has, are passed on as they are (MessageRelay.swift).
//
//   1 log: level u32, errno u32 (all ones for none), context text, text     2 progress: context text, of what text, done u64, total u64
//   3 suspend → 0 is no     7 QEMU's dirty log: domain u32, on u32 → 0 is yes
//   8 static data is here: missing u32 → 0 is yes     9 results: store u64, console u64     10 complete: result i32, errno i32 →

internal import Glibc
public import TurntableCore
internal import TurntableLinux
public import WireFormat

public final class LibxlCallbacks: Sendable {
    enum Kind: UInt16 {
        case log = 1, progress = 2, suspend = 3, dirtyLogOfQEMU = 7, staticDataIsHere = 8, results = 9, complete = 10
    }
    public enum Level: UInt32, Sendable {
        case detail = 3, info = 5, warning = 7, error = 8
    }
    private let input: LibxlStream
    private let output: LibxlStream
    private let understood: UInt32
    /// Messages are whole, and a reply belongs to the one before it.
    private let turn = Monitor(())

    /// - Parameter understood: a bit for each kind of message that libxl takes.
    public init(input: Int32 = 0, output: Int32 = 1, understood: UInt32) {
        (self.input, self.output) = (LibxlStream(descriptor: input), LibxlStream(descriptor: output))
        self.understood = understood
    }

    /// What libxl answers.
    private static let answered: ClosedRange<UInt16> = 3...8

    func understands(_ kind: Kind) -> Bool { understood & (1 << UInt32(kind.rawValue)) != 0 }

    // MARK: - Messages

    /// What xl's user reads.
    public func log(_ level: Level, _ text: String) {
        var writer = MessageWriter()
        writer.append(level.rawValue)
        writer.append(UInt32.max)
        Self.append("turntable", to: &writer)
        Self.append(text.utf8.count < Limits.xenLogBytes ? text : String(decoding: text.utf8.prefix(Limits.xenLogBytes), as: UTF8.self), to: &writer)
        try? send(.log, writer.bytes)
    }

    /// Asks the guest to suspend, and returns when it has.
    func suspend() throws(TurntableError) {
        guard try ask(.suspend, []) != 0 else {
            throw TurntableError(.hypervisor, "suspending the guest", "libxl says that it did not suspend; it runs on here", remedy: "see xl's log")
        }
    }

    /// Lets the domain's device model, if it has one, log what it writes.
    func setDirtyLogOfQEMU(_ domain: UInt32, on isOn: Bool) throws(TurntableError) {
        guard understands(.dirtyLogOfQEMU) else { return }
        var writer = MessageWriter()
        writer.append(domain)
        writer.append(UInt32(isOn ? 1 : 0))
        guard try ask(.dirtyLogOfQEMU, writer.bytes) == 0 else {
            throw TurntableError(.hypervisor, "logging what the device model writes", "libxl says that it does not")
        }
    }

    /// What makes the domain what it is has been set: libxl goes on to prepare it.
    func staticDataIsHere() throws(TurntableError) {
        guard understands(.staticDataIsHere) else { return }
        guard try ask(.staticDataIsHere, [0, 0, 0, 0]) == 0 else {
            throw TurntableError(.hypervisor, "preparing the domain", "libxl says that it could not")
        }
    }

    public func results(_ rings: XenRings) throws(TurntableError) {
        var writer = MessageWriter()
        writer.append(rings.store)
        writer.append(rings.console)
        try send(.results, writer.bytes)
    }

    /// The last word; libxl goes on when the helper ends.
    public func complete(failed: Bool) throws(TurntableError) {
        var writer = MessageWriter()
        writer.append(Int32(failed ? -1 : 0))
        writer.append(Int32(failed ? EIO : 0))
        _ = try ask(.complete, writer.bytes)
    }

    /// A message of another helper's, and libxl's answer to it, if it is of a kind that has one.
    func pass(_ kind: UInt16, _ arguments: [UInt8]) throws(TurntableError) -> Int32? {
        guard Self.isAnswered(kind) else {
            try turn.update { (_) throws(TurntableError) in try write(kind, arguments) }
            return nil
        }
        return try ask(kind, arguments)
    }

    static func isAnswered(_ kind: UInt16) -> Bool { answered.contains(kind) || kind == Kind.complete.rawValue }

    // MARK: - On the wire

    static func append(_ text: String, to writer: inout MessageWriter) { writer.append(bytes: Array(text.utf8) + [0]) }

    private func send(_ kind: Kind, _ arguments: [UInt8]) throws(TurntableError) {
        try turn.update { (_) throws(TurntableError) in try write(kind.rawValue, arguments) }
    }

    private func write(_ kind: UInt16, _ arguments: [UInt8]) throws(TurntableError) {
        var writer = MessageWriter()
        writer.append(UInt16(arguments.count + 2))
        writer.append(kind)
        writer.append(raw: arguments)
        try output.write(writer.bytes, what: "speaking to libxl")
    }

    private func ask(_ kind: Kind, _ arguments: [UInt8]) throws(TurntableError) -> Int32 { try ask(kind.rawValue, arguments) }

    private func ask(_ kind: UInt16, _ arguments: [UInt8]) throws(TurntableError) -> Int32 {
        try turn.update { (_) throws(TurntableError) in
            try write(kind, arguments)
            let answer = try input.read(4, what: "hearing from libxl")
            return answer.reversed().reduce(0) { $0 << 8 | Int32($1) }
        }
    }
}

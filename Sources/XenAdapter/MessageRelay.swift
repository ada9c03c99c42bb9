// What Xen's own helper and libxl say to each other (LibxlCallbacks.swift has the form), on its way through the process between them. All of
// it is passed on as it is, but for two things that make a standstill shorter:
//
//   at the source   the helper's wish to suspend the guest waits until the target is ready for it
//   at the target   libxl can be told of a restored domain before it is whole, and hears no more of the helper then

internal import Glibc
public import TurntableCore
public import TurntableLinux
public import WireFormat

public final class MessageRelay: Sendable {
    private typealias Kind = LibxlCallbacks.Kind
    private let helper: Descriptor
    private let libxl: LibxlCallbacks
    private let maySuspend: @Sendable () -> Bool
    private let wasAsked: @Sendable (_ isSuspended: Bool) -> Void
    private let progress: @Sendable (_ done: Int, _ total: Int) -> Void
    private let isEarly: Bool
    private let note: @Sendable (String) -> Void
    private let state = Monitor(State())
    /// Held while something is said to libxl.
    private let turn = Monitor(())

    private struct State {
        /// libxl goes on, and is not spoken to any more.
        var isDetached = false
        /// How the helper said that it had ended; nil as long as it has not.
        var result: Int32?
        var isOver = false
    }

    private static let what = "hearing Xen's own helper"

    /// - Parameters:
    ///   - helper: the other end of its standard input and output.
    ///   - maySuspend: returns when the guest may be suspended; false if it is not to be any more.
    ///   - wasAsked: told whether the guest has suspended, when libxl has asked it to.
    ///   - progress: told how many pages of how many the helper has read in its round.
    ///   - isEarly: it is ``completeEarly(_:_:)`` that tells libxl of the domain, not the helper.
    ///   - note: told of what the helper complains of when libxl is not there any more.
    public init(
        helper: consuming Descriptor, libxl: LibxlCallbacks, maySuspend: @escaping @Sendable () -> Bool = { true },
        wasAsked: @escaping @Sendable (_ isSuspended: Bool) -> Void = { _ in },
        progress: @escaping @Sendable (_ done: Int, _ total: Int) -> Void = { _, _ in }, isEarly: Bool = false,
        note: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.helper = helper
        (self.libxl, self.maySuspend, self.wasAsked, self.progress) = (libxl, maySuspend, wasAsked, progress)
        (self.isEarly, self.note) = (isEarly, note)
    }

    /// Passes messages on until the helper has ended. Without libxl it is told nothing more, and ends too.
    public func run() {
        while let next = try? read(), (try? pass(next.kind, next.arguments)) != nil {}
        Socket.shutDown(helper)
        state.update { $0.isOver = true }
    }

    /// Tells libxl, in the helper's place, that the domain is there; it hears nothing more. `goOn` lets it go on.
    public func completeEarly(_ rings: XenRings, _ goOn: () -> Void) throws(TurntableError) {
        try turn.update { (_) throws(TurntableError) in
            try libxl.results(rings)
            try libxl.complete(failed: false)
            state.update { $0.isDetached = true }
            goOn()
        }
    }

    /// Returns when the helper has said that it has ended well.
    public func awaitCompletion() throws(TurntableError) {
        let isWell = state.wait(atMost: .forever) { state in state.result.map { $0 == 0 } ?? (state.isOver ? false : nil) }
        guard isWell == true else {
            throw TurntableError(.hypervisor, "restoring the domain", "Xen's own helper failed", remedy: "see xl's log, and that of Xen (xl dmesg)")
        }
    }

    private func read() throws(TurntableError) -> (kind: UInt16, arguments: [UInt8]) {
        let head = try readExactly(4)
        let length = Int(head[0]) | Int(head[1]) << 8
        guard length >= 2 else { throw TurntableError(.protocol, Self.what, "a message has \(length) bytes") }
        return (UInt16(head[2]) | UInt16(head[3]) << 8, try readExactly(length - 2))
    }

    private func readExactly(_ count: Int) throws(TurntableError) -> [UInt8] {
        try Socket.readExactly(helper, count, within: .forever, what: Self.what)
    }

    private func pass(_ kind: UInt16, _ arguments: [UInt8]) throws(TurntableError) {
        if kind == Kind.suspend.rawValue, !maySuspend() { return try reply(0) }
        let isOfItsEnd = [Kind.results.rawValue, Kind.complete.rawValue].contains(kind)
        let answer = try turn.update { (_) throws(TurntableError) -> Int32? in
            if isEarly && isOfItsEnd { return LibxlCallbacks.isAnswered(kind) ? 0 : nil }
            return state.read { $0.isDetached } ? takeItself(kind, arguments) : try libxl.pass(kind, arguments)
        }
        if kind == Kind.suspend.rawValue { wasAsked(answer != 0) }
        if kind == Kind.progress.rawValue, arguments.count >= 16 {
            let (done, total) = (Self.value(arguments.suffix(16).prefix(8)), Self.value(arguments.suffix(8)))
            if done <= total { progress(Int(clamping: done), Int(clamping: total)) }
        }
        if kind == Kind.complete.rawValue { state.update { $0.result = Self.number(arguments) } }
        if let answer { try reply(answer) }
    }

    private func reply(_ answer: Int32) throws(TurntableError) {
        var writer = MessageWriter()
        writer.append(answer)
        try Socket.write(helper, writer.bytes, what: "answering Xen's own helper")
    }

    /// What libxl would not hear any more.
    private func takeItself(_ kind: UInt16, _ arguments: [UInt8]) -> Int32? {
        if kind == Kind.log.rawValue, let level = Self.number(arguments), level >= Int32(LibxlCallbacks.Level.warning.rawValue) {
            note(String(decoding: arguments.dropFirst(8).filter { (32..<127).contains($0) }, as: UTF8.self))
        }
        return LibxlCallbacks.isAnswered(kind) ? 0 : nil
    }

    private static func number(_ bytes: [UInt8]) -> Int32? { bytes.count < 4 ? nil : Int32(truncatingIfNeeded: value(bytes.prefix(4))) }

    private static func value(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) } }
}

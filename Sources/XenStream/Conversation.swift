// How the two ends of a stream of Xen's helpers speak on their control stream, which is that of a program that one host runs for the other
// (WireFormat/ProgramMessage.swift): the source asks for a restorer, its input is the stream's outline, and the target says that it has all.
//
//   S start: "xen-restore", data streams, token of the greeting, the frames of the domain's rings (store, console) ─ T Readiness ─
//   S bytes of input: the outline (WireFormat/LibxcStream.swift); the other pages on the data streams ─ T Readiness again, if it was not ready ─
//   T ended 0: the restorer was given the whole stream, and was done with it where libxl has gone on before that
//   either: Abort, with the reason

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// What a source asks for.
struct StreamRequest: Equatable {
    private static let program = "xen-restore"
    var streams: Int
    /// Of the greeting in libxl's stream, so that nobody else's connection is taken for the source's.
    var token: [UInt8]
    var rings: XenRings

    init(streams: Int, token: [UInt8], rings: XenRings) { (self.streams, self.token, self.rings) = (streams, token, rings) }

    var words: [String] {
        [Self.program, String(streams), token.map { String($0, radix: 16) }.joined(separator: "."), String(rings.store), String(rings.console)]
    }

    /// Nil if it asks for something else.
    init?(_ words: [String]) {
        guard words.count == 5, words[0] == Self.program, let streams = Int(words[1]), (1...Limits.streams).contains(streams),
            let store = UInt64(words[3]), let console = UInt64(words[4])
        else { return nil }
        let bytes = words[2].split(separator: ".").map { UInt8($0, radix: 16) }
        self.init(streams: streams, token: bytes.compactMap { $0 }, rings: XenRings(store: store, console: console))
        guard token.count == bytes.count, token.count == StreamGreeting.tokenBytes else { return nil }
    }
}

/// One end's view of how it goes: the first failure is the reason, and ends everything that was opened.
final class Course: Sendable {
    private struct State {
        var failure: TurntableError?
        var isDone = false
        var endings: [@Sendable (TurntableError) -> Void] = []
        /// They are being called.
        var isEnding = false
    }
    private let state = Monitor(State())

    var failure: TurntableError? { state.read { $0.failure } }
    var isOver: Bool { state.read { $0.isDone || $0.failure != nil } }

    /// Has `ending` called if this end fails; at once if it has.
    func onFailure(_ ending: @escaping @Sendable (TurntableError) -> Void) {
        let failure = state.update { state in
            if state.failure == nil { state.endings.append(ending) }
            return state.failure
        }
        if let failure { ending(failure) }
    }

    /// Nothing that happens from now on is a failure; false if something was before.
    func finish() -> Bool {
        state.update { state in
            guard state.failure == nil else { return false }
            (state.isDone, state.endings) = (true, [])
            return true
        }
    }

    /// Waits until ``finish()`` or a failure.
    func await() throws(TurntableError) {
        let failure = state.wait(atMost: .forever) { state -> TurntableError?? in
            state.failure.map { .some($0) } ?? (state.isDone ? .some(nil) : nil)
        }
        if let failure = failure ?? nil { throw failure }
    }

    func fail(_ error: TurntableError) {
        // When a line ends, the other end's reason may still be on its way.
        if error.kind == .line { _ = state.wait(atMost: Limits.lastWordTime) { $0.failure != nil || $0.isDone ? true : nil } }
        let endings = state.update { state -> [@Sendable (TurntableError) -> Void]? in
            guard state.failure == nil, !state.isDone else { return nil }
            (state.failure, state.isEnding) = (error, true)
            defer { state.endings = [] }
            return state.endings
        }
        guard let endings else { return }
        for ending in endings { ending(error) }
        state.update { $0.isEnding = false }
    }

    /// Returns when the other end has been told of a failure, and all that was opened is ended.
    func awaitEndings() { _ = state.wait(atMost: .forever) { $0.isEnding ? nil : true } }

    /// Runs `body` on a thread of its own; its error is a failure.
    func start(_ name: String, _ body: @escaping @Sendable () throws(TurntableError) -> Void) -> WorkerThread {
        WorkerThread(name) { [self] in
            do throws(TurntableError) { try body() } catch { fail(error) }
        }
    }
}

/// An error in the words of the stream, as an operator reads it.
func inStream<Value>(_ what: String, _ body: () throws(WireError) -> Value) throws(TurntableError) -> Value {
    do { return try body() } catch {
        throw TurntableError(.protocol, what, error.description, remedy: "Xen's own helper moves the domain when LIBXL_SAVE_HELPER is unset")
    }
}

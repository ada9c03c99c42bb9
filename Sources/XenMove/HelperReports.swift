// What turntable-xen-helper tells `turntable xen migrate` of a move: libxl, between them, hears only whether it went well. A JSON object a
// line, on a socket with a path as the owner's at the target (OwnerSocket.swift).

internal import Foundation
public import MigrationEngine
public import TurntableCore
internal import TurntableLinux

public enum HelperWord: Sendable, Codable {
    case event(MigrationEvent)
    /// The last words.
    case completed(MigrationReport)
    case failed(TurntableError)
}

/// The helper's end. A reader that does not read holds nothing up.
public final class ReportLine: Sendable {
    private struct State {
        var words: [HelperWord] = []
        var isOver = false
        var isDone = false
    }
    private let state = Monitor(State())

    public init(path: String) throws(TurntableError) {
        let socket = try Socket.connectUnix(path)
        let number = socket.release()
        _ = WorkerThread("xen-report") { [state] in
            let socket = Descriptor(owning: number)
            while !state.read({ $0.isOver && $0.words.isEmpty }) {
                let words = state.wait(atMost: Limits.heartbeatTime) { (state) -> [HelperWord]? in
                    defer { state.words = [] }
                    return state.words.isEmpty && !state.isOver ? nil : state.words
                }
                for word in words ?? [] {
                    guard let line = try? JSONEncoder().encode(word) else { continue }
                    // A reader that is gone hears nothing; the move goes on.
                    try? Socket.write(socket, Array(line) + [UInt8(ascii: "\n")], what: "telling `turntable xen migrate`")
                }
            }
            state.update { $0.isDone = true }
        }
    }

    /// The engine says some of it while the guest stands still: it is put into words by the other thread.
    public func say(_ word: HelperWord) {
        state.update { state in
            if state.words.count < Limits.heldReports { state.words.append(word) }
        }
    }

    /// Nothing more will be said; what was gets a moment to be read.
    public func close() {
        state.update { $0.isOver = true }
        _ = state.wait(atMost: Limits.heartbeatTime) { $0.isDone ? () : nil }
    }
}

/// The end of `turntable xen migrate`.
final class ReportDoor: Sendable {
    private struct State {
        var report: MigrationReport?
        var error: TurntableError?
        var isOver = false
        /// Nobody comes any more.
        var isClosed = false
    }
    let path: String
    private let state = Monitor(State())

    /// - Parameter heard: told each event, by a thread of this object's.
    init(path: String, heard: @escaping @Sendable (MigrationEvent) -> Void) throws(TurntableError) {
        self.path = path
        let listener = try Socket.listenUnix(path)
        let number = listener.release()
        _ = WorkerThread("xen-report") { [state] in
            let listener = Descriptor(owning: number)
            while !state.read({ $0.isClosed }) {
                guard let socket = try? Socket.accept(listener, within: Limits.pollTime) else { continue }
                read(socket) { word in
                    switch word {
                    case .event(let event): heard(event)
                    case .completed(let report): state.update { $0.report = report }
                    case .failed(let error): state.update { $0.error = error }
                    }
                }
                break
            }
            state.update { $0.isOver = true }
        }
    }

    deinit { removeFile(path) }

    /// What the helper said last, when it has; nil if it ended without. Nobody who comes later is heard.
    func lastWord(within limit: Nanoseconds) -> Result<MigrationReport, TurntableError>? {
        state.update { $0.isClosed = true }
        return state.wait(atMost: limit) { state in
            if let report = state.report { return .some(.success(report)) }
            if let error = state.error { return .some(.failure(error)) }
            return state.isOver ? .some(nil) : nil
        } ?? nil
    }
}

/// Each word until the end of the connection, or one that is none.
private func read(_ socket: borrowing Descriptor, heard: (HelperWord) -> Void) {
    var bytes: [UInt8] = []
    while bytes.count < Limits.helperWordBytes, let piece = try? Socket.read(socket, atMost: 64 << 10, what: "hearing the helper"), !piece.isEmpty {
        bytes += piece
        while let end = bytes.firstIndex(of: UInt8(ascii: "\n")) {
            guard let word = try? JSONDecoder().decode(HelperWord.self, from: Data(bytes[..<end])) else { return }
            heard(word)
            bytes.removeFirst(end + 1)
        }
    }
}

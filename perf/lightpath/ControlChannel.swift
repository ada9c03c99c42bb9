import CTurntableLinux
import Glibc

/// The main thread while the line runs: signals, commands from standard input and from the control socket, failures.
final class ControlChannel {
    enum Ending {
        case asked
        case failed(LineError)
    }

    private struct Client {
        var descriptor: Int32
        var buffer = CommandBuffer()
    }

    private let line: Line
    private let report: LineReport
    private let signals: OwnedDescriptor
    private let socket: ControlSocket?
    private var clients: [Client] = [Client(descriptor: STDIN_FILENO)]

    /// Blocks the ending signals for this thread and those it will start, so that one that comes during the set-up is kept
    /// until the line can be taken down.
    static func blockSignals() throws(LineError) -> OwnedDescriptor {
        let mask = [SIGINT, SIGTERM, SIGHUP].reduce(UInt64(0)) { $0 | 1 << UInt64($1) }
        _ = signal(SIGPIPE, SIG_IGN)
        _ = signal(SIGTTIN, SIG_IGN)
        return OwnedDescriptor(try check(tt_line_signals(mask), "cannot make a signalfd"))
    }

    init(_ line: Line, report: LineReport, signals: consuming OwnedDescriptor, socket: consuming ControlSocket?) {
        self.line = line
        self.report = report
        self.signals = signals
        self.socket = socket
    }

    deinit {
        for client in clients where client.descriptor != STDIN_FILENO { _ = close(client.descriptor) }
    }

    func serve() -> Ending {
        while true {
            let ready = waitForEvents()
            if ready.contains(signals.number) { return .asked }
            if ready.contains(line.failureDescriptor), let error = line.failure() { return .failed(error) }
            for descriptor in ready where clients.contains(where: { $0.descriptor == descriptor }) {
                if receive(from: descriptor) { return .asked }
            }
            if let listener = listenerNumber, ready.contains(listener) { accept(from: listener) }
        }
    }

    private var listenerNumber: Int32? {
        switch socket {
        case .some(let socket): socket.listener.number
        case .none: nil
        }
    }

    private func waitForEvents() -> [Int32] {
        var watched = [signals.number, line.failureDescriptor] + clients.map(\.descriptor)
        // A full house waits in the listener's backlog.
        if let listener = listenerNumber, clients.count < LineLimits.controlClients { watched.append(listener) }
        var events = watched.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        // The array is as long as the count given.
        guard unsafe poll(&events, nfds_t(events.count), -1) > 0 else { return [] }
        return events.filter { $0.revents != 0 }.map(\.fd)
    }

    private func accept(from listener: Int32) {
        let number = Glibc.accept(listener, nil, nil)
        if number >= 0 { clients.append(Client(descriptor: number)) }
    }

    /// Whether a command asked to end.
    private func receive(from descriptor: Int32) -> Bool {
        guard let index = clients.firstIndex(where: { $0.descriptor == descriptor }) else { return false }
        let bytes = ControlSocket.receive(descriptor)
        guard !bytes.isEmpty else {
            if descriptor != STDIN_FILENO { _ = close(descriptor) }
            clients.remove(at: index)
            return false
        }
        for text in clients[index].buffer.lines(adding: bytes[...]) {
            if answer(text, to: descriptor) { return true }
        }
        return false
    }

    private func answer(_ text: String?, to descriptor: Int32) -> Bool {
        // People type on standard input; the socket always speaks JSON, one line a reply.
        let isJSON = report.isJSON || descriptor != STDIN_FILENO
        let output = descriptor == STDIN_FILENO ? STDOUT_FILENO : descriptor
        do throws(LineError) {
            guard let text else { throw .refused("command longer than \(LineLimits.controlLineBytes) bytes") }
            let outcome = try LineControl(line: line).obey(text)
            switch outcome {
            case .statistics: writeText(LineReport(line: line, isJSON: isJSON).statistics(), to: output)
            case .done, .quit: writeText(isJSON ? Self.reply(to: text).text + "\n" : "ok \(text)\n", to: output)
            }
            if case .quit = outcome { return true }
        } catch {
            writeText(isJSON ? Self.refusal(error).text + "\n" : "error: \(error)\n", to: output)
        }
        return false
    }

    private static func reply(to command: String) -> JSONText {
        var json = JSONText()
        json.add("ok", true)
        json.add("command", command)
        return json
    }

    static let refusalPrefix = "{\"ok\":false"

    private static func refusal(_ error: LineError) -> JSONText {
        var json = JSONText()
        json.add("ok", false)
        json.add("error", error.message)
        return json
    }
}

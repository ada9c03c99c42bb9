internal import FoundationEssentials
internal import TurntableCore
internal import TurntableLinux

/// A QEMU monitor: one command at a time, events kept until somebody asks for them.
/// Source: QEMU, docs/interop/qmp-spec.txt.
final class QMP: Sendable {
    private struct Connection {
        var buffer: [UInt8] = []
        var events: [JSONValue] = []
    }
    private let socket: Descriptor
    private let path: String
    private let connection = Monitor(Connection())
    /// The process behind the socket.
    let process: Int32

    /// The longest line that QEMU may send.
    private static let lineBytes = 16 << 20
    /// Events kept for those that ask.
    private static let mostEvents = 256

    init(path: String) throws(TurntableError) {
        self.path = path
        socket = try ofQEMU { () throws(TurntableError) in try Socket.connectUnix(path) }
        process = try Socket.peerProcess(socket)
        try connection.update { (connection: inout Connection) throws(TurntableError) in
            let deadline = Clock.now + Limits.hypervisorTime
            _ = try nextMessage(&connection, by: deadline)  // the greeting
            _ = try answer(to: ["execute": .string("qmp_capabilities")], on: &connection)
        }
    }

    /// Runs a command and gives what it returned.
    @discardableResult
    func execute(_ command: String, _ arguments: [String: JSONValue] = [:]) throws(TurntableError) -> JSONValue {
        try connection.update { (connection: inout Connection) throws(TurntableError) in
            var message: [String: JSONValue] = ["execute": .string(command)]
            if !arguments.isEmpty { message["arguments"] = .object(arguments) }
            return try answer(to: message, on: &connection)
        }
    }

    /// Gives QEMU a descriptor for an open file, under a name that the next command can use.
    func give(_ descriptor: borrowing Descriptor, as name: String) throws(TurntableError) {
        let file = descriptor.rawValue
        try connection.update { (connection: inout Connection) throws(TurntableError) in
            let message: [String: JSONValue] = ["execute": .string("getfd"), "arguments": .object(["fdname": .string(name)])]
            _ = try answer(to: message, passing: file, on: &connection)
        }
    }

    /// Waits for an event that `isWanted` accepts. Events before it are dropped.
    func awaitEvent(_ what: String, where isWanted: (String, JSONValue) throws(TurntableError) -> Bool) throws(TurntableError) {
        try connection.update { (connection: inout Connection) throws(TurntableError) in
            let deadline = Clock.now + Limits.hypervisorTime
            while true {
                while !connection.events.isEmpty {
                    let event = connection.events.removeFirst()
                    if let name = event["event"]?.text, try isWanted(name, event["data"] ?? .null) { return }
                }
                guard Clock.now < deadline else {
                    throw TurntableError(.hypervisor, "waiting for QEMU to say \(what)", "it did not within \(Limits.hypervisorTime)")
                }
                let message = try nextMessage(&connection, by: deadline)
                if message["event"] != nil { connection.events.append(message) }
            }
        }
    }

    func forgetEvents() { connection.update { $0.events.removeAll() } }

    /// Waits until QEMU has closed the monitor: it is gone.
    func awaitEnd(within limit: Nanoseconds) {
        connection.update { connection in
            let deadline = Clock.now + limit
            while Clock.now < deadline, (try? nextMessage(&connection, by: deadline)) != nil {}
        }
    }

    private func answer(
        to message: [String: JSONValue], passing descriptor: Int32? = nil, on connection: inout Connection
    ) throws(TurntableError) -> JSONValue {
        let command = message["execute"]?.text ?? ""
        let line: [UInt8]
        do { line = Array(try JSONEncoder().encode(message)) + [0x0a] } catch { preconditionFailure("a QMP command is JSON: \(error)") }
        try ofQEMU { () throws(TurntableError) in try Socket.write(socket, line, passing: descriptor, what: "asking QEMU to \(command)") }
        let deadline = Clock.now + Limits.hypervisorTime
        while true {
            let reply = try nextMessage(&connection, by: deadline)
            if let value = reply["return"] { return value }
            if let error = reply["error"] {
                throw TurntableError(.hypervisor, "QEMU's \(command)", error["desc"]?.text ?? "failed")
            }
            if reply["event"] != nil {
                connection.events.append(reply)
                if connection.events.count > Self.mostEvents { connection.events.removeFirst() }
            }
        }
    }

    private func nextMessage(_ connection: inout Connection, by deadline: Nanoseconds) throws(TurntableError) -> JSONValue {
        while true {
            if let end = connection.buffer.firstIndex(of: 0x0a) {
                let line = connection.buffer[..<end]
                defer { connection.buffer.removeSubrange(...end) }
                if line.allSatisfy({ $0 == 0x0d || $0 == 0x20 }) { continue }
                do { return try JSONDecoder().decode(JSONValue.self, from: Data(line)) } catch {
                    throw TurntableError(.hypervisor, "reading \(path)", "QEMU sent a line that is not JSON")
                }
            }
            guard connection.buffer.count < Self.lineBytes else {
                throw TurntableError(.hypervisor, "reading \(path)", "QEMU sent a line over \(ByteCount(Self.lineBytes))")
            }
            guard try Socket.waitReadable(socket, within: deadline - Clock.now) else {
                guard Clock.now < deadline else {
                    throw TurntableError(.hypervisor, "waiting for QEMU on \(path)", "no answer within \(Limits.hypervisorTime)")
                }
                continue
            }
            let piece = try ofQEMU { () throws(TurntableError) in try Socket.read(socket, atMost: 64 << 10, what: "reading \(path)") }
            guard !piece.isEmpty else { throw TurntableError(.hypervisor, "reading \(path)", "QEMU is gone") }
            connection.buffer += piece
        }
    }
}

/// What fails on a socket of QEMU's is the machine's failure, not the line's: it does not come back by waiting.
func ofQEMU<Value: ~Copyable>(_ body: () throws(TurntableError) -> Value) throws(TurntableError) -> Value {
    do throws(TurntableError) { return try body() } catch {
        guard error.kind == .line else { throw error }
        throw TurntableError(.hypervisor, error.what, error.why, remedy: error.remedy)
    }
}

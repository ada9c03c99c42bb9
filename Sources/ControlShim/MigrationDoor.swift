public import TurntableCore
internal import TurntableLinux

/// Where a running migration can be asked how it stands, told to stop, or told of another rate: a UNIX socket in the machine's directory.
/// One line, one line back: `status` gives a JSON object, `cancel` gives `cancelled` or `relinquished`, `rate` and bits a second give
/// `paced`, or `refused` and why.
public final class MigrationDoor: Sendable {
    private let path: String
    private let isClosed = Monitor(false)
    private let thread = Monitor<WorkerThread?>(nil)

    /// Opens the door. The closures are called on its thread.
    public init(
        path: String, status: @escaping @Sendable () -> String, cancel: @escaping @Sendable () -> Bool,
        rate: @escaping @Sendable (BitRate) throws(TurntableError) -> Void
    ) throws(TurntableError) {
        self.path = path
        let listener = try Socket.listenUnix(path)
        let raw = listener.release()
        let isClosed = isClosed
        let worker = WorkerThread("tt-door") {
            let listener = Descriptor(owning: raw)
            while !isClosed.read({ $0 }) {
                guard let socket = try? Socket.accept(listener, within: Limits.pollTime) else { continue }
                try? Self.serve(socket, status, cancel, rate)
            }
        }
        thread.update { $0 = worker }
    }

    /// Closes the door and removes the socket.
    public func close() {
        isClosed.update { $0 = true }
        thread.update { thread in
            thread?.join()
            thread = nil
        }
        removeFile(path)
    }

    private static func serve(
        _ socket: borrowing Descriptor, _ status: () -> String, _ cancel: () -> Bool, _ rate: (BitRate) throws(TurntableError) -> Void
    ) throws(TurntableError) {
        try Socket.setTimeouts(socket, receive: Limits.helloTime, send: Limits.helloTime)
        let request = String(decoding: try Socket.read(socket, atMost: 64, what: "a request"), as: UTF8.self)
        let answer =
            switch request {
            case "status\n": status()
            case "cancel\n": cancel() ? "cancelled" : "relinquished"
            default: setRate(request, rate)
            }
        try Socket.write(socket, Array((answer + "\n").utf8), what: "a request")
    }

    private static func setRate(_ request: String, _ rate: (BitRate) throws(TurntableError) -> Void) -> String {
        let words = request.split(whereSeparator: \.isWhitespace)
        guard words.count == 2, words[0] == "rate", let bits = Double(words[1]), bits > 0, bits.isFinite else { return "unknown" }
        do throws(TurntableError) {
            try rate(BitRate(bitsPerSecond: bits))
            return "paced"
        } catch { return "refused \(error)" }
    }

    /// Asks at a door. Throws if nobody is behind it.
    public static func ask(_ request: String, at path: String) throws(TurntableError) -> String {
        let socket = try Socket.connectUnix(path)
        try Socket.setTimeouts(socket, receive: Limits.helloTime, send: Limits.helloTime)
        try Socket.write(socket, Array((request + "\n").utf8), what: "asking at \(path)")
        var answer: [UInt8] = []
        while true {
            let piece = try Socket.read(socket, atMost: 4096, what: "asking at \(path)")
            if piece.isEmpty { break }
            answer += piece
        }
        return String(decoding: answer.dropLast(), as: UTF8.self)
    }
}

internal import TurntableCore
internal import TurntableLinux

/// Ties an incoming machine to its receiver: a receiver that dies, however suddenly, leaves a half-made machine behind for a
/// while only, in which another process of the receiver may take it up.
///
/// A connection to `turntable run --incoming`, which keeps the machine: see ``MachineKeeper``. It says first that the machine
/// is to be had; what the receiver says is the last word on it.
final class MachineLease: Sendable {
    private let socket: Descriptor

    enum Word {
        /// The keeper's: the machine is there, and will be as long as this connection.
        static let granted: UInt8 = 0x67
        /// The receiver's: it runs here and depends on nobody any more.
        static let kept: UInt8 = 0x6b
        /// The receiver's: it is to end.
        static let ended: UInt8 = 0x65
    }

    /// Nil if the keeper has given the machine up, or has died.
    init?(_ path: String) {
        guard let socket = try? Socket.connectUnix(path),
            (try? Socket.setTimeouts(socket, receive: Limits.hypervisorTime, send: Limits.hypervisorTime)) != nil,
            (try? Socket.read(socket, atMost: 1, what: path)) == [Word.granted]
        else { return nil }
        self.socket = socket
    }

    /// The machine stays, whatever becomes of this process. A keeper that has died has no need to know.
    func keep() { try? Socket.write(socket, [Word.kept], what: "keeping the machine") }

    /// Ends the machine and waits until nothing of it is left.
    func end(within limit: Nanoseconds) {
        try? Socket.write(socket, [Word.ended], what: "ending the machine")
        _ = try? Socket.waitReadable(socket, within: limit)
    }
}

/// The other end of a machine's leases: decides how long an incoming machine may be without a receiver.
///
/// Until its device state is loaded, it waits for the resume window. Then it is complete, and the receiver may have said so to
/// the source already: it is never ended from here, but waits for a receiver that knows, or for the operator.
final class MachineKeeper: Sendable {
    /// How far an incoming machine has come, as its hypervisor tells.
    enum Progress {
        /// Its memory is arriving.
        case incomplete
        /// Its device state is loaded: it can run.
        case complete
        /// It is no longer incoming.
        case settled
    }
    private let listener: Descriptor
    private let path: String
    private let window: Nanoseconds
    /// No receiver is there for the machine.
    let isForsaken = Monitor(false)

    init(_ path: String, window: Nanoseconds) throws(TurntableError) {
        listener = try Socket.listenUnix(path)
        self.path = path
        self.window = window
    }

    /// Serves one receiver after the other. Returns true when the machine is to end, false when it needs no receiver any more.
    /// - Parameter first: how long the one that started it takes to come.
    func serve(first: Nanoseconds = Limits.hypervisorTime, progress: () -> Progress) -> Bool {
        // Who comes too late finds no socket; who connected in the last moment finds its connection closed.
        defer { removeFile(path) }
        var patience = first
        while let receiver = accept(within: patience) {
            isForsaken.update { $0 = false }
            // One that is gone already reads as one that left.
            try? Socket.write(receiver, [MachineLease.Word.granted], what: "granting the machine")
            let word = try? Socket.read(receiver, atMost: 1, what: "hearing from the receiver")
            if word == [MachineLease.Word.kept] { return false }
            isForsaken.update { $0 = true }
            if word == [MachineLease.Word.ended] {
                // Held as long as this process, so that the receiver sees its end.
                _ = receiver.release()
                return true
            }
            switch progress() {
            case .incomplete: patience = window
            case .complete: patience = .forever
            case .settled:
                isForsaken.update { $0 = false }
                return false
            }
        }
        isForsaken.update { $0 = true }
        return true
    }

    private func accept(within limit: Nanoseconds) -> Descriptor? {
        let deadline = Clock.now + limit
        while Clock.now < deadline {
            do throws(TurntableError) {
                if let receiver = try Socket.accept(listener, within: deadline - Clock.now) { return receiver }
            } catch { Clock.sleep(Limits.pollTime) }
        }
        return nil
    }
}

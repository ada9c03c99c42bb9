internal import TurntableCore
internal import TurntableLinux

/// The NBD server inside a QEMU, through which the disks of a machine are read while it moves: a UNIX socket in the machine's
/// directory, and an export for each disk. A QEMU has one such server; if somebody else started it, it is theirs.
///
/// What a killed sender left of it is taken over by the next: whether it is ours the socket tells.
///
/// **Reading stands still while images change hands.** At the end of saving device state QEMU gives up its right to write the
/// images, and takes it back when the machine goes on. Then it opens each file anew and closes what it had, without waiting for
/// the exports' requests, which would be answered from whatever has the number of the old descriptor. So ``read(_:)`` waits
/// while ``undisturbed(_:)`` runs.
final class QEMUExports: Sendable {
    private let monitor: QMP
    let socket: String
    private let state = Monitor(State())

    private struct State {
        var users: Set<String> = []
        var readers = 0
        var isDisturbed = false
    }
    /// What everything of ours in QEMU is called.
    static let prefix = "turntable."

    init(_ monitor: QMP, socket: String) {
        self.monitor = monitor
        self.socket = socket
    }

    // MARK: - The server

    /// There is a server, until each user has left.
    func join(_ user: String) throws(TurntableError) {
        if state.read({ $0.users.isEmpty }) { try startServer() }
        state.update { _ = $0.users.insert(user) }
    }

    func leave(_ user: String) throws(TurntableError) {
        let isLast = state.update { state in state.users.remove(user) != nil && state.users.isEmpty }
        guard isLast else { return }
        // Exports that somebody else put there go on.
        if try exports().allSatisfy({ $0.hasPrefix(Self.prefix) }) { try stopServer() }
    }

    private func startServer() throws(TurntableError) {
        let address: JSONValue = .object(["type": .string("unix"), "data": .object(["path": .string(socket)])])
        do throws(TurntableError) {
            try monitor.execute("nbd-server-start", ["addr": address])
        } catch {
            guard error.why.contains("already running") else { throw error }
            guard (try? Socket.connectUnix(socket)) != nil else {
                throw TurntableError(
                    .refused, "reading the machine's disks", "the NBD server of its QEMU is in use by somebody else, and it has only one",
                    remedy: "end that use with nbd-server-stop on its monitor, or move disks that are logical volumes with --disk-method lvm"
                )
            }
            // With it go the exports of the sender that was killed.
            try stopServer()
            try monitor.execute("nbd-server-start", ["addr": address])
        }
    }

    private func stopServer() throws(TurntableError) {
        let ours = try exports().filter { $0.hasPrefix(Self.prefix) }
        try monitor.execute("nbd-server-stop")
        try awaitEnd(of: ours)
        removeFile(socket)
    }

    // MARK: - Exports

    /// Shows a block node under the name `id`, and what a bitmap of it says.
    func add(_ id: String, of drive: QEMUDrive, bitmap: String? = nil) throws(TurntableError) {
        var arguments: [String: JSONValue] = [
            "type": .string("nbd"), "id": .string(id), "name": .string(id), "node-name": .string(drive.node), "writable": .bool(false),
        ]
        if let bitmap { arguments["bitmaps"] = .array([.string(bitmap)]) }
        do throws(TurntableError) {
            // An image that was given up it takes back.
            try undisturbed { () throws(TurntableError) in _ = try monitor.execute("block-export-add", arguments) }
        } catch {
            throw TurntableError(
                .refused, "reading the disk \(drive.name) (\(drive.format), \(drive.path)) through QEMU", error.why,
                remedy: "end what else works on that disk, such as a block job")
        }
    }

    /// Takes it back. It is gone when ``awaitEnd(of:)`` says so.
    func remove(_ id: String) throws(TurntableError) {
        try monitor.execute("block-export-del", ["id": .string(id), "mode": .string("hard")])
    }

    /// Returns when none of these is left.
    func awaitEnd(of ids: [String]) throws(TurntableError) {
        let deadline = Clock.now + Limits.hypervisorTime
        while let left = try exports().first(where: { ids.contains($0) }) {
            guard Clock.now < deadline else {
                throw TurntableError(.hypervisor, "ending the export \(left)", "it did not end within \(Limits.hypervisorTime)")
            }
            Clock.sleep(.milliseconds(1))
        }
    }

    func exports() throws(TurntableError) -> [String] {
        guard case .array(let entries) = try monitor.execute("query-block-exports") else { return [] }
        return entries.compactMap { $0["id"]?.text }
    }

    // MARK: - Reading

    func read<Value>(_ body: () throws(TurntableError) -> Value) throws(TurntableError) -> Value {
        let isIn: Bool? = state.wait(atMost: Limits.hypervisorTime) { state in
            guard !state.isDisturbed else { return nil }
            state.readers += 1
            return true
        }
        guard isIn != nil else {
            throw TurntableError(.hypervisor, "reading the machine's disks", "QEMU was busy with them for \(Limits.hypervisorTime)")
        }
        defer { state.update { $0.readers -= 1 } }
        return try body()
    }

    /// Nothing is read while `body` runs. Of one thread at a time.
    func undisturbed<Value>(_ body: () throws(TurntableError) -> Value) throws(TurntableError) -> Value {
        state.update { $0.isDisturbed = true }
        defer { state.update { $0.isDisturbed = false } }
        // A read ends within its own time.
        _ = state.wait(atMost: .forever) { $0.readers == 0 ? () : nil }
        return try body()
    }
}

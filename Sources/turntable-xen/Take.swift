internal import Glibc
internal import MigrationEngine
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat
internal import XenMove

/// The target's side of a move: libxl makes the domain, with its devices, while the guest runs on at the source; the helper receives
/// it and lets it run. The journal here, which the helper writes, says whose it is.
struct Take {
    let stateDirectory: String

    func run(_ libxl: Libxl) throws(TurntableError) {
        let stream = try Program.ownStream()
        let configuration = try head(stream).configuration
        let door = try OwnerDoor(path: helperSocketPath())
        setEnvironment("LIBXL_SAVE_HELPER", Program.helperPath)
        setEnvironment(HelperSetting.owner, door.path)
        setEnvironment(HelperSetting.stateDirectory, stateDirectory)
        setEnvironment(HelperSetting.disks, try libxl.disks(of: configuration))
        let domain = try libxl.restore(configuration, from: stream.rawValue)
        if (try? door.awaitRun()) != true { try takeUp(domain, libxl) }
        try watch(domain)
    }

    private func head(_ stream: borrowing Descriptor) throws(TurntableError) -> MoveHead {
        let what = "reading the head of a move"
        let prefix = try Socket.readExactly(stream, MoveHead.prefixBytes, within: Limits.stallTime, what: what)
        return try MoveHead(
            decoding: try Socket.readExactly(stream, try MoveHead.bodyBytes(after: prefix), within: Limits.stallTime, what: what))
    }

    /// The helper is gone without a word. If it had written that the domain is this host's, the domain runs here, else nowhere here.
    private func takeUp(_ domain: UInt32, _ libxl: Libxl) throws(TurntableError) {
        let found = try libxl.describe(domain)
        let history = try StateDirectory(stateDirectory).history(of: found.uuid)
        let epoch = history.records.last { $0.role == .target }?.epoch
        guard let epoch, history.target(epoch) == .owning else {
            try libxl.destroy(domain)
            throw TurntableError(.hypervisor, "taking domain \(domain)", "turntable-xen-helper ended before it was all here", remedy: "see what it says above")
        }
        if found.standing == .paused { try libxl.unpause(domain) }
    }

    private func watch(_ domain: UInt32) throws(TurntableError) {
        let nothing = try Descriptor.open("/dev/null", .write, what: "opening /dev/null")
        _ = try ChildProcess([Program.ownPath, "watch", "\(domain)"], output: nothing.rawValue)
    }
}

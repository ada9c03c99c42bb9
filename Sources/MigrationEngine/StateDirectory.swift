internal import FoundationEssentials
public import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// Where a host keeps its journals: what must survive the host, so no memory file system.
///
///   <state directory>/host              HostID, 32 hexadecimal digits
///   <state directory>/journal/<machine> Journal
///   <state directory>/disks/            how far disks have come that come here (BlockDelta, SinkJournals)
public struct StateDirectory: Sendable {
    public let path: String
    public init(_ path: String) { self.path = path }

    private var journalPath: String { "\(path)/journal" }

    /// The journals of this host; the directory is made if it is not there.
    public func journals() throws(TurntableError) -> Journals {
        do {
            try FileManager.default.createDirectory(
                atPath: journalPath, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw TurntableError(
                .unsupported, "making \(journalPath)", "\(error)", remedy: "run as root, or choose a directory with --state-dir")
        }
        let boot = try bootID()
        return Journals(host: try hostID()) { [journalPath] (machine) throws(TurntableError) in
            try MachineName.check(machine)
            return try Journal(of: machine, store: AppendFile("\(journalPath)/\(machine)"), boot: boot) {
                Int64(Date().timeIntervalSince1970)
            }
        }
    }

    /// What this host remembers of a machine; nothing is made.
    public func history(of machine: String) throws(TurntableError) -> HandOffHistory {
        try MachineName.check(machine)
        let file = "\(journalPath)/\(machine)"
        guard FileManager.default.fileExists(atPath: file) else { return HandOffHistory([], boot: try bootID()) }
        return try Journal(of: machine, store: AppendFile(file), boot: bootID()) { 0 }.history()
    }

    /// As ``history(of:)``, for who only looks: nobody waits for it, nothing is mended, and a record that is being written may be missing.
    public func glance(at machine: String) throws(TurntableError) -> HandOffHistory {
        try MachineName.check(machine)
        let bytes = try AppendFile("\(journalPath)/\(machine)").contents()
        return HandOffHistory(try Journal.read(bytes, of: machine).records, boot: try bootID())
    }

    /// The machines that have a journal here.
    public func machines() -> [String] { ((try? FileManager.default.contentsOfDirectory(atPath: journalPath)) ?? []).sorted() }

    private func hostID() throws(TurntableError) -> HostID {
        let store = AppendFile("\(path)/host")
        return try store.locked { () throws(TurntableError) in
            if let known = HostID(hexadecimal: String(decoding: try store.contents(), as: UTF8.self)) { return known }
            let new = HostID.random()
            try store.truncate(to: 0)
            try store.append(Array("\(new.hexadecimal)\n".utf8))
            try store.sync()
            return new
        }
    }

    /// Source: random(4).
    private func bootID() throws(TurntableError) -> BootID {
        let path = "/proc/sys/kernel/random/boot_id"
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        guard let boot = BootID(hexadecimal: text.filter(\.isHexDigit)) else {
            throw TurntableError(.unsupported, "reading \(path)", "it says \"\(text)\"")
        }
        return boot
    }
}

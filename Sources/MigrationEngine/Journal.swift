public import TurntableCore
public import TurntableLinux
public import WireFormat

/// The hand-off journal of one machine on this host. The format is WireFormat/JournalRecord.swift's.
public final class Journal: Sendable {
    public let machine: String
    private let store: any AppendStore
    private let boot: BootID
    private let unixSeconds: @Sendable () -> Int64
    /// Bytes that are known to be durable.
    private let durable = Monitor(0)

    /// Opens a journal, which is empty until something is written; what a crash tore at its end is cut off.
    public init(
        of machine: String, store: any AppendStore, boot: BootID, unixSeconds: @escaping @Sendable () -> Int64
    ) throws(TurntableError) {
        self.machine = machine
        self.store = store
        self.boot = boot
        self.unixSeconds = unixSeconds
        try store.locked { () throws(TurntableError) in
            let bytes = try store.contents()
            let contents = try Self.read(bytes, of: machine)
            if contents.validBytes < bytes.count { try store.truncate(to: contents.validBytes) }
            // What an earlier process wrote and did not live to make durable is believed from here on, so it must be.
            if contents.validBytes > 0 { try sync() }
        }
    }

    public func history() throws(TurntableError) -> HandOffHistory {
        HandOffHistory(try Self.read(try store.contents(), of: machine).records, boot: boot)
    }

    /// Writes a record so that it survives this process, but not yet the host. Microseconds: it may be done while the
    /// machine stands still.
    public func write(_ record: JournalRecord) throws(TurntableError) {
        try store.locked { () throws(TurntableError) in try append(record) }
    }

    private func append(_ record: JournalRecord) throws(TurntableError) {
        var record = record
        record.boot = boot
        record.unixSeconds = unixSeconds()
        let count = try store.contents().count
        // What another process appended since is made durable first: only the last record of a journal may ever be torn. The
        // offer that a hand-off follows is durable already, and so is Offered before Committed.
        if count > durable.read({ $0 }) { try sync() }
        let header = count == 0 ? JournalRecord.fileHeader : []
        try store.append(header + record.encoded(digest: Digest.of))
    }

    /// Writes the target's decision about an epoch, unless it was made before: then that one is returned, and stands.
    public func decide(_ record: JournalRecord) throws(TurntableError) -> TargetRight {
        try store.locked { () throws(TurntableError) in
            let known = try history().target(record.epoch)
            if known == .owning || known == .refused { return known }
            try append(record)
            return record.kind == .committed ? .owning : .refused
        }
    }

    /// Writes what became of an epoch that was handed off here, unless that is known: then it stands. Gives what stands.
    public func settle(_ record: JournalRecord) throws(TurntableError) -> JournalRecord.Kind {
        try store.locked { () throws(TurntableError) in
            if let known = try history().outcome(record.epoch) { return known }
            try append(record)
            return record.kind
        }
    }

    /// Makes everything written durable.
    public func sync() throws(TurntableError) {
        let count = try store.contents().count
        try store.sync()
        durable.update { $0 = max($0, count) }
    }

    /// Writes a record and makes it durable: it counts from then on.
    public func log(_ record: JournalRecord) throws(TurntableError) {
        try write(record)
        try sync()
    }

    static func read(_ bytes: [UInt8], of machine: String) throws(TurntableError) -> JournalContents {
        do { return try JournalContents(bytes, digest: Digest.of) } catch {
            throw TurntableError(
                .unsupported, "reading the journal of \(machine)", "a record that is not its last \(error)",
                remedy: "restore it from a backup; until then nobody can say who may run the machine")
        }
    }
}

/// The journals of a host.
public struct Journals: Sendable {
    /// The host as its peers know it.
    public let host: HostID
    private let opening: @Sendable (String) throws(TurntableError) -> Journal

    public init(host: HostID, open: @escaping @Sendable (String) throws(TurntableError) -> Journal) {
        self.host = host
        opening = open
    }

    public func open(_ machine: String) throws(TurntableError) -> Journal { try opening(machine) }
}

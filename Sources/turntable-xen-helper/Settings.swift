internal import BlockDelta
internal import Glibc
internal import MigrationEngine
internal import Protection
internal import TransportTCP
internal import TurntableCore
internal import WireFormat
internal import XenAdapter

/// What an operator may say, by the environment that xl passes on.
///
///   TURNTABLE_DOWNTIME      the longest standstill that the engine may cause, such as 300ms
///   TURNTABLE_VERIFY        off, before or after: when the target's memory is compared with the source's; only for guests without
///                           paravirtual devices, since dom0 writes the rings of those past the log, and they are made anew anyway
///   TURNTABLE_STREAMS       data streams
///   TURNTABLE_RATE          of a reserved line, such as 1gbit
///   TURNTABLE_ADDRESS       at the source: the addresses at which the target reaches this host, with spaces between them
///   TURNTABLE_KEYS          where this host's keys are; TURNTABLE_PROTECTION=none for a line of one's own, on both hosts
///   TURNTABLE_PEER          at the source: the name in the target's certificate, if it is not its address
///   TURNTABLE_DISKS         all, or names with spaces between them: disks that go along from here, and may come here (Disks.swift)
///   TURNTABLE_RECYCLE       yes: what the volumes of such disks hold here is an older copy, of which only what differs need come
///   TURNTABLE_STOCK_HELPER  Xen's own helper
///   TURNTABLE_MACHINE, TURNTABLE_SERVICE, TURNTABLE_REPORTS, TURNTABLE_STATE_DIR, TURNTABLE_OWNER, TURNTABLE_CONFIGURED_DISKS
///                           set by `turntable xen migrate` and what it starts at the target (XenMove/OwnerSocket.swift): xl has no part, and
///                           the journals say who owns the domain
///   TURNTABLE_EARLY_END     at the target, set by `turntable xl-receive`: libxl's stream ends when the helpers have met; a file that tells
///                           when xl is ready to start the domain
struct Settings {
    var downtime = Nanoseconds.milliseconds(300)
    var verification = Verification.off
    var streams = 1
    var rate: BitRate?
    var addresses: [String] = []
    private var protection = "sealed"
    var peer: String?
    let disks = DiskChoice(Self.value("DISKS") ?? "")
    var isRecycling = false
    let readinessFile = Self.value("EARLY_END")
    let machine = Self.value("MACHINE")
    let service = Self.value("SERVICE")
    /// Where `turntable xen migrate` hears what becomes of it.
    static var reports: String? { value("REPORTS") }
    let stateDirectory = Self.value("STATE_DIR")
    let owner = Self.value("OWNER")
    /// The disks that the domain is to have, where they come before its devices are made.
    let configuredDisks = (Self.value("CONFIGURED_DISKS") ?? "").split(separator: "\n").compactMap { line -> XenDisk? in
        let parts = line.split(separator: "\t", maxSplits: 1).map(String.init)
        return parts.count == 2 ? XenDisk(named: parts[0], at: parts[1], number: deviceNumber(at: parts[1])) : nil
    }
    var stockHelper = "/usr/lib/xen-4.17/bin/libxl-save-helper"

    init() throws(TurntableError) {
        if let text = Self.value("DOWNTIME") {
            guard let time = Nanoseconds(parsing: text) else { throw Self.bad("DOWNTIME", text, "a time such as 300ms") }
            downtime = time
        }
        if let text = Self.value("STREAMS") {
            guard let count = Int(text), (1...Limits.streams).contains(count) else { throw Self.bad("STREAMS", text, "1 to \(Limits.streams)") }
            streams = count
        }
        if let text = Self.value("RATE") {
            guard let found = BitRate(parsing: text) else { throw Self.bad("RATE", text, "a rate such as 1gbit") }
            rate = found
        }
        if let text = Self.value("VERIFY") {
            let all: [String: Verification] = ["off": .off, "before": .before, "after": .after]
            guard let found = all[text] else { throw Self.bad("VERIFY", text, "off, before or after") }
            verification = found
        }
        if let text = Self.value("RECYCLE") {
            guard ["yes", "no"].contains(text) else { throw Self.bad("RECYCLE", text, "yes or no") }
            isRecycling = text == "yes"
        }
        addresses = (Self.value("ADDRESS") ?? "").split(separator: " ").map(String.init)
        peer = Self.value("PEER")
        stockHelper = Self.value("STOCK_HELPER") ?? stockHelper
        protection = Self.value("PROTECTION") ?? protection
        guard ["none", "sealed"].contains(protection) else { throw Self.bad("PROTECTION", protection, "sealed or none") }
    }

    /// Keys are read only when they are needed: what Xen's own helper does wants none.
    func security() throws(TurntableError) -> LineSecurity {
        protection == "none" ? .none : .sealed(try HostIdentity(directory: Self.value("KEYS") ?? "/etc/turntable"))
    }

    /// Under xl what the engine notes of its hand-off is kept in memory.
    func journals() throws(TurntableError) -> Journals {
        guard machine != nil || owner != nil else { return makeMemoryJournals() }
        guard let stateDirectory else { throw Self.bad("STATE_DIR", "", "a directory") }
        return try StateDirectory(stateDirectory).journals()
    }

    private static func value(_ name: String) -> String? {
        guard let text = unsafe getenv("TURNTABLE_\(name)") else { return nil }
        let value = unsafe String(cString: text)
        return value.isEmpty ? nil : value
    }

    private static func bad(_ name: String, _ value: String, _ wanted: String) -> TurntableError {
        TurntableError(.usage, "TURNTABLE_\(name)=\(value)", "it must be \(wanted)")
    }
}

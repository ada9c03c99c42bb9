// What the two processes at the target say to each other while libxl's domain is paused: the owner, which made it through libxl,
// and turntable-xen-helper, which receives it and lets it run.
//
//   owner: 'd', its devices are there        helper: 'r', it runs        the end of either: what is not the target's by its journal is ended
//
// A socket with a path, which libxl's other children do not inherit: the end of the connection is the end of the process.

internal import Glibc
public import TurntableCore
internal import TurntableLinux

private let devicesAreThere = UInt8(ascii: "d")
private let itRuns = UInt8(ascii: "r")

/// Where a helper finds the process that had libxl start it.
public func helperSocketPath() -> String {
    let directory = "/run/turntable"
    makeDirectory(directory)
    return "\(directory)/xen-\(getpid()).sock"
}

/// The owner's end.
public final class OwnerDoor: Sendable {
    public let path: String
    private let listener: Descriptor

    public init(path: String) throws(TurntableError) {
        self.path = path
        listener = try Socket.listenUnix(path)
    }

    deinit { removeFile(path) }

    /// Says that the devices are there, and waits until the helper lets the domain run. False if it ended without that.
    public func awaitRun() throws(TurntableError) -> Bool {
        let what = "hearing from turntable-xen-helper"
        guard let helper = try Socket.accept(listener, within: Limits.hypervisorTime) else {
            throw TurntableError(.hypervisor, what, "it did not come within \(Limits.hypervisorTime)", remedy: "see its last words above")
        }
        // A helper that is gone is seen when it is heard.
        try? Socket.write(helper, [devicesAreThere], what: what)
        return (try? Socket.read(helper, atMost: 1, what: what)) == [itRuns]
    }
}

/// The helper's end.
public final class Owner: Sendable {
    private let socket: Descriptor

    public init(path: String) throws(TurntableError) { socket = try Socket.connectUnix(path) }

    /// Returns when libxl has made the domain's devices.
    public func awaitDevices() throws(TurntableError) {
        let what = "making the domain's devices"
        guard try Socket.readExactly(socket, 1, within: Limits.xenDevicesTime, what: what) == [devicesAreThere] else {
            throw TurntableError(.protocol, what, "the owner of the domain says something else")
        }
    }

    /// The domain runs. Gives whether the owner lives to hear it.
    public func itRunsNow() -> Bool { (try? Socket.write(socket, [itRuns], what: "telling the owner")) != nil }

    /// Its end tells that the owner is gone.
    public var descriptor: Int32 { socket.rawValue }
}

/// What turntable-xen-helper finds in its environment where xl has no part: the first four at the source, the last three at the target.
public enum HelperSetting {
    /// What its journal is kept under: the domain's UUID.
    public static let machine = "TURNTABLE_MACHINE"
    /// Where the target can be asked afterwards.
    public static let service = "TURNTABLE_SERVICE"
    /// The socket of `turntable xen migrate`, for what it tells (HelperReports.swift).
    public static let reports = "TURNTABLE_REPORTS"
    public static let stateDirectory = "TURNTABLE_STATE_DIR"
    /// The owner's socket.
    public static let owner = "TURNTABLE_OWNER"
    /// The disks of the domain's configuration that the kernel here can serve: a line each, of name, tabulator and place. For a domain whose devices are
    /// made only when it is whole.
    public static let disks = "TURNTABLE_CONFIGURED_DISKS"
}

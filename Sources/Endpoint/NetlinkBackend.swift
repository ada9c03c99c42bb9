public import TurntableCore
public import TurntableLinux

/// Has the kernel send what is for a machine: a flip replaces one entry of one of its tables, by one message that was built before.
public final class NetlinkBackend: Backend {
    private let netlink: NetlinkSocket
    private let machine: String
    private let build: @Sendable () throws(TurntableError) -> [NetlinkMessage]
    private let messages = Monitor<[NetlinkMessage]>([])

    /// - Parameter sites: builds a message for each site. Devices are found when it does.
    public init(_ netlink: NetlinkSocket, of machine: String, sites: @escaping @Sendable () throws(TurntableError) -> [NetlinkMessage]) {
        self.netlink = netlink
        self.machine = machine
        build = sites
    }

    public func prepare() throws(TurntableError) {
        let built = try build()
        messages.update { $0 = built }
    }

    public func point(to site: Int) throws(TurntableError) {
        do throws(TurntableError) { try perform(site) } catch {
            // A device that was made anew has another number.
            try prepare()
            try perform(site)
        }
    }

    private func perform(_ site: Int) throws(TurntableError) {
        try netlink.perform(messages.read { $0[site] }, what: "turning the way to \(machine) to site \(site)")
    }
}

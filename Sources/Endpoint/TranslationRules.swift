// What nftables is told, so that the kernel translates addresses packet by packet. At each site a machine has an address of that site.
//
//   packet                             at the anchor                     at a site
//   to the machine's address           to its address where it is        the same; here: as it is
//   to its address at this site        -                                 here: to the machine's; else to its address where it is
//   from its address at a site         from the machine's                -
//   from the machine, leaving a site   -                                 from its address at this site
//
// None of them is of a session for the kernel (notrack), so open sessions follow a changed entry as new ones do.

internal import TurntableCore
internal import TurntableLinux

/// The rules of one family of addresses, as `nft list table ip turntable` shows them.
struct TranslationRules {
    /// A machine and what stands for it.
    struct Machine {
        var name: String
        var address: [UInt8]
        /// Its address at each site.
        var sites: [[UInt8]]
        /// This site, and the device behind which the machine is; none at the anchor.
        var here: (site: Int, device: String)?
        var isV6: Bool { address.count == 16 }

        /// All addresses of it that packets have here.
        fileprivate var own: [[UInt8]] { here == nil ? [address] + sites : targets }
        /// What is translated when it is for the machine.
        fileprivate var targets: [[UInt8]] { [address] + (here.map { [sites[$0.site]] } ?? []) }
        /// What becomes of a packet's source, by what it was.
        fileprivate var sources: [(key: [UInt8], value: [UInt8]?)] {
            here.map { [(address, sites[$0.site])] } ?? sites.map { ($0, address) }
        }
        fileprivate func target(at site: Int) -> [UInt8] { site == here?.site ? address : sites[site] }
    }

    private static let own = "own", to = "to", from = "from", inside = "inside"
    private let table: NFTable

    init(isV6: Bool) { table = NFTable("turntable", isV6: isV6) }

    var question: NetlinkMessage { table.question() }
    var removal: [NetlinkMessage] { NFTable.transaction([table.removed()]) }

    /// The whole table, in the place of what was there.
    func whole(of machines: [(machine: Machine, site: Int)]) -> [NetlinkMessage] {
        var changes = [
            table.made(), table.removed(), table.made(), table.set(Self.own, of: .address), table.set(Self.to, of: .address, isMap: true),
            table.set(Self.from, of: .address, isMap: true), table.set(Self.inside, of: .device),
        ]
        for (machine, site) in machines {
            changes.append(table.adding(machine.own.map { ($0, nil) }, to: Self.own))
            changes.append(table.adding(machine.targets.map { ($0, machine.target(at: site)) }, to: Self.to))
            changes.append(table.adding(machine.sources, to: Self.from))
        }
        let devices = Set(machines.compactMap(\.machine.here?.device)).sorted()
        if !devices.isEmpty { changes.append(table.adding(devices.map { (NFTable.Kind.key(device: $0), nil) }, to: Self.inside)) }
        for hook in [NFTable.Hook.prerouting, .output] {
            changes += [
                table.chain(hook), table.rule(hook, [.find(.destination, in: Self.own), .notrack]), table.rule(hook, [.find(.source, in: Self.own), .notrack]),
                table.rule(hook, [.translate(.destination, by: Self.to)]),
            ]
        }
        changes += [table.chain(.postrouting), table.rule(.postrouting, [.leavesByNone(of: Self.inside), .translate(.source, by: Self.from)])]
        // What the anchor itself asked a machine.
        if devices.isEmpty { changes += [table.chain(.input), table.rule(.input, [.translate(.source, by: Self.from)])] }
        return NFTable.transaction(changes)
    }

    /// What is for the machine goes to a site from now on.
    func flip(_ machine: Machine, to site: Int) -> [NetlinkMessage] {
        NFTable.transaction([
            table.removing(machine.targets, from: Self.to), table.adding(machine.targets.map { ($0, machine.target(at: site)) }, to: Self.to),
        ])
    }
}

import ArgumentParser
import Endpoint
import Foundation
import Protection
import TurntableCore
import TurntableLinux

/// Whom this host tells where a machine is, and which site this is.
struct AnnouncementOptions: ParsableArguments {
    @Option(
        name: .customLong("announce"),
        help: ArgumentHelp(
            "A gateway to tell where the machine is, so that its traffic goes there; repeatable, the one at this site first. See docs/endpoint.md.",
            valueName: "address:port"))
    var keepers: [String] = []
    @Option(
        name: .customLong("announce-key"),
        help: ArgumentHelp(
            "The key of the machine's endpoint, as `turntable-gateway key` makes it; or a directory with NAME.key of several.", valueName: "path"))
    var key: String?
    @Option(
        name: .customLong("announce-site"),
        help: ArgumentHelp("Which of the endpoint's sites this is: its place in the gateways' lists, the first being 0.", valueName: "n"))
    var site: UInt16?

    /// Who tells, and this site. Nil if nobody is to be told.
    func announcer() throws(TurntableError) -> (Announcer, site: UInt16)? {
        guard !keepers.isEmpty || key != nil || site != nil else { return nil }
        guard !keepers.isEmpty, let key, let site else {
            throw TurntableError(.usage, "announcing machines", "--announce, --announce-key and --announce-site belong together")
        }
        var addresses: [Address] = []
        for text in keepers {
            guard let address = Address(parsing: text, defaultPort: defaultGatewayPort) else {
                throw TurntableError(.usage, "--announce \(text)", "it is no address:port")
            }
            addresses.append(address)
        }
        if (try? FileManager.default.attributesOfItem(atPath: key)[.type] as? FileAttributeType) == .typeDirectory {
            // Machines' names are file names at both ends, so this leads nowhere else.
            return (try Announcer(to: addresses) { (machine) throws(TurntableError) in try EndpointKey(file: "\(key)/\(machine).key") }, site)
        }
        let only = try EndpointKey(file: key)
        return (try Announcer(to: addresses) { _ in only }, site)
    }
}

internal import Foundation
public import TurntableCore

/// Machines of this site whose address stays while they move (docs/endpoint.md): those that have a key here.
public struct SiteEndpoints: Sendable {
    /// Gateways to be told, the one at this site first.
    var keepers: [String]
    /// A directory with NAME.key of each.
    var keys: String
    /// All sites, in the order in which every gateway lists them.
    var sites: [String]

    public init(keepers: [String], keys: String, sites: [String]) throws(TurntableError) {
        guard !keepers.isEmpty, !sites.isEmpty, Set(sites).count == sites.count else {
            throw TurntableError(
                .usage, "announcing machines", "--announce, --announce-keys and --announce-sites belong together, and no site stands twice",
                remedy: "see docs/orchestrator.md")
        }
        (self.keepers, self.keys, self.sites) = (keepers, keys, sites)
    }

    /// What `turntable receive` and, with a target, `turntable send` are told for it; nothing if the machine has no key here.
    func options(_ machine: String, at site: String?, to target: String? = nil) throws(TurntableError) -> [String] {
        guard FileManager.default.fileExists(atPath: "\(keys)/\(machine).key") else { return [] }
        var words = keepers.flatMap { ["--announce", $0] } + ["--announce-key", keys, "--announce-site", "\(try number(of: site, machine))"]
        if let target { words += ["--announce-target", "\(try number(of: target, machine))"] }
        return words
    }

    private func number(of site: String?, _ machine: String) throws(TurntableError) -> Int {
        guard let site, let number = sites.firstIndex(of: site) else {
            throw TurntableError(
                .refused, "announcing \(machine)", "its endpoint has no site \(site ?? "without a name"): they are \(sites.joined(separator: ", "))",
                remedy: "list all sites with --announce-sites, as the gateways do")
        }
        return number
    }
}

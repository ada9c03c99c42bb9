internal import Glibc
internal import TurntableCore
internal import TurntableLinux
internal import XenAdapter
internal import XenMove

/// turntable-xen, which had libxl make this domain. Where it was killed, another process of it does what it would have done.
final class DomainOwner: XenOwner {
    private let owner: Owner
    private let domain: UInt32
    private let devices = Monitor(false)

    init(path: String, _ domain: UInt32) throws(TurntableError) {
        owner = try Owner(path: path)
        self.domain = domain
    }

    var descriptor: Int32 { owner.descriptor }

    func awaitDevices() throws(TurntableError) { try owner.awaitDevices() }

    /// For one that is asked now and then: from now on it knows when they are there.
    func listen() {
        _ = WorkerThread("tt-owner") { [self] in
            if (try? awaitDevices()) != nil { devices.update { $0 = true } }
        }
    }

    var hasDevices: Bool { devices.read { $0 } }

    func itRuns() {
        if !owner.itRunsNow() { start("watch") }
    }

    func itWillNotRun() {
        if LibxlStream(descriptor: descriptor).hasHungUp(within: .zero) { start("destroy") }
    }

    private func start(_ word: String) {
        do throws(TurntableError) {
            let nothing = try Descriptor.open("/dev/null", .write, what: "opening /dev/null")
            // Its program lies beside this one, whose name is longer.
            let program = String(CommandLine.arguments[0].dropLast("-helper".count))
            _ = try ChildProcess([program, word, "\(domain)"], output: nothing.rawValue)
        } catch {
            Helper.say("domain \(domain) is left without its owner: \(error)")
        }
    }
}

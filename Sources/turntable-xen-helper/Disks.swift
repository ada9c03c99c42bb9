// Disks of a domain that go along: logical volumes that xen-blkback serves, by the engine's block path (BlockDelta), beside memory.
//
// What is written at the target is not the source's to say: it is the device that libxl there makes a disk of this domain,
// under the same name (XenTargetHost), if the operator of that host lets it (TURNTABLE_DISKS) and nobody else has it open.

internal import BlockDelta
internal import Glibc
internal import TurntableCore
internal import TurntableLinux
internal import XenAdapter

/// TURNTABLE_DISKS: `all`, or the names of disks.
struct DiskChoice {
    let names: Set<String>
    init(_ text: String) { names = Set(text.split(separator: " ").map(String.init)) }

    var isAll: Bool { names.contains("all") }
    func contains(_ disk: XenDisk) -> Bool { isAll || names.contains(disk.name) }
}

/// Those of a domain that leaves.
struct SourceDisks {
    private let chosen: [(its: XenDisk, name: String, volume: String)]
    /// What is written to them does not come along.
    private let left: [XenDisk]

    /// Looks for them; nothing is done to them yet.
    init(of domain: XenDomain, _ choice: DiskChoice) throws(TurntableError) {
        let its = choice.names.isEmpty ? [] : try domain.disks()
        let what = "moving the disks of domain \(domain.number)"
        if !choice.isAll, let missing = choice.names.first(where: { name in !its.contains { $0.name == name } }) {
            let known = its.isEmpty ? "none" : its.map(\.name).joined(separator: ", ")
            throw TurntableError(.usage, what, "it has no \(missing); its disks are \(known)", remedy: "name those in TURNTABLE_DISKS")
        }
        // With `all`, what the guest cannot write is as the domain's configuration has it on both hosts.
        let isChosen = { (disk: XenDisk) in choice.contains(disk) && (disk.isWritable || !choice.isAll) }
        chosen = try its.filter(isChosen).map { (disk) throws(TurntableError) in
            guard let device = disk.servedDevice, let name = LVM.volumeName(ofDevice: device), let volume = LVM.identifier(ofDevice: device) else {
                throw TurntableError(
                    .unsupported, what, "\(disk.name) (\(disk.place)) is no logical volume that xen-blkback serves",
                    remedy: "if the target sees the same storage, name only the others in TURNTABLE_DISKS")
            }
            return (disk, name, volume)
        }
        left = its.filter { !isChosen($0) }
    }

    var isEmpty: Bool { chosen.isEmpty }

    /// What reads them. From here on LVM works for this process.
    func open(
        for machine: String, note: @escaping @Sendable (String) -> Void
    ) throws(TurntableError) -> [(its: XenDisk, volume: String, source: any BlockSource)] {
        if !left.isEmpty {
            let list = left.map { "\($0.name) (\($0.place)\($0.isWritable ? "" : ", read-only"))" }.joined(separator: ", ")
            note("\(list) stays: the target must have the same storage")
        }
        return try chosen.map { (disk) throws(TurntableError) in
            let lvm = LVM(helper: HelperProcess([try LVM.helperPath()]))
            return (disk.its, disk.volume, try VolumeSource(disk.name, as: disk.its.name, for: machine, lvm: lvm, watching: note))
        }
    }

    // MARK: - The end of a move that was killed

    static let endingWord = "--end-disks"

    /// Becomes a process that has no volume open and removes the snapshots that this one made; returns only if that fails. Nil if there are none.
    var ending: (@Sendable () -> Void)? { isEmpty ? nil : Self.becomeTheirEnd }

    @Sendable private static func becomeTheirEnd() { try? becomeProgram(["/proc/self/exe", endingWord]) }

    static func endThoseOfThisProcess() -> Never {
        do throws(TurntableError) { try LVM(helper: HelperProcess([try LVM.helperPath()])).removeOwn() } catch { exit(error.kind.exitCode) }
        exit(0)
    }
}

extension Settings {
    /// Opens a disk of a domain that comes.
    var openDisk: XenTargetHost.OpenDisk {
        { (disk, isMade, size, source, machine) throws(TurntableError) in
            let what = "taking the disk \(disk.name) of \(machine)"
            guard disks.contains(disk) else {
                throw TurntableError(.refused, what, "this host does not let it come", remedy: "set TURNTABLE_DISKS for what receives it here")
            }
            guard let device = disk.servedDevice else {
                throw TurntableError(.unsupported, what, "here it is \(disk.place), no block device that xen-blkback serves")
            }
            guard LVM.identifier(ofDevice: device) != source else {
                throw TurntableError(
                    .refused, what, "\(disk.place) is the volume that the source has: both hosts see the same storage",
                    remedy: "leave it out of TURNTABLE_DISKS at the source")
            }
            return try VolumeSink(
                device, as: disk.name, of: machine, size: size, recycling: isRecycling, sharing: isMade ? .one : .none,
                journals: SinkJournals(directory: "\(stateDirectory ?? Self.defaultStateDirectory)/disks"))
        }
    }

    private static let defaultStateDirectory = "/var/lib/turntable"
}

extension XenDisk {
    /// A path of the device that xen-blkback serves, if it is that device's.
    fileprivate var servedDevice: String? { device.flatMap { deviceNumber(at: $0.path) == $0.number ? $0.path : nil } }
}

import ArgumentParser
import BlockDelta
import Hypervisors
import TurntableCore

/// Which disks `send` takes along.
struct SentDisks: ParsableArguments {
    @Option(
        name: .customLong("disk"),
        help: ArgumentHelp(
            "A disk that moves with the machine, or all of them; repeatable. Default: none, its storage is the same on both hosts.",
            valueName: "name|all"))
    var names: [String] = []
    @Option(
        name: .customLong("disk-method"),
        help: ArgumentHelp(
            "How to learn what was written: lvm (snapshots of a logical volume) or bitmap (QEMU's). Default: lvm where the disk is one.",
            valueName: "method"))
    var method: String?

    var selection: DiskSelection { names.contains("all") ? .all : .named(names) }

    func check() throws(TurntableError) {
        guard [nil, "lvm", "bitmap"].contains(method) else {
            throw TurntableError(.usage, "--disk-method \(method ?? "")", "it must be lvm or bitmap")
        }
    }

    /// What reads a disk that is a logical volume; nil leaves it to QEMU.
    func volume(of machine: String, note: @escaping @Sendable (String) -> Void) -> (QEMUDrive) throws(TurntableError) -> (any BlockSource)? {
        { (drive) throws(TurntableError) in
            let volume = drive.isRaw && method != "bitmap" ? LVM.volumeName(ofDevice: drive.path) : nil
            guard let volume else {
                if method != "lvm" { return nil }
                throw TurntableError(
                    .usage, "--disk-method lvm", "the disk \(drive.name) (\(drive.format), \(drive.path)) is no logical volume",
                    remedy: "leave the option out")
            }
            return try VolumeSource(volume, as: drive.name, for: machine, lvm: LVM(helper: HelperProcess([LVM.helperPath()])), watching: note)
        }
    }

    /// Nobody should find out at the target.
    func describe(left drives: [QEMUDrive]) -> String? {
        guard !drives.isEmpty else { return nil }
        let list = drives.map { "\($0.name) (\($0.path))" }.joined(separator: ", ")
        return "what is written to \(list) does not come along: the target must see the same storage, or say --disk all"
    }
}

/// Where `receive` puts disks.
struct ReceivedDisks: ParsableArguments {
    @Option(
        name: .customLong("disk"),
        help: ArgumentHelp(
            """
            Where a disk that comes along goes: a file, which is made if it is not there, or a block device; repeatable. Default: as at \
            the source, under --allow-path.
            """,
            valueName: "name=path"))
    var places: [String] = []
    @Flag(name: .customLong("overwrite-disks"), help: "What the disks' places hold is lost. Without it they must be empty.")
    var isOverwriting = false
    @Flag(
        name: .customLong("recycle"),
        help: """
            What the disks' places hold is an older copy: what is the same in it is not sent again. It is overwritten. So is memory that `send \
            --keep-memory` kept here when the machine left.
            """)
    var isRecycling = false

    /// - Parameter journals: by which what a crash of this host interrupted is known again.
    func disks(_ journals: SinkJournals) throws(TurntableError) -> TargetDisks {
        var disks = TargetDisks { (place, storage) throws(TurntableError) in
            try VolumeSink(
                place.path, as: place.name, of: place.machine, size: place.size, overwriting: storage.mayHoldSomething,
                sharing: storage.isOpenThere ? .any : .none, journals: journals)
        }
        disks.isOverwriting = isOverwriting
        disks.isRecycling = isRecycling
        for text in places {
            guard let equals = text.firstIndex(of: "="), equals != text.startIndex, text[text.index(after: equals)...].hasPrefix("/") else {
                throw TurntableError(.usage, "--disk \(text)", "it is not written NAME=PATH, with a whole path")
            }
            guard disks.places.updateValue(String(text[text.index(after: equals)...]), forKey: String(text[..<equals])) == nil else {
                throw TurntableError(.usage, "--disk \(text)", "the disk has two places")
            }
        }
        return disks
    }
}

internal import Glibc
internal import MigrationEngine
public import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// How a target treats the disks that come along.
public struct TargetDisks: Sendable {
    /// What is known of storage before it is opened.
    public struct Storage: Sendable {
        /// What it holds is no reason to refuse it.
        public var mayHoldSomething: Bool
        /// The QEMU of the machine that comes has it open already, and waits.
        public var isOpenThere: Bool
    }

    /// Where disks go, by name. Others go to the path that the source has them at.
    public var places: [String: String] = [:]
    /// What the places hold is lost.
    public var isOverwriting = false
    /// What the places hold is an older copy: what is the same in it need not be sent.
    public var isRecycling = false
    /// Opens storage for a disk, and makes the file if nothing is there.
    public var open: @Sendable (DiskPlace, Storage) throws(TurntableError) -> any BlockSink

    public init(open: @escaping @Sendable (DiskPlace, Storage) throws(TurntableError) -> any BlockSink) { self.open = open }

    /// The sinks of one machine, in the offer's order.
    struct Opened {
        var sinks: [any BlockSink] = []
        /// Files that were not there before.
        var made: [String] = []
        var isRecycling = false
    }

    // MARK: - Where they go

    /// Of a machine that is started here.
    /// - Parameter isAllowed: whether a path that the source names may be used.
    func places(for offer: Offer, _ description: QEMUDescription, isAllowed: (String) -> Bool) throws(TurntableError) -> [DiskPlace] {
        var found: [DiskPlace] = []
        for disk in offer.disks {
            guard let drive = description.disks.first(where: { $0.name == disk.name }) else {
                throw TurntableError(.protocol, "the offer of \(offer.machine)", "its description does not have the disk \(disk.name)")
            }
            let own = places[disk.name]
            let remedy = "say where it goes with --disk \(disk.name)=PATH"
            if own == nil, !drive.isRaw {
                throw TurntableError(
                    .refused, "placing the disk \(disk.name)", "it is \(drive.format) at the source, and is raw here", remedy: remedy)
            }
            guard own != nil || isAllowed(drive.path) else {
                throw TurntableError(.refused, "placing the disk \(disk.name)", "\(drive.path) is not under any --allow-path", remedy: remedy)
            }
            var place = DiskPlace(
                machine: offer.machine, name: disk.name, path: own ?? drive.path, size: ByteCount(Int(disk.bytes)), sourcePath: drive.path,
                isSourceRaw: drive.isRaw)
            place.look()
            found.append(place)
        }
        return try checked(found)
    }

    /// Of a machine that a controller has started: where its QEMU has them.
    func places(for offer: Offer, _ monitor: QMP) throws(TurntableError) -> [DiskPlace] {
        let drives = offer.disks.isEmpty ? [] : try QEMUDrive.all(monitor)
        var found: [DiskPlace] = []
        for disk in offer.disks {
            let what = "placing the disk \(disk.name)"
            guard let drive = drives.first(where: { $0.name == disk.name }) else {
                let known = drives.isEmpty ? "none" : drives.map(\.name).joined(separator: ", ")
                throw TurntableError(.refused, what, "the machine that waits here has \(known)", remedy: "start it with the same disks")
            }
            guard drive.isRaw, drive.size == ByteCount(Int(disk.bytes)) else {
                throw TurntableError(
                    .refused, what, "the machine that waits here has it as \(drive.format) of \(drive.size), and \(ByteCount(Int(disk.bytes))) come",
                    remedy: "start it with raw storage of that size")
            }
            guard places[disk.name] ?? drive.path == drive.path else {
                throw TurntableError(.refused, what, "the machine that waits here has it at \(drive.path)", remedy: "leave --disk out")
            }
            found.append(
                DiskPlace(
                    machine: offer.machine, name: disk.name, path: drive.path, size: drive.size, sourcePath: drive.path, isSourceRaw: true))
        }
        return try checked(found)
    }

    private func checked(_ found: [DiskPlace]) throws(TurntableError) -> [DiskPlace] {
        guard Set(found.map(\.path)).count == found.count else {
            throw TurntableError(.refused, "placing disks", "two of them would go to the same place", remedy: "give each its own with --disk NAME=PATH")
        }
        return found
    }

    // MARK: - Opening

    /// - Parameters:
    ///   - isOpenThere: the machine's QEMU has them open.
    ///   - isTakenUp: an earlier process of this receiver wrote to them.
    func open(_ places: [DiskPlace], isOpenThere: Bool = false, isTakenUp: Bool = false) throws(TurntableError) -> Opened {
        var opened = Opened(isRecycling: isRecycling)
        let storage = Storage(mayHoldSomething: isTakenUp || isOverwriting || isRecycling, isOpenThere: isOpenThere)
        do throws(TurntableError) {
            for place in places {
                let isNew = unsafe access(place.path, F_OK) != 0
                opened.sinks.append(try open(place, storage))
                if isNew { opened.made.append(place.path) }
            }
        } catch {
            opened.discard()
            throw error
        }
        return opened
    }
}

extension TargetDisks.Opened {
    /// What was made for a machine that did not come.
    mutating func discard() {
        sinks = []
        for path in made { removeFile(path) }
        made = []
    }

    var contents: [TargetContent] { sinks.map { $0.isZeroed ? .zero : isRecycling || $0.isUnfinishedCopy ? .older : .unknown } }
}

extension DiskPlace {
    /// What is there already decides how QEMU is told of it.
    fileprivate mutating func look() {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { return }
        isDevice = status.st_mode & S_IFMT == S_IFBLK
        guard isDevice || status.st_mode & S_IFMT == S_IFREG, let file = try? Descriptor.open(path, .read, what: path) else { return }
        isLarger = lseek(file.rawValue, 0, SEEK_END) > size.value
    }
}

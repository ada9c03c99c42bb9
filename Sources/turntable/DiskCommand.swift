import ArgumentParser
import BlockDelta
import Foundation
import TurntableCore
import TurntableLinux

struct DiskCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disk", abstract: "Work with disks without their machines.", subcommands: [CopyCommand.self, DeviceCommand.self])
}

struct CopyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "copy", abstract: "Copy a logical volume that is in use, exactly as it is when its writer has stopped.",
        discussion: """
            Passes follow each other, each of what changed during the one before, until what is left is at most --rest. Then \
            --before-last is run, which must end whatever writes the volume, and the last changes are copied. A copy that was \
            killed may be begun again.

            EXAMPLES
              turntable disk copy vg/web /dev/backup/web --rest 8M --before-last 'systemctl stop web'
              turntable disk copy vg/web /srv/images/web.img --json
            """)

    @Argument(help: "The volume: GROUP/VOLUME.") var volume: String
    @Argument(help: "A logical volume, a block device or an image file; a file that is not there is made.") var target: String
    @Option(help: "Chunk size of snapshots; a thin volume's is its pool's.") var chunk = "64K"
    @Option(help: "What may be left when the writer stops.") var rest = "16M"
    @Option(help: "A shell command that ends what writes the volume. Without it the volume must not be written.") var beforeLast: String?
    @Flag(help: "Whatever the target holds is lost.") var overwrite = false
    @Flag(help: "Print one JSON object for each pass.") var json = false
    @OptionGroup var stateDirectory: StateDirectoryOption

    func run() throws {
        try reportingErrors {
            guard let chunkBytes = ByteCount(parsing: chunk), let restBytes = ByteCount(parsing: rest) else {
                throw TurntableError(.usage, "reading the options", "--chunk \(chunk) --rest \(rest)", remedy: "sizes as 64K, 16M")
            }
            let stop = Monitor(false)
            Signals.onInterrupt { _ in stop.update { $0 = true } }
            let path = URL(filePath: target).path
            let source = try VolumeSource(
                volume, as: volume, for: "copy to \(path)", lvm: LVM(helper: HelperProcess([LVM.helperPath()])), chunkBytes: chunkBytes.value,
                watching: { FileHandle.standardError.write(Data("turntable: \($0)\n".utf8)) })
            guard !isSameDevice(target, source.origin.devicePath) else {
                throw TurntableError(.usage, "copying \(volume) to \(target)", "the target is the volume itself")
            }
            let sink = try VolumeSink(
                path, as: source.origin.fullName, of: "copy", size: source.size, overwriting: overwrite, journals: stateDirectory.sinkJournals)
            let replication = Replication(
                from: source, to: sink, report: { report in show(report, deltaBytesRead: source.deltaBytesRead) },
                isCancelled: { stop.read { $0 } })
            try replication.run(fits: { left, _ in left <= restBytes }, stopWriter: stopWriter)
        }
    }

    private func stopWriter() throws(TurntableError) {
        guard let beforeLast else { return }
        let code = try ChildProcess(["sh", "-c", beforeLast]).wait()
        guard code == 0 else { throw TurntableError(.refused, "running --before-last", "it ended with \(code)") }
    }

    private func show(_ report: PassReport, deltaBytesRead: Int) {
        if json {
            struct Line: Encodable {
                var event = "pass"
                var report: PassReport
                var deltaBytesRead: Int
            }
            let encoder = JSONEncoder()
            encoder.outputFormatting = .sortedKeys
            let line = (try? encoder.encode(Line(report: report, deltaBytesRead: deltaBytesRead))) ?? Data()
            print(String(decoding: line, as: UTF8.self))
        } else {
            let why = report.lossReason.map { "  ALL OF IT AGAIN: \($0)" } ?? ""
            print(
                "pass \(report.pass)\(report.isLast ? " (last)" : "")  \(ByteCount(report.bytes)) in \(report.chunks) chunks  "
                    + "\(Nanoseconds.milliseconds(report.milliseconds))  found in \(Nanoseconds.milliseconds(report.deltaMilliseconds))\(why)"
            )
        }
        fflush(nil)
    }
}

struct GarbageCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gc", abstract: "Remove the snapshots that killed processes left: those that carry the tag turntable.",
        discussion: """
            Those whose process is there stay. A send that was killed and is to go on needs its own: after gc it sends its disks \
            from the beginning.
            """)

    @Option(help: "Only those of this volume: GROUP/VOLUME.") var of: String?

    func run() throws {
        try reportingErrors {
            let lvm = LVM(helper: HelperProcess([try LVM.helperPath()]))
            for name in try lvm.collectGarbage(of: of) { print(name) }
        }
    }
}

/// What the kernel says of a device, for the tests of this program's calls to it.
struct DeviceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "device", abstract: "Ask device-mapper.", shouldDisplay: false)
    enum Verb: String, ExpressibleByArgument { case status, suspend, resume }

    @Argument var verb: Verb
    @Argument var name: String

    func run() throws {
        try reportingErrors {
            switch verb {
            case .status:
                guard let target = try DeviceMapper.status(of: name) else {
                    throw TurntableError(.usage, "asking for the state of the device \(name)", "there is none")
                }
                print(target.type, target.size.value, target.parameters)
            case .suspend: try DeviceMapper.suspend(name)
            case .resume: try DeviceMapper.resume(name)
            }
        }
    }
}

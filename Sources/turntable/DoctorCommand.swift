import ArgumentParser
import Foundation
import TransportVerbs
import TurntableCore

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Say what this host has, and what it lacks.", subcommands: [DoctorRDMACommand.self])
}

struct DoctorRDMACommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rdma",
        abstract: "Devices, ports, addresses and limits for --transport rdma, and a remedy for each that is missing.",
        discussion: """
            Exit code 0 if data streams can go over RDMA here, else 7. TCP needs none of this.

            EXAMPLES
              turntable doctor rdma
              turntable doctor rdma --json
            """)

    @Flag(help: "Print one JSON object.") var json = false

    func run() throws {
        let diagnosis = VerbsDiagnosis.ofThisHost()
        if json { try printJSON(diagnosis) } else { printText(diagnosis) }
        if !diagnosis.isUsable { throw ExitCode(TurntableError.Kind.unsupported.exitCode) }
    }

    private func printJSON(_ diagnosis: VerbsDiagnosis) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        print(String(decoding: try encoder.encode(diagnosis), as: UTF8.self))
    }

    private func printText(_ diagnosis: VerbsDiagnosis) {
        print("libraries        \(diagnosis.hasLibraries ? "libibverbs, librdmacm" : "missing")")
        let lockable = diagnosis.lockableBytes.map { "\(ByteCount(Int($0)))" } ?? "no limit"
        print("lockable memory  \(lockable) (at most \(ByteCount(diagnosis.neededBytes)) are pinned)")
        for device in diagnosis.devices {
            let largest = ByteCount(Int(clamping: device.largestRegionBytes))
            print("device           \(device.name): regions of up to \(largest), \(device.queuePairs) queue pairs of \(device.queuedWrites) requests")
            for port in device.ports {
                let state = port.isActive ? "active" : "not active"
                let gids = port.gids.joined(separator: " ")
                print("  port \(port.number)         \(state), \(port.link), MTU \(port.mtuBytes) of \(port.largestMTUBytes), GIDs \(gids)")
            }
        }
        for finding in diagnosis.findings { print("missing          \(finding.what)\n  remedy         \(finding.remedy)") }
        print(diagnosis.isUsable ? "usable           yes" : "usable           no")
    }
}

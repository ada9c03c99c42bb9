import ArgumentParser
import BlockDelta
import Foundation
import Hypervisors
import MigrationEngine
import Protection
import TurntableCore
import TurntableLinux

/// The port that `receive` listens on and `send` connects to unless told otherwise.
let defaultPort: UInt16 = 4906
/// Where link elements listen.
let defaultLinkPort: UInt16 = 4913

struct RunDirectoryOption: ParsableArguments {
    @Option(
        name: .customLong("run-dir"),
        help: ArgumentHelp("Where this host keeps track of its machines; also $TURNTABLE_RUN_DIR.", valueName: "directory"))
    var path: String = environmentValue("TURNTABLE_RUN_DIR") ?? "/run/turntable"

    var directory: RunDirectory { RunDirectory(path) }
}

struct StateDirectoryOption: ParsableArguments {
    @Option(
        name: .customLong("state-dir"),
        help: ArgumentHelp(
            "Where this host keeps its journals of hand-offs and disks, which must survive it; also $TURNTABLE_STATE_DIR.", valueName: "directory"))
    var path: String = environmentValue("TURNTABLE_STATE_DIR") ?? "/var/lib/turntable"

    var directory: StateDirectory { StateDirectory(path) }
    func journals() throws(TurntableError) -> Journals { try directory.journals() }
    /// What this host remembers of tokens.
    var tokenDirectory: String { "\(path)/tokens" }
    var sinkJournals: SinkJournals { SinkJournals(directory: "\(path)/disks") }
    var keptMemory: KeptMemory { KeptMemory(directory: "\(path)/memory") }
}

/// How the line between the hosts is protected.
struct ProtectionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Directory with this host's key and certificate, as `turntable keys` makes them; also $TURNTABLE_KEYS.", valueName: "directory"))
    var keys: String = environmentValue("TURNTABLE_KEYS") ?? "/etc/turntable"
    @Option(
        help: ArgumentHelp(
            "sealed (TLS 1.3 and AES-256-GCM), or none: for a line that nobody else can reach, and only if both ends say so.",
            valueName: "kind"))
    var protection = "sealed"

    func security() throws(TurntableError) -> LineSecurity {
        switch protection {
        case "sealed": return .sealed(try HostIdentity(directory: keys))
        case "none": return .none
        default: throw TurntableError(.usage, "--protection \(protection)", "it must be sealed or none")
        }
    }
}

/// Where to listen, and to whom.
struct ListeningOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Address to listen on. Default: all of this host's; with --protection none only 127.0.0.1.", valueName: "address:port"))
    var listen: String?
    @Option(
        name: .customLong("allow-peer"),
        help: ArgumentHelp(
            "A host that may send here, as its certificate names it; repeatable. Default: all whom an authority in --keys vouches for.",
            valueName: "host"))
    var allowPeers: [String] = []

    /// With protection all of this host's addresses, without only where nobody else is.
    func address(_ protection: ProtectionOptions, defaultPort: UInt16) throws(TurntableError) -> Address {
        let text = listen ?? (protection.protection == "none" ? "127.0.0.1" : "0.0.0.0")
        guard let address = Address(parsing: text, defaultPort: defaultPort) else {
            throw TurntableError(.usage, "--listen \(text)", "it is no address:port")
        }
        return address
    }
}

/// What carries the data streams.
struct TransportOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "tcp, or rdma: data streams over the RDMA device of the line's network, the control stream over TCP as ever. See `turntable doctor rdma`.",
            valueName: "kind")) var transport = "tcp"
    @Option(help: ArgumentHelp("tcp: what --transport rdma does where RDMA does not work. Default: it fails.", valueName: "kind"))
    var fallback: String?

    enum Kind {
        case tcp
        case rdma(orTCP: Bool)
    }

    func kind() throws(TurntableError) -> Kind {
        guard fallback == nil || fallback == "tcp" else { throw TurntableError(.usage, "--fallback \(fallback!)", "it must be tcp") }
        switch transport {
        case "tcp":
            guard fallback == nil else { throw TurntableError(.usage, "--fallback tcp", "it is for --transport rdma") }
            return .tcp
        case "rdma": return .rdma(orTCP: fallback != nil)
        default: throw TurntableError(.usage, "--transport \(transport)", "it must be tcp or rdma")
        }
    }
}

struct ByteCountOption: ExpressibleByArgument {
    let value: ByteCount
    init(_ value: ByteCount) { self.value = value }
    init?(argument: String) {
        guard let value = ByteCount(parsing: argument) else { return nil }
        self.value = value
    }
}

struct RateOption: ExpressibleByArgument {
    let value: BitRate
    init?(argument: String) {
        guard let value = BitRate(parsing: argument) else { return nil }
        self.value = value
    }
}

struct TimeOption: ExpressibleByArgument {
    let value: Nanoseconds
    init?(argument: String) {
        guard let value = Nanoseconds(parsing: argument) else { return nil }
        self.value = value
    }
    init(_ value: Nanoseconds) { self.value = value }
    var defaultValueDescription: String { value.description }
}

/// Runs a command's work and turns its error into one line and an exit code.
func reportingErrors(json: Bool = false, _ body: () throws -> Void) throws {
    do { try body() } catch let error as TurntableError {
        if json {
            print(
                jsonLine([
                    "event": .text("failed"), "kind": .text(error.kind.rawValue), "what": .text(error.what), "why": .text(error.why),
                    "remedy": .text(error.remedy),
                ]))
        }
        FileHandle.standardError.write(Data("turntable: \(error)\n".utf8))
        throw ExitCode(error.kind.exitCode)
    }
}

/// A JSON value as events are made of.
enum EventValue: Encodable {
    case text(String)
    case number(Double)
    case object(any Encodable)

    func encode(to encoder: any Encoder) throws {
        switch self {
        case .text(let value): try value.encode(to: encoder)
        case .number(let value): try value.encode(to: encoder)
        case .object(let value): try value.encode(to: encoder)
        }
    }
}

func jsonLine(_ members: [String: EventValue]) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(members) else { preconditionFailure("an event is JSON") }
    return String(decoding: data, as: UTF8.self)
}

/// This program's own path, to start it again.
func ownExecutable() -> String {
    (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
}

/// The library that is preloaded into QEMU: beside this program, in ../lib/turntable, or where $TURNTABLE_RAM_LIBRARY says.
func preloadLibrary() throws(TurntableError) -> String {
    let own = URL(filePath: ownExecutable()).deletingLastPathComponent()
    var places = [
        own.appending(path: "libturntable-ram.so").path, own.appending(path: "../lib/turntable/libturntable-ram.so").standardized.path,
    ]
    if let named = environmentValue("TURNTABLE_RAM_LIBRARY") { places = [named] }
    if let found = places.first(where: { FileManager.default.fileExists(atPath: $0) }) { return found }
    throw TurntableError(
        .unsupported, "looking for libturntable-ram.so", "it is not at \(places.joined(separator: " nor at "))",
        remedy: "build it with `make build`, or set TURNTABLE_RAM_LIBRARY")
}

/// Where a command's last word says that the target is.
func targetAddress(_ text: String, defaultPort: UInt16) throws(TurntableError) -> Address {
    guard let address = Address(parsing: text, defaultPort: defaultPort) else {
        throw TurntableError(.usage, "the target \(text)", "it is no host:port")
    }
    return address
}

/// Refuses a number of data streams that there cannot be.
func checkStreams(_ streams: Int) throws(TurntableError) {
    guard (1...Limits.streams).contains(streams) else {
        throw TurntableError(.usage, "--streams \(streams)", "it must be 1 to \(Limits.streams)")
    }
}

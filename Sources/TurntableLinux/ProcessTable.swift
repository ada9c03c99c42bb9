internal import FoundationEssentials
public import TurntableCore

/// What /proc says about processes. Source: proc(5).
public enum ProcessTable {
    /// When a process started, in clock ticks since boot; nil if there is none, or only its remains.
    public static func startTime(of process: Int32) -> UInt64? {
        guard let text = readText("/proc/\(process)/stat"), let close = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: close)...].split(separator: " ")
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return UInt64(fields[19])
    }

    /// The process whose standard output goes to a file: who it was is known as long as the file's name is.
    public static func process(writingTo path: String) -> Int32? {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return entries.lazy.compactMap { Int32($0) }.first {
            startTime(of: $0) != nil && (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\($0)/fd/1")) == path
        }
    }

    /// A memory file of ours that another process has open.
    public struct OpenMemoryFile: Sendable {
        public var name: String
        public var descriptor: Int32
    }

    /// The memory files that `turntable run` gave to a process.
    public static func memoryFiles(of process: Int32) throws(TurntableError) -> [OpenMemoryFile] {
        let directory = "/proc/\(process)/fd"
        let entries: [String]
        do { entries = try FileManager.default.contentsOfDirectory(atPath: directory) } catch {
            throw TurntableError(
                .hypervisor, "looking at the descriptors of process \(process)", "\(error)",
                remedy: "run as the user that runs the machine, or as root")
        }
        var found: [String: Int32] = [:]
        for entry in entries {
            guard let number = Int32(entry),
                let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "\(directory)/\(entry)"),
                let name = memoryFileName(target)
            else { continue }
            found[name] = number
        }
        return found.map { OpenMemoryFile(name: $0.key, descriptor: $0.value) }.sorted { $0.name < $1.name }
    }

    /// Where a process maps each of our memory files: the address of offset 0 by name.
    public static func memoryFileMappings(of process: Int32) -> [String: UInt64] {
        var found: [String: UInt64] = [:]
        for line in (readText("/proc/\(process)/maps") ?? "").split(separator: "\n") {
            let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
            guard fields.count == 6, let name = memoryFileName(String(fields[5].drop { $0 == " " })), found[name] == nil,
                let start = UInt64(fields[0].prefix { $0 != "-" }, radix: 16), let offset = UInt64(fields[2], radix: 16)
            else { continue }
            found[name] = start - offset
        }
        return found
    }

    private static func memoryFileName(_ target: String) -> String? {
        let prefix = "/memfd:" + MemoryFile.namePrefix
        guard target.hasPrefix(prefix) else { return nil }
        let name = target.dropFirst(prefix.count)
        return String(name.hasSuffix(" (deleted)") ? name.dropLast(10) : name)
    }

    /// A file that has no size to read by.
    public static func readText(_ path: String) -> String? {
        guard let file = try? Descriptor.open(path, .read, what: path) else { return nil }
        var bytes: [UInt8] = []
        while let piece = try? Socket.read(file, atMost: 64 << 10, what: path), !piece.isEmpty { bytes += piece }
        return String(decoding: bytes, as: UTF8.self)
    }
}

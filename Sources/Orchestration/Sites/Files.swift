internal import Foundation
internal import TurntableCore

/// The files of an agent.
struct Files: Sendable {
    let directory: String

    func make() throws(TurntableError) {
        for name in ["slots", "moves", "output"] {
            do {
                try FileManager.default.createDirectory(
                    atPath: "\(directory)/\(name)", withIntermediateDirectories: true, attributes: [.posixPermissions: NSNumber(value: 0o700)])
            } catch {
                throw TurntableError(.usage, "making \(directory)/\(name)", "\(error)", remedy: "run as root, or choose a directory with --state-dir")
            }
        }
    }

    func names(in kind: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: "\(directory)/\(kind)")) ?? []).filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }
    }

    func read<Value: Decodable>(_ name: String, _ type: Value.Type) throws(TurntableError) -> Value? {
        guard let data = FileManager.default.contents(atPath: "\(directory)/\(name)") else { return nil }
        return try JSON.decode(type, data, "reading \(directory)/\(name)")
    }

    func write(_ value: some Encodable, _ name: String) throws(TurntableError) {
        let data = try JSON.encode(value)
        do { try data.write(to: URL(filePath: "\(directory)/\(name)"), options: .atomic) } catch {
            throw TurntableError(.unsupported, "writing \(directory)/\(name)", "\(error)", remedy: "make room on its disk")
        }
    }

    /// What a migration's sender is to read, in a file that goes with what it prints.
    func write(text: String, _ id: String, _ name: String, _ count: Int) throws(TurntableError) -> String {
        let path = output(id, name, count)
        do { try Data((text + "\n").utf8).write(to: URL(filePath: path), options: .atomic) } catch {
            throw TurntableError(.unsupported, "writing \(path)", "\(error)", remedy: "make room on its disk")
        }
        return path
    }

    /// What the program number `count` of a migration prints.
    func output(_ id: String, _ command: String, _ count: Int) -> String {
        // As /proc names it.
        URL(filePath: "\(directory)/output/\(id)-\(command)-\(count)").standardized.resolvingSymlinksInPath().path
    }

    func remove(_ id: String, _ kind: String) {
        try? FileManager.default.removeItem(atPath: "\(directory)/\(kind)/\(id).json")
        let command = kind == "slots" ? "receive" : "send"
        for name in (try? FileManager.default.contentsOfDirectory(atPath: "\(directory)/output")) ?? [] where name.hasPrefix("\(id)-\(command)-") {
            try? FileManager.default.removeItem(atPath: "\(directory)/output/\(name)")
        }
    }
}

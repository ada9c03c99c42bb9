// How long a dirty scan takes: memory of the given size with every nth page written, fetched and cleared.
// Run with libturntable-ram.so preloaded, which registers the memory file below as it does QEMU's.

import Glibc
import TurntableCore
import TurntableLinux

@main
struct ScanBenchmark {
    static func main() throws {
        let gibibytes = CommandLine.arguments.count > 1 ? Int(CommandLine.arguments[1]) ?? 4 : 4
        let stride = CommandLine.arguments.count > 2 ? Int(CommandLine.arguments[2]) ?? 8 : 8
        let file = try MemoryFile.create(name: "scan", bytes: gibibytes << 30)
        try file.populate(0..<file.bytes)
        guard let base = ProcessTable.memoryFileMappings(of: getpid())["scan"] else {
            throw TurntableError(.unsupported, "finding the mapping", "none")
        }
        let scanner = try PagemapScanner(process: getpid())
        let bitmap = PageBitmap(pages: PageCount(file.bytes / pageBytes))
        func scan() throws -> (pages: Int, milliseconds: Double) {
            bitmap.remove(0..<bitmap.pages)
            let started = Clock.now
            try scanner.scan(base..<base + UInt64(file.bytes), clear: true) { run in
                bitmap.insert(Int((run.lowerBound - base) / UInt64(pageBytes))..<Int((run.upperBound - base) / UInt64(pageBytes)))
            }
            return (bitmap.count, (Clock.now - started).milliseconds)
        }
        _ = try scan()
        for _ in 0..<7 {
            for page in Swift.stride(from: 0, to: bitmap.pages, by: stride) {
                unsafe file.base.storeBytes(of: 1, toByteOffset: page * pageBytes, as: UInt8.self)
            }
            let result = try scan()
            print("{\"pages\":\(result.pages),\"milliseconds\":\(result.milliseconds)}")
        }
    }
}

internal import Foundation
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux

/// What one process of a migration leaves to the next.
struct SharedMemoryTests {
    private let path = FileManager.default.temporaryDirectory.appending(path: "turntable-\(UUID().uuidString)").path

    private func text(_ memory: SharedMemory) -> UInt64 { memory.base.load(fromByteOffset: memory.bytes - 8, as: UInt64.self) }
    private func write(_ value: UInt64, _ memory: SharedMemory) {
        memory.base.storeBytes(of: value, toByteOffset: memory.bytes - 8, as: UInt64.self)
    }

    @Test func anonymousMemoryIsZeroes() throws {
        let memory = try SharedMemory(bytes: 12_345 * 8)
        #expect(memory.bytes == 12_345 * 8)
        #expect(text(memory) == 0)
        write(7, memory)
        #expect(text(memory) == 7)
    }

    @Test func theNextOneFindsWhatWasStored() throws {
        defer { removeFile(path) }
        write(0xfeed, try SharedMemory(path: path, bytes: 1 << 20))
        #expect(text(try SharedMemory(path: path, bytes: 1 << 20)) == 0xfeed)
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        #expect(mode == 0o600)
    }

    @Test func anotherSizeIsMadeAnew() throws {
        defer { removeFile(path) }
        let old = try SharedMemory(path: path, bytes: 4096)
        write(1, old)
        let new = try SharedMemory(path: path, bytes: 8192)
        #expect(text(new) == 0)
        write(2, new)
        #expect(text(old) == 1, "who has the old one mapped keeps it")
        #expect(text(try SharedMemory(path: path, bytes: 8192)) == 2)
    }

    @Test func aPlaceThatCannotBeOpenedIsAnError() {
        let error = failure { () throws(TurntableError) in try SharedMemory(path: "/nowhere/session", bytes: 4096) }
        #expect(error?.what.contains("/nowhere/session") == true)
    }
}

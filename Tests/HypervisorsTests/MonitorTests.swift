internal import Foundation
internal import Testing
internal import TurntableCore
internal import TurntableLinux

@testable import Hypervisors

/// A monitor whose QEMU dies: never a line that could come back.
struct MonitorTests {
    @Test(arguments: [true, false])
    func aMonitorThatBreaksIsTheHypervisorsFailure(isResetInAnswer: Bool) throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("tt-\(UUID().uuidString.prefix(8)).sock").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let listener = try Socket.listenUnix(path)
        let server = WorkerThread("tt-qemu") {
            guard let connection = try? Socket.accept(listener, within: .seconds(10)) else { return }
            try? Socket.write(connection, Array("{\"QMP\": {}}\n".utf8), what: "greeting")
            _ = try? Socket.read(connection, atMost: 4096, what: "hearing")
            try? Socket.write(connection, Array("{\"return\": {}}\n".utf8), what: "answering")
            // A socket that is closed with something unread resets its peer.
            if isResetInAnswer { _ = try? Socket.waitReadable(connection, within: .seconds(10)) }
        }
        let monitor = try QMP(path: path)
        if !isResetInAnswer { server.join() }
        let error = #expect(throws: TurntableError.self) { try monitor.execute("stop") }
        #expect(error?.kind == .hypervisor, "\(String(describing: error))")
        if isResetInAnswer { server.join() }
    }
}

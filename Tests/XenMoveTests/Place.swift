internal import Foundation

/// A directory that is gone when the test is.
final class Place {
    let path = FileManager.default.temporaryDirectory.appending(path: "turntable-xen-\(UUID().uuidString)").path
    init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: path) }
}

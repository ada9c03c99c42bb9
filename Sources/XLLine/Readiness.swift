// `xl migrate-receive` says when the domain is made, devices and all, and waits for the source's permission to start it. Where its stream
// ends early (EarlyEnd.swift) that is while the guest still runs at the source, which should not suspend it before. So it is put down
// where turntable-xen-helper looks, whose engine tells the source (WireFormat/ControlMessage.swift, Readiness).

internal import Glibc
internal import TurntableCore
internal import TurntableLinux

/// Whether xl at the target only waits for permission.
final class Readiness: Sendable {
    private static let words = Array("domain received, ready to unpause".utf8)
    private let file: MemoryFile
    /// The end of what xl has said, in which the words may have begun.
    private let said = Monitor([UInt8]())

    init() throws(TurntableError) { file = try MemoryFile.create(name: "xl", bytes: 1) }

    /// Of a file of one byte, which is zero until xl is ready. It is there as long as this process.
    var path: String { "/proc/\(getpid())/fd/\(file.descriptor.rawValue)" }

    /// Takes what xl says on its standard output.
    func hear(_ bytes: [UInt8]) {
        let hasCome = said.update { said in
            said += bytes
            defer { said = said.suffix(Self.words.count - 1) }
            return said.firstRange(of: Self.words) != nil
        }
        // Unsaid, it costs the guest a longer standstill.
        if hasCome { try? writeAll([1], to: file.descriptor.rawValue, what: "saying that xl is ready") }
    }
}

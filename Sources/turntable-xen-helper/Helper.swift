// turntable-xen-helper: stands in for Xen's libxl-save-helper under an unmodified xl, on both hosts:
//
//   LIBXL_SAVE_HELPER=/usr/bin/turntable-xen-helper xl migrate web target
//
// libxl starts it with the words that it has for its own helper:
//
//   --save-domain STREAM RECEIVE-STREAM DOMAIN FLAGS MESSAGES TYPE
//   --restore-domain STREAM SEND-STREAM DOMAIN STORE-EVENT STORE-DOMAIN CONSOLE-EVENT CONSOLE-DOMAIN MESSAGES TYPE
//
// A PVH or HVM domain whose target has this helper too goes by our engine; of a PV domain, Xen's own helpers do the work and these two
// carry what they say. Everything else (saving to a file, a host that has Xen's own helper only) is Xen's own helper's. Settings come
// from the environment; see Settings.swift. With a word of its own it removes the snapshots of a move that was killed; see Disks.swift.

internal import CTurntableXen
internal import Glibc
internal import TurntableCore
internal import XenAdapter
internal import XenMove

/// What libxl said on the command line.
struct Invocation {
    let words: [String]
    var isSaving: Bool { words[1] == "--save-domain" }
    static let streamWord = 2
    var streamDescriptor: Int32 { Int32(number(Self.streamWord)) }
    var stream: LibxlStream { LibxlStream(descriptor: streamDescriptor) }
    var domain: UInt32 { number(4) }
    /// Of a save: moved while it runs, not written to a file.
    var isLive: Bool { number(5) & 1 != 0 }
    var messages: UInt32 { number(isSaving ? 6 : 9) }
    var services: XenServices {
        XenServices(storeEvent: number(5), storeDomain: number(6), consoleEvent: number(7), consoleDomain: number(8))
    }

    /// Nil if they are not words of libxl's.
    init?(_ words: [String]) {
        let counts = ["--save-domain": 8, "--restore-domain": 11]
        guard words.count >= 2, counts[words[1]] == words.count else { return nil }
        self.words = words
        // The last is the kind of stream: 0 is a plain one, others are of checkpoints.
        guard words[2...].allSatisfy({ Int64($0) != nil }) else { return nil }
    }

    var isPlain: Bool { number(words.count - 1) == 0 }

    private func number(_ index: Int) -> UInt32 { UInt32(truncatingIfNeeded: Int64(words[index])!) }
}

@main
enum Helper {
    static func main() {
        if CommandLine.arguments.dropFirst() == [SourceDisks.endingWord] { SourceDisks.endThoseOfThisProcess() }
        guard let invocation = Invocation(CommandLine.arguments) else {
            say("it is started by libxl: set LIBXL_SAVE_HELPER=\(CommandLine.arguments[0]) for xl on both hosts")
            exit(TurntableError.Kind.usage.exitCode)
        }
        signal(SIGPIPE, SIG_IGN)
        do throws(TurntableError) {
            let settings = try Settings()
            if invocation.isSaving {
                try Save(invocation, settings).run()
            } else {
                try Restore(invocation, settings).run()
            }
        } catch {
            // Before the engine began.
            if let line = Settings.reports.flatMap({ try? ReportLine(path: $0) }) {
                line.say(.failed(error))
                line.close()
            } else {
                say("\(error)")
            }
            exit(error.kind.exitCode)
        }
    }

    /// To xl's user, before there is anything to say to libxl.
    static func say(_ text: String) {
        let line = Array("turntable-xen-helper: \(text)\n".utf8)
        _ = unsafe line.withUnsafeBytes { unsafe write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }

    /// What libxl said, for Xen's own helper, as C has it; kept until this process ends.
    static func words(_ invocation: Invocation, _ settings: Settings) -> [UnsafeMutablePointer<CChar>?] {
        var words: [UnsafeMutablePointer<CChar>?] = unsafe ([settings.stockHelper] + invocation.words.dropFirst()).map { unsafe strdup($0) }
        unsafe words.append(nil)
        return unsafe words
    }

    /// Xen's own helper takes over, with all that libxl gave; returns only by an error.
    static func becomeStock(_ invocation: Invocation, _ settings: Settings) throws(TurntableError) -> Never {
        let words = unsafe words(invocation, settings)
        let result = unsafe words.withUnsafeBufferPointer { unsafe tt_xen_become(settings.stockHelper, $0.baseAddress!) }
        throw TurntableError(
            .unsupported, "starting \(settings.stockHelper)", "error \(-result)", remedy: "say where it is with TURNTABLE_STOCK_HELPER")
    }
}

// turntable-xen: what `turntable xen migrate` and `turntable xl-receive` have libxl do. libxl is not for threads and its helper's, so
// it gets a process for each thing, and `turntable` stays free of Xen's libraries.
//
//   describe NAME        prints the domain's number, UUID and standing (XenMove/LibxlProgram.swift)
//   save DOMAIN          a MoveHead and libxl's stream of the domain go to standard output, which is a socket
//   take STATE-DIRECTORY what `save` said comes from standard input; it ends when the domain runs here, or will not
//   resume DOMAIN        a suspended domain runs on
//   destroy DOMAIN
//   watch DOMAIN         does what the domain's configuration says when it shuts down; ends with the domain
//
// Errors are said on standard error; exit codes are those of `turntable`. With TURNTABLE_VERBOSE libxl says more.

internal import Glibc
internal import TurntableCore
internal import TurntableLinux
internal import XenMove

@main
enum Program {
    static func main() {
        signal(SIGPIPE, SIG_IGN)
        let words = CommandLine.arguments.dropFirst().map(\.self)
        do throws(TurntableError) {
            let libxl = try Libxl(isVerbose: environmentValue("TURNTABLE_VERBOSE") != nil)
            try run(words, libxl)
        } catch {
            say("\(error)")
            exit(error.kind.exitCode)
        }
    }

    private static func run(_ words: [String], _ libxl: Libxl) throws(TurntableError) {
        guard words.count == 2 else {
            throw TurntableError(.usage, "turntable-xen", "it is started by `turntable`", remedy: "see `turntable xen migrate --help`")
        }
        switch words[0] {
        case "describe": try writeAll(Array((try libxl.describe(words[1]).words + "\n").utf8), to: 1, what: "printing")
        case "save": try save(try number(words[1]), libxl)
        case "take": try Take(stateDirectory: words[1]).run(libxl)
        case "resume": try libxl.resume(try number(words[1]))
        case "destroy": try libxl.destroy(try number(words[1]))
        case "watch": try libxl.watch(try number(words[1]))
        default: throw TurntableError(.usage, "turntable-xen \(words[0])", "there is no such word", remedy: "use one version of both programs")
        }
    }

    private static func number(_ word: String) throws(TurntableError) -> UInt32 {
        guard let number = UInt32(word) else { throw TurntableError(.usage, "the domain \(word)", "it is no number") }
        return number
    }

    private static func save(_ domain: UInt32, _ libxl: Libxl) throws(TurntableError) {
        setEnvironment("LIBXL_SAVE_HELPER", helperPath)
        let stream = try ownStream()
        try writeAll(try MoveHead(configuration: try libxl.configuration(domain)).encoded(), to: stream.rawValue, what: "sending the configuration")
        try libxl.save(domain, to: stream.rawValue)
    }

    /// The socket that this program was given, for itself and libxl alone; scripts print where this program complains.
    static func ownStream() throws(TurntableError) -> Descriptor {
        let stream = try Descriptor(owning: try checked(dup(0), "taking the stream")).duplicate()
        let nothing = try Descriptor.open("/dev/null", .read, what: "opening /dev/null")
        try checked(dup2(nothing.rawValue, 0) < 0 ? -errno : 0, "taking the stream")
        try checked(dup2(2, 1) < 0 ? -errno : 0, "taking the stream")
        return stream
    }

    /// `turntable` starts it by its whole path.
    static let ownPath = CommandLine.arguments[0]
    static var helperPath: String { "\(ownPath)-helper" }

    static func say(_ text: String) { try? writeAll(Array("turntable-xen: \(text)\n".utf8), to: 2, what: "complaining") }
}

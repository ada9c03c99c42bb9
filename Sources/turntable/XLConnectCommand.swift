import ArgumentParser
import Protection
import Transport
import TransportTCP
import TurntableCore
import TurntableLinux
import XLLine
import XenMove

/// The port that `xl-receive` listens on, and that `xl-connect` and `xen migrate` connect to unless told otherwise.
let defaultXLPort: UInt16 = 4909

struct XLConnectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "xl-connect",
        abstract: "Carry xl's migration stream, in the place of ssh.",
        discussion: """
            xl starts it, with the host and what is to run there as the last words. On that host `turntable xl-receive` waits.

            EXAMPLES
              xl migrate -s 'turntable xl-connect' web target.example
              xl migrate -s 'turntable xl-connect --rate 1gbit --peer beta.example' web 10.5.0.2
            """)

    @Option(help: ArgumentHelp("The bandwidth to use, such as that of a reserved lightpath. Default: what the line gives.", valueName: "rate"))
    var rate: RateOption?
    @Option(help: ArgumentHelp("Congestion control. Default: cubic, or bbr on a long line with no --rate.", valueName: "name"))
    var congestion: String?
    @Option(
        help: ArgumentHelp("The name or address that the target's certificate must be for. Default: the one it is reached by.", valueName: "host"))
    var peer: String?
    @OptionGroup var protection: ProtectionOptions
    @Argument(help: ArgumentHelp("Where `turntable xl-receive` listens.", valueName: "host:port")) var target: String
    @Argument(parsing: .captureForPassthrough, help: "What is to run there, as xl says it.") var words: [String]

    func run() throws {
        try reportingErrors(json: false) {
            let address = try targetAddress(target, defaultPort: defaultXLPort)
            var line = LineOptions()
            line.rate = rate?.value
            line.congestionControl = congestion
            line.isControlOnly = true
            let transport = TCPSourceTransport(address: address, options: line, security: try protection.security(), peer: peer)
            let code = try RemoteProgram.run(words, over: try connectToXLReceive(transport), input: Descriptor(owning: 0), output: 1, errors: 2)
            if code != 0 { throw ExitCode(code) }
        }
    }
}

/// A control stream to the target's `xl-receive`.
func connectToXLReceive(_ transport: TCPSourceTransport) throws(TurntableError) -> any ControlChannel {
    do { return try transport.connectControl() } catch {
        guard error.kind == .line else { throw error }
        throw TurntableError(
            error.kind, error.what, error.why, remedy: "check that `turntable xl-receive` runs there, with the protection that this end has")
    }
}

struct XLReceiveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "xl-receive",
        abstract: "Wait for other hosts' domains: their xl-connect's, and their `turntable xen migrate`'s.",
        discussion: """
            It runs `xl migrate-receive` and `turntable-xen`, nothing else for anybody. With LIBXL_SAVE_HELPER in the environment what xl \
            moves arrives by turntable-xen-helper too.

            EXAMPLES
              turntable xl-receive --listen 10.5.0.2 --allow-peer alpha.example
              LIBXL_SAVE_HELPER=/usr/bin/turntable-xen-helper turntable xl-receive --disk all
            """)

    @OptionGroup var listening: ListeningOptions
    @Option(help: ArgumentHelp("The program that is run.", valueName: "path")) var xl = "xl"
    @OptionGroup var protection: ProtectionOptions
    @OptionGroup var disks: TakenDisks
    @OptionGroup var stateDirectory: StateDirectoryOption

    func run() throws {
        try reportingErrors(json: false) {
            disks.tellHelpers()
            let printer = EventPrinter(json: false)
            let address = try listening.address(protection, defaultPort: defaultXLPort)
            let security = try protection.security()
            let transport = try TCPTargetTransport(listening: address, security: security, allowedPeers: listening.allowPeers) {
                printer.note("turned away \($0)")
            }
            printer.listening(Address(host: address.host, port: transport.port))
            let taking = DomainTaking(protection, stateDirectory.directory)
            let server = ProgramServer(
                transport,
                policy: { [xl] (words) throws(TurntableError) in words == LibxlProgram.takeWords ? taking.command : try XLWords.command(words, xl: xl) },
                hasHelper: { words in words == LibxlProgram.takeWords || environmentValue("LIBXL_SAVE_HELPER") != nil },
                resolve: { (query) throws(TurntableError) in try taking.resolve(query, sign: security.sign) }
            ) { printer.note($0) }
            Signals.onInterrupt { _ in server.interrupt() }
            try server.serve()
        }
    }
}

/// Which disks come with other hosts' domains: libxl starts the helper that takes them, and so it hears of them by its environment.
struct TakenDisks: ParsableArguments {
    @Option(
        name: .customLong("disk"),
        help: ArgumentHelp(
            "A disk that comes along, to the device that the domain has of that name here, or all; repeatable. Default: TURNTABLE_DISKS, or none.",
            valueName: "name|all"))
    var names: [String] = []
    @Flag(
        name: .customLong("recycle"),
        help: "What those devices hold is an older copy: what is the same in it is not sent again. It is overwritten. Without it they must be empty.")
    var isRecycling = false

    /// Before any thread is there that could read the environment.
    func tellHelpers() {
        if !names.isEmpty { setEnvironment("TURNTABLE_DISKS", names.joined(separator: " ")) }
        if isRecycling { setEnvironment("TURNTABLE_RECYCLE", "yes") }
    }
}

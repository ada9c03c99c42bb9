import ArgumentParser
import Glibc

@main
struct LightpathCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "turntable-lightpath",
        abstract: "Joins two network namespaces with a line of a fixed rate and a fixed delay.",
        discussion: """
            Each namespace gets a TUN device; frames cross at the line's rate, preamble, headers and gap included, after a drop-tail \
            queue. One line starting with "ready" (with --json: {"event":"ready",…}) tells that the line is up. SIGINT, SIGTERM and \
            SIGHUP end it: statistics are printed and what was made is taken away.

            EXAMPLES
              turntable-lightpath --a lpA --b lpB --create --control /run/lp.sock \\
                --address-a 10.5.0.1/30 --address-b 10.5.0.2/30 \\
                --rate 1gbit --delay 87.5ms
              turntable-lightpath --control /run/lp.sock --tell 'cut a-b'
              turntable-lightpath --control /run/lp.sock --tell stats
              ip netns exec lpA ping 10.5.0.2

            COMMANDS, one a line on standard input or the control socket
            \(LineControl.help.split(separator: "\n").map { "  " + $0 }.joined(separator: "\n"))

            EXIT STATUS
              0   ended when asked        1   --tell was refused
              64  wrong option or value   69  no line answers --tell
              71  the system refused      77  not permitted
            """)

    @OptionGroup(title: "Ends") var ends: EndOptions
    @OptionGroup(title: "Line") var lineOptions: LineOptions
    @OptionGroup(title: "Control") var controlOptions: ControlOptions

    mutating func validate() throws {
        guard controlOptions.tell == nil else {
            guard controlOptions.control != nil else { throw ValidationError("--tell needs --control with the socket of a running line.") }
            return
        }
        do {
            _ = try settings()
        } catch {
            throw ValidationError(error.message)
        }
    }

    mutating func run() throws {
        do {
            if let command = controlOptions.tell, let path = controlOptions.control {
                try tell(command, at: path)
            } else {
                try runLine()
            }
        } catch let error as LineError {
            writeText("turntable-lightpath: \(error)\n", to: STDERR_FILENO)
            throw ExitCode(error.exitCode)
        }
    }

    private func tell(_ command: String, at path: String) throws {
        let reply = try ControlSocket.ask(command, at: path)
        writeText(reply + "\n", to: STDOUT_FILENO)
        if reply.hasPrefix(ControlChannel.refusalPrefix) { throw ExitCode(ExitStatus.commandRefused) }
    }

    private func runLine() throws(LineError) {
        let signals = try ControlChannel.blockSignals()
        let socket = try makeSocket()
        let line = try Line(try settings())
        let report = LineReport(line: line, isJSON: controlOptions.json)
        let isRealTime = HotThread.isRealTimePermitted()
        try line.start()
        writeText(report.ready(isRealTime: isRealTime), to: STDOUT_FILENO)
        let ending = ControlChannel(line, report: report, signals: signals, socket: socket).serve()
        line.stop()
        writeText(report.statistics(), to: STDOUT_FILENO)
        if case .failed(let error) = ending { throw error }
    }

    private func makeSocket() throws(LineError) -> ControlSocket? {
        guard let path = controlOptions.control else { return nil }
        return try ControlSocket(listeningAt: path)
    }

    private func settings() throws(LineError) -> LineSettings {
        let maximumRate = lineOptions.maxRate ?? lineOptions.rate
        let automatic = LineDelay(nanoseconds: max(2 * lineOptions.delay.nanoseconds, LineOptions.leastMaximumDelay.nanoseconds))
        let maximumDelay = lineOptions.maxDelay ?? automatic
        return LineSettings(
            namespaceNames: try ends.namespaceNames(), createNamespaces: ends.create, replaceNamespaces: ends.replace,
            device: try ends.checkedDevice(), mtuBytes: try lineOptions.checkedMTU(), addresses: [ends.addressA, ends.addressB],
            rate: lineOptions.rate, delay: lineOptions.delay, loss: lineOptions.loss, queue: try lineOptions.checkedQueue(),
            maximumRate: maximumRate, maximumDelay: maximumDelay, superFrames: lineOptions.gso,
            tcpBuffers: try ends.tcpBufferSize(rate: maximumRate, delay: lineOptions.delay), seed: lineOptions.seed)
    }
}

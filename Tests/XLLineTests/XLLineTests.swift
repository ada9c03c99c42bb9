internal import Foundation
internal import Protection
internal import TestSupport
internal import Testing
internal import Transport
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
@testable internal import XLLine

/// A program that stands for xl: says its words as errors and gives back its input, then ends with 7.
private let echo = "printf %s \"$*\" >&2; cat; exit 7"

/// A server, what connects to it, and the directory of its program.
private final class Line: Sendable {
    private let source: any SourceTransport
    private let server: ProgramServer
    private let serving: Background<Void>
    let directory: URL
    let notes = Monitor<[String]>([])

    enum Kind: CaseIterable {
        case loopback
        case sealed
    }

    init(_ kind: Kind, script: String) throws {
        directory = FileManager.default.temporaryDirectory.appending(path: "turntable-xl-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        let xl = directory.appending(path: "xl").path
        let isMade = FileManager.default.createFile(
            atPath: xl, contents: Data("#!/bin/sh\n\(script)\n".utf8), attributes: [.posixPermissions: NSNumber(value: 0o755)])
        #expect(isMade)
        let target: any TargetTransport
        switch kind {
        case .loopback:
            let loopback = Loopback()
            (source, target) = (loopback, loopback)
        case .sealed:
            let listening = try TCPTargetTransport(
                listening: Address(host: "127.0.0.1", port: 0), security: .sealed(try Identities.shared.beta), turnedAway: { _ in })
            var options = LineOptions()
            options.isControlOnly = true
            source = TCPSourceTransport(
                address: Address(host: "127.0.0.1", port: listening.port), options: options, security: .sealed(try Identities.shared.alpha),
                peer: "beta.test")
            target = listening
        }
        let server = ProgramServer(target, policy: { (words) throws(TurntableError) in try XLWords.command(words, xl: xl) }) { [notes] note in
            notes.update { $0.append(note) }
        }
        self.server = server
        serving = Background { () throws(TurntableError) in try server.serve() }
    }

    func connect() throws -> any ControlChannel { try source.connectControl() }

    func close() throws {
        server.interrupt()
        try serving.value()
        try FileManager.default.removeItem(at: directory)
    }
}

/// Everything that comes out of a descriptor of a pair until its other end is closed.
private func collect(_ raw: Int32) -> Background<[UInt8]> {
    Background { () throws(TurntableError) in
        let end = Descriptor(owning: raw)
        var all: [UInt8] = []
        while true {
            let piece = try Socket.read(end, atMost: 1 << 20, what: "a test's output")
            if piece.isEmpty { return all }
            all += piece
        }
    }
}

struct XLLineTests {
    @Test(arguments: Line.Kind.allCases)
    fileprivate func aProgramsStreamsAndItsEndComeBack(kind: Line.Kind) throws {
        let line = try Line(kind, script: echo)
        let (inputHere, inputThere) = try Socket.pair()
        let (outputHere, outputThere) = try Socket.pair()
        let (errorsHere, errorsThere) = try Socket.pair()
        var generator = SeededGenerator(seed: 6)
        let bytes = (0..<3_000_000).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
        let (output, errors) = (collect(outputHere), collect(errorsHere))
        let feeding = Background { () throws(TurntableError) in try Socket.write(Descriptor(owning: inputHere), bytes, what: "a test's input") }
        let control = try line.connect()
        let running = Background { () throws(TurntableError) in
            let output = Descriptor(owning: outputThere)
            let errors = Descriptor(owning: errorsThere)
            defer { control.shutDown() }
            return try RemoteProgram.run(
                ["xl", "-vv", "migrate-receive", "-e"], over: control, input: Descriptor(owning: inputThere), output: output.rawValue,
                errors: errors.rawValue)
        }
        #expect(try running.value() == 7)
        try feeding.value()
        #expect(try output.value() == bytes)
        #expect(try errors.value() == Array("-vv migrate-receive -e".utf8))
        try line.close()
    }

    @Test func nothingElseIsRun() throws {
        let line = try Line(.loopback, script: "touch $0.ran")
        let control = try line.connect()
        let (here, there) = try Socket.pair()
        let output = Descriptor(owning: there)
        let refusal = failure { () throws(TurntableError) in
            try RemoteProgram.run(["sh", "-c", "id"], over: control, input: Descriptor(owning: here), output: output.rawValue, errors: output.rawValue)
        }
        #expect(refusal?.kind == .refused)
        #expect(refusal?.why.contains("migrate-receive") == true)
        control.shutDown()
        #expect(!FileManager.default.fileExists(atPath: line.directory.appending(path: "xl.ran").path))
        try line.close()
    }

    /// xl takes the end of its stream for a failed migration, and cleans up.
    @Test func aProgramWhoseLineIsGoneSeesTheEndOfItsInput() throws {
        let line = try Line(.loopback, script: "cat >$0.input; touch $0.ended")
        let control = try line.connect()
        let (here, there) = try Socket.pair()
        let output = Descriptor(owning: there)
        let copy = try output.duplicate().release()
        let running = Background { () throws(TurntableError) in
            try RemoteProgram.run(
                ["xl", "migrate-receive"], over: control, input: Descriptor(owning: here), output: copy, errors: copy)
        }
        try Socket.write(output, Array("stream".utf8), what: "a test's input")
        let input = line.directory.appending(path: "xl.input").path
        #expect(eventually { FileManager.default.contents(atPath: input) == Data("stream".utf8) })
        control.shutDown()
        #expect(throws: TurntableError.self) { try running.value() }
        #expect(eventually { FileManager.default.fileExists(atPath: line.directory.appending(path: "xl.ended").path) })
        #expect(eventually { line.notes.read { $0.contains { $0.contains("ended with 0") } } })
        _ = Descriptor(owning: copy)
        try line.close()
    }

    /// What the program says is looked through for xl's words, which may come in pieces.
    @Test func theProgramsHelperSeesWhenXLIsReady() throws {
        let line = try Line(
            .loopback,
            script: """
                ready() { od -An -tu1 "$TURNTABLE_EARLY_END" | tr -d ' '; }
                ready >&2; printf 'domain received, '; read -r next; ready >&2; printf 'ready to unpause'
                for try in $(seq 300); do [ "$(ready)" = 0 ] || break; sleep 0.1; done; ready >&2; cat
                """)
        let control = try line.connect()
        let (inputHere, inputThere) = try Socket.pair()
        let (outputHere, outputThere) = try Socket.pair()
        let (errorsHere, errorsThere) = try Socket.pair()
        let errors = collect(errorsHere)
        let running = Background { () throws(TurntableError) in
            let output = Descriptor(owning: outputThere)
            let errors = Descriptor(owning: errorsThere)
            defer { control.shutDown() }
            return try RemoteProgram.run(
                ["xl", "migrate-receive"], over: control, input: Descriptor(owning: inputThere), output: output.rawValue, errors: errors.rawValue)
        }
        let input = Descriptor(owning: inputHere)
        let output = Descriptor(owning: outputHere)
        #expect(try Socket.read(output, atMost: 64, what: "a test's output") == Array("domain received, ".utf8))
        try Socket.write(input, Array("next\n".utf8), what: "a test's input")
        #expect(try Socket.read(output, atMost: 64, what: "a test's output") == Array("ready to unpause".utf8))
        Socket.shutDown(input)
        #expect(try running.value() == 0)
        #expect(try errors.value() == Array("0\n0\n1\n".utf8))
        try line.close()
    }

    @Test(arguments: [
        [], ["xl"], ["xl", "create"], ["xl", "migrate-receive", "-r"], ["xl", "migrate-receive", "--colo"], ["sh", "migrate-receive"],
        ["xl", "-vq", "migrate-receive"], ["xl", "-", "migrate-receive"], ["xl", "migrate-receive", "-e", "; id"],
        ["migrate-receive"], ["xl", "migrate-receive", "migrate-receive"],
    ])
    func theseWordsAreNotXLs(words: [String]) {
        #expect(failure { () throws(TurntableError) in try XLWords.command(words, xl: "/usr/sbin/xl") }?.kind == .refused)
    }

    @Test func xlsWordsAreTaken() throws {
        #expect(try XLWords.command(["xl", "-t", "-vvv", "migrate-receive", "-e", "-d", "-p"], xl: "/x") == ["/x", "-t", "-vvv", "migrate-receive", "-e", "-d", "-p"])
    }
}

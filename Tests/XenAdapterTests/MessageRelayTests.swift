internal import Glibc
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat
@testable internal import XenAdapter

private let patience = Nanoseconds.seconds(60)

/// A relay with what stands for Xen's own helper at its one end, and for libxl at the other.
private final class Between: Sendable {
    let helper: Descriptor
    let libxl: Descriptor
    let relay: MessageRelay
    let mayBeSuspended = Monitor<Bool?>(nil)
    let answers = Monitor<[Bool]>([])
    let notes = Monitor<[String]>([])
    let progress = Monitor<[[Int]]>([])
    private let running: Background<Void>

    init(isEarly: Bool = false) throws {
        let (helper, helperEnd) = try Socket.pair(), (libxl, libxlEnd) = try Socket.pair()
        self.helper = Descriptor(owning: helper)
        self.libxl = Descriptor(owning: libxl)
        let (mayBeSuspended, answers, notes, progress) = (mayBeSuspended, answers, notes, progress)
        let relay = MessageRelay(
            helper: Descriptor(owning: helperEnd), libxl: LibxlCallbacks(input: libxlEnd, output: libxlEnd, understood: .max),
            maySuspend: { mayBeSuspended.wait(atMost: patience) { $0 } == true },
            wasAsked: { isSuspended in answers.update { $0.append(isSuspended) } },
            progress: { done, total in progress.update { $0.append([done, total]) } }, isEarly: isEarly,
            note: { note in notes.update { $0.append(note) } })
        self.relay = relay
        running = Background { () throws(TurntableError) in relay.run() }
    }

    static func message(_ kind: UInt16, _ arguments: [UInt8] = []) -> [UInt8] {
        var writer = MessageWriter()
        writer.append(UInt16(arguments.count + 2))
        writer.append(kind)
        return writer.bytes + arguments
    }

    func say(_ kind: UInt16, _ arguments: [UInt8] = []) throws { try Socket.write(helper, Self.message(kind, arguments), what: "a test") }

    /// libxl hears that, and nothing else.
    func expectHeard(_ bytes: [UInt8], _ line: SourceLocation = #_sourceLocation) throws {
        #expect(try Socket.readExactly(libxl, bytes.count, within: patience, what: "a test") == bytes, sourceLocation: line)
        #expect(try !Socket.waitReadable(libxl, within: .milliseconds(50)), sourceLocation: line)
    }

    func answer(_ number: UInt8) throws { try Socket.write(libxl, [number, 0, 0, 0], what: "a test") }

    func expectAnswered(_ number: UInt8, _ line: SourceLocation = #_sourceLocation) throws {
        #expect(try Socket.readExactly(helper, 4, within: patience, what: "a test") == [number, 0, 0, 0], sourceLocation: line)
    }

    func end() throws {
        Socket.shutDown(helper)
        try running.value(within: patience)
    }
}

struct MessageRelayTests {
    private static let log = [UInt8](repeating: 0, count: 7) + Array("nothing".utf8)

    @Test func messagesAndAnswersPass() throws {
        let between = try Between()
        // Of every kind that there is; what comes at once comes one after the other.
        for kind: UInt16 in [1, 2, 9] {
            try between.say(kind, Self.log)
            try between.expectHeard(Between.message(kind, Self.log))
        }
        for kind: UInt16 in [4, 5, 6, 7, 8, 10] {
            try between.say(kind, Self.log)
            try between.expectHeard(Between.message(kind, Self.log))
            try between.answer(UInt8(kind))
            try between.expectAnswered(UInt8(kind))
        }
        try between.end()
    }

    @Test(arguments: [UInt8(0), 1]) func theWishToSuspendWaits(answer: UInt8) throws {
        let between = try Between()
        try between.say(3)
        #expect(try !Socket.waitReadable(between.libxl, within: .milliseconds(100)))
        between.mayBeSuspended.update { $0 = true }
        try between.expectHeard(Between.message(3))
        #expect(between.answers.read { $0 } == [])
        try between.answer(answer)
        try between.expectAnswered(answer)
        #expect(between.answers.read { $0 } == [answer != 0])
        try between.end()
    }

    @Test func progressIsTold() throws {
        let between = try Between()
        func said(_ done: UInt64, _ total: UInt64) -> [UInt8] {
            var writer = MessageWriter()
            for text in ["xc", "Frames iteration 1"] { LibxlCallbacks.append(text, to: &writer) }
            for number in [done, total] { writer.append(number) }
            return writer.bytes
        }
        // What cannot be is passed on all the same.
        for (done, total) in [(1024, 40960), (7, 3), (UInt64.max, 0)] as [(UInt64, UInt64)] {
            try between.say(2, said(done, total))
            try between.expectHeard(Between.message(2, said(done, total)))
        }
        try between.say(2, [1, 2, 3])
        try between.expectHeard(Between.message(2, [1, 2, 3]))
        #expect(between.progress.read { $0 } == [[1024, 40960]])
        try between.end()
    }

    @Test func aMoveThatHasFailedSuspendsNobody() throws {
        let between = try Between()
        between.mayBeSuspended.update { $0 = false }
        try between.say(3)
        try between.expectAnswered(0)
        #expect(try !Socket.waitReadable(between.libxl, within: .milliseconds(50)))
        try between.end()
    }

    @Test(arguments: [true, false]) func libxlIsToldBeforeTheHelperHasEnded(isWell: Bool) throws {
        let between = try Between(isEarly: true)
        try between.say(8, [0, 0, 0, 0])
        try between.expectHeard(Between.message(8, [0, 0, 0, 0]))
        try between.answer(0)
        try between.expectAnswered(0)
        let hasGoneOn = Monitor(false)
        let completing = Background { () throws(TurntableError) in
            try between.relay.completeEarly(XenRings(store: 0x1234, console: 5)) { hasGoneOn.update { $0 = true } }
        }
        let results = Between.message(9, [0x34, 0x12, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0])
        try between.expectHeard(results + Between.message(10, [UInt8](repeating: 0, count: 8)))
        #expect(!hasGoneOn.read { $0 })
        try between.answer(0)
        try completing.value(within: patience)
        #expect(hasGoneOn.read { $0 })
        // From now on libxl hears nothing; of what is worth it somebody is told.
        var writer = MessageWriter()
        writer.append(UInt32(7))
        writer.append(UInt32.max)
        try between.say(1, writer.bytes + Array("low on memory".utf8))
        try between.say(9, [UInt8](repeating: 1, count: 16))
        try between.say(10, (isWell ? [0, 0, 0, 0] : [255, 255, 255, 255]) + [0, 0, 0, 0])
        try between.expectAnswered(0)
        #expect(try !Socket.waitReadable(between.libxl, within: .milliseconds(50)))
        #expect(between.notes.read { $0 } == ["low on memory"])
        if isWell { try between.relay.awaitCompletion() } else { #expect(throws: TurntableError.self) { try between.relay.awaitCompletion() } }
        try between.end()
    }

    /// A domain so small that all of it is there before libxl could be told.
    @Test func aHelperThatEndsFirstIsNotHeardInItsPlace() throws {
        let between = try Between(isEarly: true)
        try between.say(9, [UInt8](repeating: 1, count: 16))
        try between.say(10, [UInt8](repeating: 0, count: 8))
        try between.expectAnswered(0)
        try between.relay.awaitCompletion()
        #expect(try !Socket.waitReadable(between.libxl, within: .milliseconds(50)))
        try between.end()
    }

    @Test func aHelperThatIsGoneHasNotEndedWell() throws {
        let between = try Between(isEarly: true)
        try between.say(1, Self.log)
        try between.end()
        #expect(throws: TurntableError.self) { try between.relay.awaitCompletion() }
    }

    @Test func withoutLibxlTheHelperEnds() throws {
        let between = try Between()
        Socket.shutDown(between.libxl)
        try between.say(3)
        between.mayBeSuspended.update { $0 = true }
        #expect(try Socket.read(between.helper, atMost: 1, what: "a test").isEmpty)
    }
}

internal import Glibc
internal import Testing
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

@testable internal import XenAdapter

/// What the two ends tell each other of a domain, and what the helper tells libxl.
struct FormatTests {
    static let state = XenState(
        counter: .init(mode: 2, kilohertz: 2_596_142, incarnation: 1, elapsedNanoseconds: 1 << 40),
        parameters: XenState.movedParameters.map { .init(index: $0, value: UInt64($0) << 20) }, context: Array(0...255))
    static let description = XenDescription(
        frames: 1 << 20, runs: [0..<160, 256..<40_960, 1_044_472..<1_044_480], rings: XenRings(store: 1_044_476, console: 0),
        processorPolicy: [1, 2, 3], volumes: ["LVM-one", ""])

    @Test func aStateComesBack() throws {
        #expect(XenState.movedParameters.count == 16)
        #expect(try XenState(decoding: Self.state.encoded()) == Self.state)
    }

    @Test func aStateThatIsCutOrTooLongIsRefused() {
        let bytes = Self.state.encoded()
        for count in 0..<bytes.count where count % 7 == 0 { #expect(throws: TurntableError.self) { try XenState(decoding: Array(bytes.prefix(count))) } }
        #expect(throws: TurntableError.self) { try XenState(decoding: bytes + [0]) }
    }

    @Test func aParameterThatDoesNotTravelIsRefused() {
        var strange = Self.state
        strange.parameters[3].index = 0xfff
        #expect(throws: TurntableError.self) { try XenState(decoding: strange.encoded()) }
    }

    @Test func aDescriptionComesBack() throws { #expect(try XenDescription(decoding: Self.description.encoded()) == Self.description) }

    @Test(arguments: [[100..<50 + 100, 20..<30], [0..<10, 9..<20], [(1 << 20) - 1..<(1 << 20) + 1]])
    func runsThatOverlapOrLeaveTheMemoryAreRefused(runs: [Range<Int>]) {
        let bad = XenDescription(frames: 1 << 20, runs: runs, rings: XenRings(store: 0, console: 0), processorPolicy: [], volumes: [])
        #expect(throws: TurntableError.self) { try XenDescription(decoding: bad.encoded()) }
    }

    @Test func aDescriptionThatIsCutIsRefused() {
        let bytes = Self.description.encoded()
        for count in 0..<bytes.count { #expect(throws: TurntableError.self) { try XenDescription(decoding: Array(bytes.prefix(count))) } }
    }

    /// libxl at the other ends of two pipes.
    struct Libxl {
        var answers: [Int32] = [0, 0]
        var messages: [Int32] = [0, 0]
        init() {
            #expect(pipe(&answers) == 0)
            #expect(pipe(&messages) == 0)
        }
        func answer(_ value: Int32) { withUnsafeBytes(of: value) { #expect(write(answers[1], $0.baseAddress, 4) == 4) } }
        func heard() -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: 4096)
            let count = read(messages[0], &bytes, bytes.count)
            return Array(bytes.prefix(max(count, 0)))
        }
        func callbacks(_ understood: UInt32 = .max) -> LibxlCallbacks {
            LibxlCallbacks(input: answers[0], output: messages[1], understood: understood)
        }
        func close() { for end in answers + messages { Glibc.close(end) } }
    }

    @Test func libxlIsAskedAndHeeded() throws {
        let libxl = Libxl()
        defer { libxl.close() }
        libxl.answer(1)
        try libxl.callbacks().suspend()
        #expect(libxl.heard() == [2, 0, 3, 0])
        libxl.answer(0)
        #expect(throws: TurntableError.self) { try libxl.callbacks().suspend() }
        _ = libxl.heard()
        libxl.answer(0)
        try libxl.callbacks().complete(failed: true)
        #expect(libxl.heard() == [10, 0, 10, 0, 0xff, 0xff, 0xff, 0xff, UInt8(EIO), 0, 0, 0])
        try libxl.callbacks().results(.init(store: 0x10203, console: 4))
        #expect(libxl.heard() == [18, 0, 9, 0, 3, 2, 1, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0])
    }

    @Test func whatLibxlDoesNotUnderstandIsNotSaid() throws {
        let libxl = Libxl()
        try libxl.callbacks(1 << 10).setDirtyLogOfQEMU(3, on: true)
        try libxl.callbacks(1 << 10).staticDataIsHere()
        close(libxl.messages[1])
        #expect(libxl.heard().isEmpty)
        close(libxl.messages[0])
        for end in libxl.answers { close(end) }
    }

    @Test func libxlThatLeavesIsAnError() {
        let libxl = Libxl()
        close(libxl.answers[1])
        #expect(throws: TurntableError.self) { try libxl.callbacks().suspend() }
        close(libxl.answers[0])
        for end in libxl.messages { close(end) }
    }

    @Test func aTextIsCutWhereLibxlWouldNotTakeIt() {
        let libxl = Libxl()
        defer { libxl.close() }
        libxl.callbacks().log(.error, String(repeating: "x", count: 5000))
        let heard = libxl.heard()
        #expect(heard.count == 4 + 8 + 4 + 10 + 4 + Limits.xenLogBytes + 1)
        #expect(heard.last == 0)
    }
}

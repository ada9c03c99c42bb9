internal import Glibc
internal import Testing
internal import TurntableCore
internal import TurntableLinux
@testable internal import WireFormat

@testable internal import XenAdapter

/// How two helpers find each other, and how either tells the other from Xen's own.
struct GreetingTests {
    static let greeting = StreamGreeting(token: Array(1...16), port: 4711, addresses: ["10.8.0.1", "fd00::1"], isLast: true)

    @Test func aGreetingIsAStreamOfXensWithARecordToSkip() throws {
        let bytes = Self.greeting.encoded()
        #expect(bytes.count % 8 == 0)
        #expect(bytes[0..<8].allSatisfy { $0 == 0xff })
        #expect(Array(bytes[8..<12]) == Array("XENF".utf8))
        #expect(bytes[12..<16].elementsEqual([0, 0, 0, 3]))
        // Type of a PVH domain, pages of 4 KiB; then a record whose highest bit lets it be skipped.
        #expect(bytes[24..<30].elementsEqual([2, 0, 0, 0, 12, 0]))
        #expect(bytes[43] & 0x80 != 0)
        var other = Self.greeting
        other.isPV = true
        let pv = other.encoded()
        #expect(pv[24..<28].elementsEqual([1, 0, 0, 0]))
        try LibxcHeaders.check(Array(pv.prefix(LibxcHeaders.bytes)))
        #expect(try StreamGreeting(decoding: Array(pv[StreamGreeting.prefixBytes...])) == other)
        let count = try #require(try StreamGreeting.recordBytes(after: Array(bytes.prefix(StreamGreeting.prefixBytes))))
        #expect(StreamGreeting.prefixBytes + count == bytes.count)
        #expect(try StreamGreeting(decoding: Array(bytes[StreamGreeting.prefixBytes...])) == Self.greeting)
    }

    @Test func aGreetingIsFoundInTheMiddleOfAStream() throws {
        let before: [UInt8] = [1, 0xff, 0xff, 2] + Self.greeting.encoded().prefix(30)
        let bytes = before + Self.greeting.encoded()
        for count in 0..<bytes.count { #expect(try StreamGreeting.find(in: Array(bytes.prefix(count))) == nil) }
        let found = try #require(try StreamGreeting.find(in: bytes + [9, 9]))
        #expect(found.greeting == Self.greeting)
        #expect(found.end == bytes.count)
    }

    @Test func aStreamOfXensIsLeftToXen() throws {
        var bytes = Array(Self.greeting.encoded().prefix(StreamGreeting.prefixBytes))
        bytes[40...43] = [0x11, 0, 0, 0]
        #expect(try StreamGreeting.recordBytes(after: bytes) == nil)
        #expect(try StreamGreeting.recordBytes(after: Array(bytes.prefix(20))) == nil)
    }

    @Test func aGreetingThatIsTooLongIsRefused() {
        var bytes = Array(Self.greeting.encoded().prefix(StreamGreeting.prefixBytes))
        bytes[44...47] = [0, 0, 0, 1]
        #expect(throws: TurntableError.self) { try StreamGreeting.recordBytes(after: bytes) }
    }

    @Test func whatIsCutOrOfAnotherVersionIsRefused() {
        let body = Array(Self.greeting.encoded()[StreamGreeting.prefixBytes...])
        for count in [0, 7, 9, 20, 30, 56] { #expect(throws: TurntableError.self) { try StreamGreeting(decoding: Array(body.prefix(count))) } }
        var other = body
        other[8] += 1
        #expect(throws: TurntableError.self) { try StreamGreeting(decoding: other) }
        #expect(throws: TurntableError.self) { try StreamGreeting.Answer(decoding: StreamGreeting.Answer(token: [1], port: 1).encoded()) }
    }

    /// Over a real pipe and a real socket: what is looked at is still there to be read.
    @Test(arguments: [true, false]) func aGreetingIsHeardOnPipesAndSockets(isPipe: Bool) throws {
        var ends: [Int32] = [0, 0]
        if isPipe { #expect(pipe(&ends) == 0) } else { #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0) }
        let (target, source) = (LibxlStream(descriptor: ends[0]), ends[1])
        defer { close(ends[0]) }
        // In two pieces, so that the first look finds too little.
        let bytes = Self.greeting.encoded() + [42]
        let thread = WorkerThread("source") {
            _ = bytes.prefix(30).withUnsafeBytes { write(source, $0.baseAddress, $0.count) }
            usleep(20_000)
            _ = bytes.dropFirst(30).withUnsafeBytes { write(source, $0.baseAddress, $0.count) }
            close(source)
        }
        defer { thread.join() }
        let heard = try Meeting.isAwaited(on: target)
        #expect(heard == Self.greeting)
        #expect(try target.read(1, what: "the rest") == [42])
        #expect(throws: TurntableError.self) { try target.read(1, what: "the end") }
    }

    @Test(arguments: [true, false]) func twoHelpersMeet(isPV: Bool) throws {
        var ends: [Int32] = [0, 0]
        #expect(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        let (target, source) = (LibxlStream(descriptor: ends[0]), LibxlStream(descriptor: ends[1]))
        let heard = Monitor<Meeting.Heard?>(nil)
        let thread = WorkerThread("target") {
            guard let greeting = try? Meeting.hearGreeting(on: target) else { return }
            heard.update { $0 = greeting }
            try? greeting.answer(1234)
        }
        let met = try #require(try Meeting.greet(on: source, at: ["127.0.0.1"], isLast: false, isPV: isPV))
        thread.join()
        #expect(met.address == Address(host: "127.0.0.1", port: 1234))
        let greeting = try #require(heard.read { $0 })
        #expect(greeting.isPV == isPV && greeting.token == met.token)
    }

    @Test func whenTheOtherEndGoesNobodyIsWaitedFor() throws {
        var ends: [Int32] = [0, 0]
        #expect(pipe(&ends) == 0)
        let source = LibxlStream(descriptor: ends[1])
        let reader = ends[0]
        let thread = WorkerThread("target") {
            usleep(50_000)
            close(reader)
        }
        let began = Clock.now
        #expect(try Meeting.greet(on: source, at: ["127.0.0.1"], isLast: false) == nil)
        #expect(Clock.now - began < Limits.xenMeetingTime)
        #expect(source.hasHungUp(within: .zero))
        thread.join()
        close(ends[1])
    }
}

internal import Testing
internal import TestSupport
internal import TurntableCore
internal import XenMove

struct MoveHeadTests {
    private static let head = MoveHead(configuration: #"{"c_info": {"name": "wëb"}}"#)

    @Test func whatIsSaidIsRead() throws {
        let bytes = try Self.head.encoded()
        let (prefix, body) = (Array(bytes.prefix(MoveHead.prefixBytes)), Array(bytes[MoveHead.prefixBytes...]))
        #expect(try MoveHead.bodyBytes(after: prefix) == body.count)
        #expect(try MoveHead(decoding: body) == Self.head)
    }

    @Test func anotherBeginningIsRefused() throws {
        let prefix = Array(try Self.head.encoded().prefix(MoveHead.prefixBytes))
        for index in 0..<8 {
            var other = prefix
            other[index] ^= 1
            #expect(throws: TurntableError.self, "byte \(index)") { try MoveHead.bodyBytes(after: other) }
        }
        #expect(throws: TurntableError.self) { try MoveHead.bodyBytes(after: Array(prefix.dropLast())) }
    }

    /// Nothing is allocated for what a peer claims beyond the limit, and nothing is said that it would refuse.
    @Test func lengthsHaveALimit() throws {
        let largest = MoveHead(configuration: String(repeating: "x", count: Limits.xenConfigurationBytes))
        let prefix = Array(try largest.encoded().prefix(MoveHead.prefixBytes))
        #expect(try MoveHead.bodyBytes(after: prefix) == Limits.xenConfigurationBytes)
        var larger = prefix
        larger[8] += 1
        let error = #expect(throws: TurntableError.self) { try MoveHead.bodyBytes(after: larger) }
        #expect(error?.kind == .protocol)
        let refusal = #expect(throws: TurntableError.self) { try MoveHead(configuration: largest.configuration + "x").encoded() }
        #expect(refusal?.kind == .unsupported)
    }

    @Test(arguments: [[], [0x7b, 0, 0x7d], [0xff, 0xfe]] as [[UInt8]])
    func aBodyIsText(body: [UInt8]) { #expect(throws: TurntableError.self) { try MoveHead(decoding: body) } }
}

struct DomainFactsTests {
    @Test(arguments: DomainStanding.allCases) func whatIsPrintedIsRead(standing: DomainStanding) {
        let facts = DomainFacts(number: 7, uuid: "0b1f2c3d-0000-4000-8000-00000000000a", standing: standing)
        #expect(DomainFacts(words: facts.words + "\n") == facts)
    }

    @Test(arguments: ["", "7 uuid", "x uuid runs", "7 uuid flies", "7 uuid runs more"])
    func nothingElseIsRead(words: String) { #expect(DomainFacts(words: words) == nil) }
}

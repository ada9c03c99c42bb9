internal import Testing
internal import TurntableCore
internal import WireFormat
@testable internal import XLLine

/// xl's stream through the one that ends it early.
struct EarlyEndTests {
    private static let head = Array("xl's head and the domain's configuration".utf8) + [0xff, 0xff]
    private static let end = [UInt8](repeating: 0, count: 8)
    private static let go = Array("domain is yours, you are cleared to unpause".utf8)

    private func greeting(isLast: Bool) -> [UInt8] {
        StreamGreeting(token: Array(1...16), port: 4711, addresses: ["10.8.0.1"], isLast: isLast).encoded()
    }

    private func passed(_ bytes: [UInt8], inPiecesOf count: Int, isUsed: Bool = true) throws -> [UInt8] {
        var stream = EarlyEnd(isUsed: isUsed)
        var all: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: count) { all += try stream.pass(Array(bytes[start..<min(start + count, bytes.count)])) }
        return all
    }

    @Test(arguments: [1, 2, 7, 48, 1000])
    func theEndComesWithTheGreetingAndNotAgain(pieces: Int) throws {
        let before = Self.head + greeting(isLast: true)
        #expect(try passed(before, inPiecesOf: pieces) == before + Self.end)
        #expect(try passed(before + Self.end + Self.go, inPiecesOf: pieces) == before + Self.end + Self.go)
    }

    @Test(arguments: [1, 7, 1000])
    func whatIsNotLastGoesAsItCame(pieces: Int) throws {
        for stream in [Self.head + greeting(isLast: false) + [1, 2, 3] + Self.end + Self.go, Self.head + Self.go] {
            #expect(try passed(stream, inPiecesOf: pieces) == stream)
        }
    }

    @Test func xensOwnHelperGetsTheStreamAsItCame() throws {
        let stream = Self.head + greeting(isLast: true) + [1, 2, 3] + Self.end + Self.go
        #expect(try passed(stream, inPiecesOf: 7, isUsed: false) == stream)
    }

    @Test func xensOwnStreamIsNotSearchedForEver() throws {
        let pages = [UInt8](repeating: 0xff, count: Limits.xlHeadBytes + 65537)
        let stream = pages + greeting(isLast: true) + [1, 2, 3]
        #expect(try passed(stream, inPiecesOf: 65536) == stream)
    }

    @Test func anythingInThePlaceOfTheEndIsAnError() {
        #expect(throws: TurntableError.self) { try passed(greeting(isLast: true) + [0, 0, 0, 0, 1, 0, 0, 0], inPiecesOf: 6) }
    }
}

internal import Foundation
internal import Testing
internal import TurntableCore
@testable internal import Lightpaths

/// NSI messages as they are written and read; what a peer may send is bounded.
struct MessageTests {
    private func parsed(_ text: String) throws -> Element { try Element.parse(Data(text.utf8)) }

    @Test func whatIsWrittenIsRead() throws {
        let criteria = NSICriteria(
            version: 3, from: Date(timeIntervalSince1970: 1_700_000_000), until: Date(timeIntervalSince1970: 1_700_003_600), megabitsPerSecond: 250, ends: ["urn:a?vlan=1", "urn:<b>&\"c\""])
        let message = NSIMessage(
            correlationID: NSIMessage.newCorrelation(), requester: "urn:r", provider: "urn:p", replyTo: "https://r.test:1/?a=1&b=2",
            body: Element("reserve", in: NSI.types, [Element("connectionId", "c"), criteria.element]))
        let read = try NSIMessage.parse(message.envelope(for: NSI.providerProtocol))
        #expect(read == message)
        #expect(NSICriteria(read.body["criteria"]) == criteria)
    }

    @Test func aFaultIsAnError() throws {
        let exception = NSIException(id: "00704", text: "a < b", connectionID: "c")
        let error = try #require(throws: TurntableError.self) { try NSIMessage.parse(NSIMessage.fault(exception, "urn:p")) }
        #expect(error.kind == .refused && error.why == "00704: a < b")
        let nested = try parsed(
            "<e><errorId>00500</errorId><text>a child failed</text><childException><errorId>00705</errorId><text>no room</text></childException></e>")
        #expect(NSIException(nested)?.text == "a child failed: 00705 no room")
    }

    @Test(arguments: [
        "2026-01-31T22:00:00Z", "2026-01-31T22:00:00.000Z", "2026-02-01T00:00:00+02:00", "2026-01-31T22:00:00.000000+00:00",
    ]) func timesInAllTheirSpellings(_ text: String) { #expect(NSI.time(text) == Date(timeIntervalSince1970: 1_769_896_800)) }

    @Test(arguments: [
        "", "<a>", "<a></b>", "no XML", "<a/><b/>", "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>", "<a>&undefined;</a>", "<a>\u{0}</a>",
    ]) func whatIsNoMessageIsRefused(_ text: String) { #expect(throws: TurntableError.self) { try NSIMessage.parse(Data(text.utf8)) } }

    @Test func whatIsTooMuchIsRefused() throws {
        func nested(_ depth: Int) -> String { String(repeating: "<a>", count: depth) + String(repeating: "</a>", count: depth) }
        _ = try parsed(nested(Limits.nsiDepth))
        #expect(throws: TurntableError.self) { try parsed(nested(Limits.nsiDepth + 1)) }
        func wide(_ count: Int) -> String { "<a>" + String(repeating: "<b/>", count: count) + "</a>" }
        _ = try parsed(wide(Limits.nsiElements - 1))
        #expect(throws: TurntableError.self) { try parsed(wide(Limits.nsiElements)) }
        #expect(throws: TurntableError.self) { try parsed("<a>" + String(repeating: " ", count: Limits.nsiMessageBytes) + "</a>") }
    }
}

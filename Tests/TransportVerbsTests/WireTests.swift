internal import TestSupport
internal import Testing
@testable internal import TransportVerbs
internal import TurntableCore
internal import WireFormat

/// What is said over RDMA, without a device.
struct WireTests {
    static let hello = VerbsHello(stream: 3, lane: 5, lanes: 40, frames: 33, attachment: AttachmentID(high: 1, low: .max))

    @Test func aGreetingComesThroughTheDevicesPadding() {
        var sealed = Self.hello
        sealed.proof = Array(1...32)
        for hello in [Self.hello, sealed] {
            let bytes = hello.encoded()
            #expect(bytes.count <= 56)
            // Devices pad private data with zeroes on arrival.
            #expect(VerbsHello.decode(bytes + [UInt8](repeating: 0, count: 196 - bytes.count)) == .success(hello))
        }
        #expect(Self.hello.preface.protection == .none && sealed.preface.protection == .sealed)
    }

    @Test(arguments: [(0, UInt8(0x55)), (1, 0), (2, 2), (3, 23), (3, 57), (4, 16), (5, 40), (6, 0), (6, 65), (7, 0), (7, 65)])
    func aGreetingThatIsNoneIsRefused(position: Int, value: UInt8) {
        var bytes = Self.hello.encoded() + [UInt8](repeating: 0, count: 32)
        bytes[position] = value
        guard case .failure(let error) = VerbsHello.decode(bytes) else {
            Issue.record("it was taken")
            return
        }
        #expect(error.reason == (position < 4 ? .version : .shape))
    }

    @Test func everyShortGreetingIsRefused() {
        var sealed = Self.hello
        sealed.proof = Array(1...32)
        let bytes = sealed.encoded()
        for count in 0..<bytes.count { #expect(VerbsHello.decode(Array(bytes.prefix(count))) == .failure(.init(.version))) }
    }

    @Test func answersAndRefusals() {
        let answer = VerbsAnswer(ring: 0x1234_5678_9abc_def0, key: 0xfeed)
        #expect(VerbsAnswer.decode(answer.encoded() + [0, 0, 0]) == answer)
        for reason in VerbsRefusal.allCases {
            #expect(VerbsAnswer.decode(VerbsAnswer(refusal: reason).encoded())?.refusal == reason)
            #expect(!reason.text.isEmpty)
        }
        var foreign = answer.encoded()
        foreign[4] = 99
        #expect(VerbsAnswer.decode(foreign) == nil)
        #expect(VerbsAnswer.decode(Array(answer.encoded().prefix(23))) == nil)
    }

    private func prefix(_ change: (inout MutableRawSpan) -> Void = { _ in }) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Place.headBytes)
        bytes.withUnsafeMutableBytes { buffer in
            var output = MutableRawSpan(_unsafeBytes: buffer)
            PlacePrefix(headBytes: 48, payloadBytes: 4096, others: 2, isDirect: true, windows: 1).encode(into: &output)
            WindowRequest(region: 1, stripe: 2, isWanted: true).encode(into: &output, index: 0)
            change(&output)
        }
        return bytes
    }
    private func read<Value>(_ bytes: [UInt8], _ body: (RawSpan) throws(WireError) -> Value) -> Result<Value, WireError> {
        bytes.withUnsafeBytes { buffer in
            do throws(WireError) { return .success(try body(RawSpan(_unsafeBytes: buffer))) } catch { return .failure(error) }
        }
    }

    @Test func aPlacesPrefixIsCheckedBeforeItIsBelieved() throws {
        let good = try read(prefix()) { (span) throws(WireError) in try PlacePrefix.decode(span, lanes: 3) }.get()
        #expect(good == PlacePrefix(headBytes: 48, payloadBytes: 4096, others: 2, isDirect: true, windows: 1))
        let wrong: [(String, (inout MutableRawSpan) -> Void)] = [
            ("a head that is too short", { $0.store(UInt16(39), at: 0) }), ("one that is too long", { $0.store(UInt16(4153), at: 0) }),
            ("too much payload", { $0.store(UInt32((1 << 20) + 17), at: 2) }), ("more lanes than there are", { $0.store(UInt16(3), at: 6) }),
            ("no such way", { $0.store(UInt8(2), at: 8) }), ("too many requests", { $0.store(UInt8(33), at: 9) }),
        ]
        for (what, change) in wrong {
            let result = read(prefix(change)) { (span) throws(WireError) in try PlacePrefix.decode(span, lanes: 3) }
            #expect(throws: WireError.self, "\(what)") { try result.get() }
        }
    }

    @Test func aRequestIsOfThisStreamAndThisMemory() throws {
        let layout = MemoryLayoutTable(regionPages: [256 * 9, 256 * 9], disks: [256 * 9], streams: 3)
        func request(_ region: Int, _ stripe: Int, wanted: UInt16 = 1, stream: Int) -> Result<WindowRequest, WireError> {
            let bytes = prefix { output in
                output.store(UInt32(stripe), at: 10)
                output.store(UInt16(region), at: 14)
                output.store(wanted, at: 16)
            }
            return read(bytes) { (span) throws(WireError) in
                try WindowRequest.decode(span, index: 0, layout: layout, stream: stream)
            }
        }
        #expect(try request(1, 4, stream: 2).get() == WindowRequest(region: 1, stripe: 4, isWanted: true))
        #expect(try request(1, 4, wanted: 0, stream: 2).get().isWanted == false)
        // Another stream's, a disk's, no region's, beyond the end, and neither asked for nor given back.
        for wrong in [
            request(1, 4, stream: 1), request(2, 0, stream: 2), request(3, 0, stream: 0), request(0, 9, stream: 0),
            request(1, 4, wanted: 2, stream: 2),
        ] {
            #expect(throws: WireError.self) { try wrong.get() }
        }
    }

    @Test func creditsCarryGrants() throws {
        let grants = (0..<Limits.grantsPerFrame).map {
            Grant(region: $0, stripe: $0 * 7, isGranted: $0 % 2 == 0, address: UInt64($0) << 40, key: UInt32($0))
        }
        var bytes = [UInt8](repeating: 0xff, count: Credit.bytes)
        bytes.withUnsafeMutableBytes { buffer in
            var output = MutableRawSpan(_unsafeBytes: buffer)
            Credit.encode(taken: 77, grants: grants.count, into: &output)
            for (index, grant) in grants.enumerated() { grant.encode(into: &output, index: index) }
        }
        let (taken, count) = try read(bytes) { (span) throws(WireError) in try Credit.decode(span) }.get()
        #expect(taken == 77 && count == grants.count)
        for (index, grant) in grants.enumerated() {
            #expect(try read(bytes) { (span) throws(WireError) in Grant.decode(span, index: index) }.get() == grant)
        }
        // Its length says the same as its count.
        for length in [0, 15, 16, Credit.bytes - 1] {
            #expect(throws: WireError.self) { try read(Array(bytes.prefix(length))) { (span) throws(WireError) in try Credit.decode(span) }.get() }
        }
    }
}

internal import Foundation
internal import NIOHTTP1
internal import Testing
internal import TurntableCore
@testable internal import Lightpaths
@testable internal import Orchestration

/// Lightpaths by the NSI Connection Service 2, as requester and as provider.
@Suite(.serialized) struct NSITests {
    private let id = UUID().uuidString.lowercased()
    private var request: LightpathRequest {
        LightpathRequest(ends: ["urn:a", "urn:b"], bitsPerSecond: 200e6, leastBitsPerSecond: 1e6, until: .now + 3600)
    }

    private func with(
        _ traps: [TrickyProvider.Trap], modifies: Bool? = nil, _ body: (NSILine, TrickyProvider) async throws -> Void
    ) async throws {
        let stage = try NSIStage()
        let provider = try TrickyProvider(traps, as: stage.provider)
        try await withThrowingTaskGroup(of: Void.self) { group in
            let url = try await stage.serve(provider.routes(), as: stage.provider, in: &group)
            let line = try await stage.line(url + "/nsi", modifies: modifies, in: &group)
            try await body(line, provider)
            group.cancelAll()
            await line.client.shutDown()
            await provider.client.shutDown()
        }
    }

    private func goThrough(_ line: NSILine, _ provider: TrickyProvider) async throws {
        #expect(try await line.query(id) == nil)
        #expect(try await line.reserve(id, request).state == .held)
        try await line.commit(id)
        let active = try await line.provision(id)
        #expect(active.state == .provisioned && active.isActive && active.bitsPerSecond == 200e6)
        #expect(await provider.connections.map(\.isActive) == [true])
        let changed = try await line.change(id, bitsPerSecond: 300e6)
        #expect(changed.bitsPerSecond == 300e6 && changed.isActive)
        try await line.release(id)
        #expect(try await line.query(id)?.state == .committed)
        try await line.terminate(id)
        #expect(try await line.query(id) == nil)
        // Again, and of what never was.
        try await line.terminate(id)
        try await line.terminate(UUID().uuidString.lowercased())
    }

    @Test func repliesAfterTheAnswer() async throws { try await with([]) { try await goThrough($0, $1) } }

    @Test func repliesBeforeTheAnswer() async throws { try await with([.replyBeforeAnswer]) { try await goThrough($0, $1) } }

    @Test func repliesThatAreLost() async throws { try await with([.noReplies]) { try await goThrough($0, $1) } }

    /// The first notice says that nothing passes; it is ready when the provider says so of all of it.
    @Test func aDataPlaneThatComesLate() async throws {
        try await with([.slowDataPlane, .answersWithAll]) { line, provider in
            _ = try await line.reserve(UUID().uuidString.lowercased(), request)
            _ = try await line.reserve(id, request)
            try await line.commit(id)
            let begun = ContinuousClock.now
            #expect(try await line.provision(id).isActive)
            #expect(ContinuousClock.now - begun > .seconds(1.2))
            #expect(await provider.notices.first == false)
            // The notice that it passes no more comes before releaseConfirmed, and does no harm.
            try await line.release(id)
            try await line.terminate(id)
            #expect(await provider.connections.map(\.lifecycle) == ["Created", "Terminated"])
        }
    }

    @Test(arguments: [
        ("reserve", "00704", TurntableError.Kind.refused), ("reserve", "00400", .refused), ("reserve", "00100", .protocol), ("reserve", "00500", .line),
        ("reserve", "00302", .refused), ("querySummarySync", "00203", .refused),
    ]) func aFaultSaysWhy(_ operation: String, _ number: String, _ kind: TurntableError.Kind) async throws {
        try await with([.fault(operation, id: number, text: "STP is taken")]) { line, provider in
            let error = await #expect(throws: TurntableError.self) { try await line.reserve(id, request) }
            #expect(error?.kind == kind && error?.why == "\(number): STP is taken" && error?.what.contains(operation) == true)
            #expect(await provider.connections.isEmpty)
        }
    }

    @Test func aFailureThatComesLater() async throws {
        try await with([.failsLater("reserve")]) { line, provider in
            let error = await #expect(throws: TurntableError.self) { try await line.reserve(id, request) }
            #expect(error?.kind == .refused && error?.why == "00705: no room")
            // What is left of it is taken away when it is asked for anew, and also when all is given back.
            await provider.set([])
            #expect(try await line.reserve(id, request).state == .held)
            #expect(await provider.connections.map(\.lifecycle) == ["Terminated", "Created"])
            try await line.terminate(id)
            #expect(await provider.connections.map(\.lifecycle) == ["Terminated", "Terminated"])
        }
    }

    @Test func noSOAPAtAll() async throws {
        try await with([.noSOAP]) { line, _ in
            #expect(await #expect(throws: TurntableError.self) { try await line.reserve(id, request) }?.kind == .line)
        }
    }

    @Test(arguments: [nil, false]) func aProviderThatDoesNotModify(_ modifies: Bool?) async throws {
        try await with([.refusesModify], modifies: modifies) { line, provider in
            _ = try await line.reserve(id, request)
            try await line.commit(id)
            _ = try await line.provision(id)
            let error = await #expect(throws: TurntableError.self) { try await line.change(id, bitsPerSecond: 300e6) }
            #expect(error?.kind == .unsupported)
            // It stays as it was, and is asked for what it cannot only if that is not known of it.
            let path = try await line.query(id)
            #expect(path?.isActive == true && path?.bitsPerSecond == 200e6)
            #expect(await provider.heard.filter { $0 == "reserve" }.count == (modifies == false ? 1 : 2))
            try await line.keep(id)
        }
    }

    /// What is held and not committed within the provider's time is gone; a new attempt begins anew.
    @Test func aReservationThatTimedOut() async throws {
        try await with([]) { line, provider in
            _ = try await line.reserve(id, request)
            await provider.change { $0[0].reservation = "ReserveTimeout" }
            let error = await #expect(throws: TurntableError.self) { try await line.commit(id) }
            #expect(error?.kind == .refused)
            #expect(try await line.reserve(id, request).state == .held)
            #expect(await provider.connections.map(\.lifecycle) == ["Terminated", "Created"])
            try await line.commit(id)
        }
    }

    /// An orchestrator that follows another goes on with what that one had, whatever it heard of it.
    @Test func whoeverFollowsGoesOn() async throws {
        try await with([.noReplies]) { line, provider in
            _ = try await line.reserve(id, request)
            let next = NSILine(client: line.client, requester: NSIRequester(name: "urn:other", url: line.requester.url), provider: line.provider)
            #expect(try await next.reserve(id, request).state == .held)
            try await next.commit(id)
            try await next.commit(id)
            #expect(try await next.provision(id).isActive)
            #expect(try await next.provision(id).isActive)
            try await next.terminate(id)
            #expect(await provider.heard.filter { $0 != "querySummarySync" } == ["reserve", "reserveCommit", "provision", "terminate"])
        }
    }

    // MARK: - Our own controller

    /// A controller whose links are nobody's: every command at its nodes succeeds and does nothing.
    private func withController(_ body: (NSIStage, LightpathController, NSILine, String) async throws -> Void) async throws {
        let stage = try NSIStage()
        let network = "urn:ogf:network:other.test:2026"
        let text = """
            {"network":"\(network)","borders":[{"name":"out","node":"b","interface":"eth1","carrier":"vlan","bitsPerSecond":1e9,"roundTripMilliseconds":1,
             "labels":[100,199],"peer":{"network":"urn:ogf:network:far.test:2026","border":"in"}}],
             "nodes":{"a":{"run":["true"]},"b":{"run":["true"]}},"links":[{"name":"ab","carrier":"vlan","bitsPerSecond":1e9,"roundTripMilliseconds":1,
             "labels":[1,9],"ends":[{"node":"a","interface":"eth0"},{"node":"b","interface":"eth0"}]}]}
            """
        let path = FileManager.default.temporaryDirectory.appending(path: "turntable-nsi-\(UUID().uuidString).sqlite").path
        defer { for more in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: path + more) } }
        let controller = try await LightpathController(
            topology: try Topology.parse(Data(text.utf8), "it"), store: try SQLiteStore(path: path), log: stage.log)
        let client = try Client(identity: stage.provider, connectingWithin: .seconds(60))
        let api = NSIProviderAPI(controller: controller, client: client, users: ["requester.test"], network: network, log: stage.log)
        var routes = Routes()
        api.add(to: &routes)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await controller.run() }
            group.addTask { await api.tellEvents() }
            let url = try await stage.serve(routes, as: stage.provider, in: &group) + NSIProviderAPI.path
            let line = try await stage.line(url, nsa: "\(network):nsa", in: &group)
            try await body(stage, controller, line, url)
            group.cancelAll()
            await line.client.shutDown()
        }
        await client.shutDown()
    }

    private func ours(_ rate: Double, _ a: String = "a", _ b: String = "b") -> LightpathRequest {
        let network = "urn:ogf:network:other.test:2026"
        return LightpathRequest(ends: ["\(network):\(a)", "\(network):\(b)?vlan=7"], bitsPerSecond: rate, until: .now + 3600)
    }

    @Test func ourControllerAnswersToo() async throws {
        try await withController { _, controller, line, _ in
            #expect(try await line.reserve(id, ours(600e6)).state == .held)
            try await line.commit(id)
            let path = try await line.provision(id)
            #expect(path.isActive && path.bitsPerSecond == 600e6)
            #expect(try await line.change(id, bitsPerSecond: 800e6).bitsPerSecond == 800e6)
            let error = await #expect(throws: TurntableError.self) { try await line.change(id, bitsPerSecond: 1200e6) }
            #expect(error?.kind == .refused && error?.why.contains("00705") == true)
            #expect(try await line.query(id)?.bitsPerSecond == 800e6)
            let other = UUID().uuidString.lowercased()
            let refusal = await #expect(throws: TurntableError.self) { try await line.reserve(other, ours(300e6)) }
            #expect(refusal?.why.contains("00705") == true)
            let unknown = await #expect(throws: TurntableError.self) {
                try await line.reserve(other, LightpathRequest(ends: ["urn:x:a", "urn:x:b"], bitsPerSecond: 1e6, until: .now + 60))
            }
            #expect(unknown?.why.contains("00701") == true)
            try await line.release(id)
            #expect(try await line.query(id)?.state == .committed)
            try await line.terminate(id)
            #expect(try await line.query(id) == nil)
            #expect(await controller.all().map(\.state) == [.terminated])
            #expect(try await line.reserve(other, ours(1e9)).state == .held)
        }
    }

    /// So that an aggregator of somebody else's joins it to what lies beyond.
    @Test func aBorderIsAnEndWithItsLabel() async throws {
        try await withController { _, controller, line, url in
            var request = ours(100e6, "a", "out")
            request.ends[1] = request.ends[1].replacingOccurrences(of: "vlan=7", with: "vlan=177")
            #expect(try await line.reserve(id, request).state == .held)
            #expect(await controller.all().first?.hops.map(\.label) == [1, 177])
            let message = NSIMessage(
                correlationID: NSIMessage.newCorrelation(), requester: "r", provider: "p", body: Element("querySummarySync", in: NSI.types, []))
            let answer = try await line.client.exchange(.POST, url, ("text/xml", message.envelope(for: NSI.providerProtocol)))
            #expect(String(decoding: answer.body, as: UTF8.self).contains("<destSTP>\(request.ends[1])</destSTP>"))
            // Labels that it has not, or none.
            for ends in [ours(1e6, "a", "out").ends, ["a", "out"].map { "urn:ogf:network:other.test:2026:\($0)" }] {
                let other = LightpathRequest(ends: ends, bitsPerSecond: 1e6, until: .now + 3600)
                await #expect(throws: TurntableError.self) { try await line.reserve(UUID().uuidString.lowercased(), other) }
            }
        }
    }

    /// It is for its users, and a connection is for whoever asked for it.
    @Test func whoMayAskOurController() async throws {
        try await withController { stage, controller, line, url in
            let stranger = NSILine(client: try Client(identity: stage.provider, connectingWithin: .seconds(60)), requester: line.requester, provider: line.provider)
            let error = await #expect(throws: TurntableError.self) { try await stranger.reserve(id, ours(1e6)) }
            #expect(error?.why.contains("00302") == true)
            await stranger.client.shutDown()
            _ = try await controller.reserve(id, LightpathRequest(ends: ["a", "b"], bitsPerSecond: 1e6, until: .now + 60), owner: "somebody.test")
            let message = NSIMessage(
                correlationID: NSIMessage.newCorrelation(), requester: "r", provider: "p", replyTo: "https://127.0.0.1:1/",
                body: Element("terminate", in: NSI.types, [Element("connectionId", id)]))
            let answer = try await line.client.exchange(.POST, url, ("text/xml", message.envelope(for: NSI.providerProtocol)))
            #expect(answer.status == 500 && String(decoding: answer.body, as: UTF8.self).contains("00203"))
            #expect(await controller.all().map(\.state) == [.held])
        }
    }
}

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import Logging
internal import NIOHTTP1
internal import Protection
internal import Synchronization
internal import TurntableCore
internal import TurntableLinux
@testable internal import Lightpaths
@testable internal import Orchestration

/// Two hosts that are reached at 127.0.0.1, and servers there for as long as a test lasts.
struct NSIStage: Sendable {
    let requester: HostIdentity
    let provider: HostIdentity
    let others: [HostIdentity]
    let log = Logger(label: "test")

    init(naming names: [String] = []) throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "turntable-nsi-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try KeyMaker.makeAuthority(named: "test", in: "\(directory)/authority", days: 2)
        func host(_ name: String) throws -> HostIdentity {
            try KeyMaker.makeHost(named: name, addresses: ["127.0.0.1"], authority: "\(directory)/authority", in: "\(directory)/\(name)", days: 1)
            return try HostIdentity(directory: "\(directory)/\(name)")
        }
        requester = try host("requester.test")
        provider = try host("provider.test")
        others = try names.map(host)
    }

    /// Serves, and gives the URL.
    func serve(_ routes: Routes, as identity: HostIdentity, in group: inout ThrowingTaskGroup<Void, any Error>) async throws -> String {
        let (ports, port) = AsyncStream<UInt16>.makeStream()
        group.addTask { try await Server(address: Address(host: "127.0.0.1", port: 0), identity: identity, log: log).run(routes) { port.yield($0) } }
        for await port in ports { return "https://127.0.0.1:\(port)" }
        throw TurntableError(.line, "serving", "it ended")
    }

    /// A requester with an endpoint for replies, and its client.
    func line(
        _ provider: String, nsa: String = "urn:ogf:network:other.test:2026:nsa", modifies: Bool? = nil, in group: inout ThrowingTaskGroup<Void, any Error>
    ) async throws -> NSILine {
        let replies = NSIRequester(name: "urn:ogf:network:home.test:2026:nsa", url: "")
        var routes = Routes()
        NSIRepliesAPI(requester: replies).add(to: &routes)
        var own = replies
        own.url = try await serve(routes, as: requester, in: &group)
        return NSILine(
            client: try Client(identity: requester, connectingWithin: .seconds(60)), requester: own,
            provider: LineProvider(kind: .nsi, url: provider, nsa: nsa, modifies: modifies, ends: ["urn:a", "urn:b"]))
    }
}

/// A provider that speaks the standard's messages with nothing of ours in them, and behaves as real ones do.
actor TrickyProvider {
    enum Trap: Sendable {
        case replyBeforeAnswer, noReplies, slowDataPlane, answersWithAll, refusesModify
        /// HTTP 500 with a fault, for an operation.
        case fault(String, id: String, text: String)
        case failsLater(String)
        case noSOAP
    }
    struct Connection {
        var id: String
        var global: String
        var reservation: String
        var provision = "Released"
        var lifecycle = "Created"
        var isActive = false
        var version = 0
        var held: (version: Int, capacity: String)?
        var capacity: String
        var until: String
    }
    var traps: [Trap]
    var connections: [Connection] = []
    /// The operations that it heard.
    private(set) var heard: [String] = []
    /// Of dataPlaneStateChange, in order.
    private(set) var notices: [Bool] = []
    let client: Client

    init(_ traps: [Trap], as identity: HostIdentity) throws {
        self.traps = traps
        client = try Client(identity: identity, connectingWithin: .seconds(60))
    }

    func set(_ traps: [Trap]) { self.traps = traps }
    func change(_ body: (inout [Connection]) -> Void) { body(&connections) }

    nonisolated func routes() -> Routes {
        var routes = Routes()
        routes.add("/nsi", (.post, { request, _ in
            let text = String(decoding: try await request.bytes(atMost: 1 << 20), as: UTF8.self)
            let (status, answer) = await self.answer(text)
            return .xml(Data(answer.utf8), status: status == 200 ? .ok : status == 500 ? .internalServerError : .serviceUnavailable)
        }))
        return routes
    }

    private static func value(_ name: String, _ text: String) -> String? {
        text.firstMatch(of: try! Regex("<(?:[a-z]+:)?\(name)(?: [^>]*)?>([^<]*)<")).flatMap { $0.output[1].substring.map(String.init) }
    }

    private func envelope(_ text: String, _ body: String) -> String {
        """
        <?xml version='1.0' encoding='UTF-8'?><S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><S:Header>
        <head:nsiHeader xmlns:head="http://schemas.ogf.org/nsi/2013/12/framework/headers"><protocolVersion>application/vnd.ogf.nsi.cs.v2.requester+soap</protocolVersion>
        <correlationId>\(text)</correlationId><requesterNSA>r</requesterNSA><providerNSA>p</providerNSA></head:nsiHeader></S:Header>
        <S:Body xmlns:ctypes="http://schemas.ogf.org/nsi/2013/12/connection/types">\(body)</S:Body></S:Envelope>
        """
    }

    private func tell(_ replyTo: String, _ correlation: String, _ body: String) async {
        _ = try? await client.exchange(.POST, replyTo, ("text/xml", Data(envelope(correlation, body).utf8)))
    }

    private func exception(_ id: String, _ text: String, _ tag: String) -> String {
        "<\(tag)><nsaId>p</nsaId><errorId>\(id)</errorId><text>\(text)</text></\(tag)>"
    }

    // MARK: - Operations

    private func answer(_ text: String) async -> (Int, String) {
        guard let operation = text.firstMatch(of: #/<n:(reserve|reserveCommit|reserveAbort|provision|release|terminate|querySummarySync) /#)?.output.1,
            let correlation = Self.value("correlationId", text)
        else { return (500, "<html>what?</html>") }
        heard.append(String(operation))
        for trap in traps {
            if case .noSOAP = trap { return (503, "<html>later</html>") }
            guard case .fault(let of, let id, let why) = trap, of == operation else { continue }
            let detail = "<detail>\(exception(id, why, "f:serviceException").replacingOccurrences(of: "<f:serviceException>", with: "<f:serviceException xmlns:f=\"http://schemas.ogf.org/nsi/2013/12/framework/types\">"))</detail>"
            return (500, envelope(correlation, "<S:Fault><faultcode>S:Server</faultcode><faultstring>\(why)</faultstring>\(detail)</S:Fault>"))
        }
        if operation == "querySummarySync" { return (200, envelope(correlation, summary(Self.value("globalReservationId", text) ?? ""))) }
        let replyTo = Self.value("replyTo", text) ?? ""
        let id: String
        if operation == "reserve" {
            if Self.value("connectionId", text) != nil, traps.contains(where: { if case .refusesModify = $0 { true } else { false } }) {
                return (500, envelope(correlation, "<S:Fault><faultstring>no</faultstring><detail>\(exception("00103", "no modify", "serviceException"))</detail></S:Fault>"))
            }
            id = reserve(text)
        } else {
            id = Self.value("connectionId", text) ?? ""
        }
        let done = Task { await self.perform(String(operation), id, replyTo, correlation) }
        if traps.contains(where: { if case .replyBeforeAnswer = $0 { true } else { false } }) { await done.value }
        let body = operation == "reserve" ? "<ctypes:reserveResponse><connectionId>\(id)</connectionId></ctypes:reserveResponse>" : "<ctypes:acknowledgment/>"
        return (200, envelope(correlation, body))
    }

    private func reserve(_ text: String) -> String {
        let capacity = Self.value("capacity", text) ?? ""
        let until = Self.value("endTime", text) ?? ""
        if let id = Self.value("connectionId", text), let at = connections.firstIndex(where: { $0.id == id }) {
            connections[at].held = (Int(text.firstMatch(of: /criteria version="([0-9]+)"/)?.output.1 ?? "") ?? 0, capacity)
            return id
        }
        let id = "c-\(connections.count)"
        connections.append(
            Connection(id: id, global: Self.value("globalReservationId", text) ?? "", reservation: "ReserveChecking", capacity: capacity, until: until))
        return id
    }

    private func perform(_ operation: String, _ id: String, _ replyTo: String, _ correlation: String) async {
        guard let at = connections.firstIndex(where: { $0.id == id }) else { return }
        for case .failsLater(let of) in traps where of == operation {
            connections[at].reservation = "ReserveFailed"
            let body = "<ctypes:\(of)Failed><connectionId>\(id)</connectionId>\(exception("00705", "no room", "serviceException"))</ctypes:\(of)Failed>"
            return await tell(replyTo, correlation, body)
        }
        switch operation {
        case "reserve": connections[at].reservation = "ReserveHeld"
        case "reserveCommit":
            connections[at].reservation = "ReserveStart"
            if let held = connections[at].held { (connections[at].version, connections[at].capacity, connections[at].held) = (held.version, held.capacity, nil) }
        case "reserveAbort": (connections[at].reservation, connections[at].held) = ("ReserveStart", nil)
        case "provision":
            connections[at].provision = "Provisioned"
            // First what there was before: nothing.
            await notice(id, replyTo)
            if traps.contains(where: { if case .slowDataPlane = $0 { true } else { false } }) { try? await Task.sleep(for: .seconds(1.5)) }
            connections[at].isActive = true
            await notice(id, replyTo)
        case "release", "terminate":
            if operation == "terminate" { connections[at].lifecycle = "Terminated" }
            connections[at].provision = "Released"
            connections[at].isActive = false
            // Before the confirmation.
            await notice(id, replyTo)
        default: break
        }
        if traps.contains(where: { if case .noReplies = $0 { true } else { false } }) { return }
        await tell(replyTo, correlation, "<ctypes:\(operation)Confirmed><connectionId>\(id)</connectionId></ctypes:\(operation)Confirmed>")
    }

    private func notice(_ id: String, _ replyTo: String) async {
        guard let connection = connections.first(where: { $0.id == id }) else { return }
        notices.append(connection.isActive)
        await tell(
            replyTo, "urn:uuid:\(UUID().uuidString)",
            "<ctypes:dataPlaneStateChange><connectionId>\(id)</connectionId><notificationId>1</notificationId><timeStamp>2026-01-01T00:00:00Z</timeStamp>"
                + "<dataPlaneStatus><active>\(connection.isActive)</active><version>0</version><versionConsistent>true</versionConsistent></dataPlaneStatus></ctypes:dataPlaneStateChange>")
    }

    private func summary(_ global: String) -> String {
        let all = traps.contains { if case .answersWithAll = $0 { true } else { false } }
        let found = connections.filter { all || $0.global == global }.map { each in
            """
            <reservation><connectionId>\(each.id)</connectionId><globalReservationId>\(each.global)</globalReservationId><description>d</description>
            <criteria version="\(each.version)"><schedule><endTime>\(each.until)</endTime></schedule><serviceType>s</serviceType>
            <p:p2ps xmlns:p="http://schemas.ogf.org/nsi/2013/12/services/point2point"><capacity>\(each.capacity)</capacity></p:p2ps></criteria><requesterNSA>r</requesterNSA>
            <connectionStates><reservationState>\(each.held == nil ? each.reservation : "ReserveHeld")</reservationState><provisionState>\(each.provision)</provisionState>
            <lifecycleState>\(each.lifecycle)</lifecycleState><dataPlaneStatus><active>\(each.isActive)</active><version>\(each.version)</version>
            <versionConsistent>true</versionConsistent></dataPlaneStatus></connectionStates></reservation>
            """
        }
        return "<ctypes:querySummarySyncConfirmed>\(found.joined())</ctypes:querySummarySyncConfirmed>"
    }
}

// Our controller as a provider of the NSI Connection Service 2, so that others' agents, and our own of another domain, can peer with it:
// POST /v1/nsi. Names of ends (STPs) are the network's and the node's, urn:ogf:network:<network>:<node>.
//
// A connection's id is its reservation's. What is held ends after a while unless it is committed, and then a reserveTimeout says so;
// what is committed stays until the end of its schedule.

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import Lightpaths
internal import Logging
internal import NIOHTTP1
internal import TurntableCore

struct NSIProviderAPI: Sendable {
    let controller: LightpathController
    let client: Client
    /// Who may ask, by the names in their certificates.
    let users: Set<String>
    /// urn:ogf:network:…, before the names of nodes.
    let network: String
    let log: Logger
    static let path = "/v1/nsi"

    private var name: String { "\(network):nsa" }

    func add(to routes: inout Routes) {
        routes.add(Self.path, (.post, { request, context in
            do {
                guard users.contains(context.peer) else {
                    throw NSIException(id: NSIException.unauthorized, text: "\(context.peer) may have no lightpaths here")
                }
                let message: NSIMessage
                do { message = try NSIMessage.parse(try await request.bytes(atMost: Limits.nsiMessageBytes)) } catch {
                    throw NSIException(id: NSIException.payload, text: "\(error)")
                }
                let body = try await answer(message, context.peer)
                let answer = NSIMessage(correlationID: message.correlationID, requester: message.requester, provider: name, body: body)
                return .xml(answer.envelope(for: NSI.providerProtocol))
            } catch {
                return .xml(NSIMessage.fault(exception(error), name), status: .internalServerError)
            }
        }))
    }

    private func exception(_ error: any Error) -> NSIException {
        if let error = error as? NSIException { return error }
        guard let error = error as? TurntableError else { return NSIException(id: NSIException.internalError, text: "\(error)") }
        return NSIException(id: error.kind == .line ? NSIException.internalError : NSIException.invalidTransition, text: "\(error)")
    }

    // MARK: - Requests

    /// The answer in the same connection. What is done besides is told later.
    private func answer(_ message: NSIMessage, _ peer: String) async throws -> Element {
        let acknowledgment = Element("acknowledgment", in: NSI.types, [])
        if message.operation == "querySummarySync" { return try await summary(message, peer, "querySummarySyncConfirmed") }
        guard let replyTo = message.replyTo, let url = URLComponents(string: replyTo), ["https", "http"].contains(url.scheme), url.host != nil else {
            throw NSIException(id: NSIException.missingParameter, text: "replyTo is missing, or no URL")
        }
        if message.operation == "reserve" { return try await reserve(message, replyTo, peer) }
        if message.operation == "querySummary" {
            let found = try await summary(message, peer, "querySummaryConfirmed")
            tell(replyTo, message, found)
            return acknowledgment
        }
        let id = try await connection(message, peer).id
        let controller = controller
        let change: @Sendable () async throws -> Reservation
        switch message.operation {
        case "reserveCommit": change = { try await controller.commit(id, owner: peer, isLeased: false) }
        case "reserveAbort": change = { try await controller.abort(id, owner: peer) }
        case "provision": change = { try await controller.provision(id, owner: peer, isLeased: false) }
        case "release": change = { try await controller.release(id, owner: peer) }
        case "terminate": change = { try await controller.terminate(id, owner: peer) }
        default: throw NSIException(id: NSIException.notSupported, text: "there is no operation \(message.operation.prefix(80)) here")
        }
        _ = try await change()
        tell(replyTo, message, Element("\(message.operation)Confirmed", in: NSI.types, [Element("connectionId", id)]))
        return acknowledgment
    }

    private func connection(_ message: NSIMessage, _ peer: String) async throws -> Reservation {
        guard let id = message.body["connectionId"].value else {
            throw NSIException(id: NSIException.missingParameter, text: "connectionId is missing")
        }
        do { return try await controller.reservation(id, of: peer) } catch {
            throw NSIException(id: NSIException.noSuchConnection, text: "there is no connection \(id.prefix(80))", connectionID: String(id.prefix(80)))
        }
    }

    private func reserve(_ message: NSIMessage, _ replyTo: String, _ peer: String) async throws -> Element {
        guard let criteria = NSICriteria(message.body["criteria"]) else { throw NSIException(id: NSIException.payload, text: "the version is no number") }
        let id: String
        let held: () async throws -> Reservation
        if message.body["connectionId"].value != nil {
            let known = try await connection(message, peer)
            guard criteria.version == known.version + 1 else {
                throw NSIException(id: NSIException.payload, text: "version \(criteria.version) follows \(known.version) not", connectionID: known.id)
            }
            id = known.id
            let rate = criteria.megabitsPerSecond.map { Double($0) * 1e6 }
            held = { try await controller.hold(id, bitsPerSecond: rate, until: criteria.until, owner: peer) }
        } else {
            guard let rate = criteria.megabitsPerSecond, criteria.ends.count == 2 else {
                throw NSIException(id: NSIException.missingParameter, text: "capacity, sourceSTP or destSTP is missing")
            }
            let request = LightpathRequest(
                ends: try criteria.ends.map { try end($0) }, bitsPerSecond: Double(rate) * 1e6, from: criteria.from,
                until: criteria.until ?? .now + Limits.lightpathWindow.seconds / 2,
                joints: criteria.ends.map { LightpathRequest.Joint(label: label($0)) })
            let requester = Reservation.Requester(
                globalReservationID: message.body["globalReservationId"].value, description: message.body["description"].value, name: message.requester,
                replyTo: replyTo)
            id = UUID().uuidString.lowercased()
            held = { try await controller.reserve(id, request, owner: peer, requester: requester) }
        }
        let response = Element("reserveResponse", in: NSI.types, [Element("connectionId", id)])
        do {
            let reservation = try await held()
            tell(replyTo, message, Element("reserveConfirmed", in: NSI.types, details(reservation, isHeld: true)))
        } catch let error as TurntableError where error.kind == .refused {
            var children = [Element("connectionId", id)]
            if let known = try? await controller.reservation(id, of: peer) { children.append(await connectionStates(known)) }
            children.append(NSIException(id: NSIException.capacityUnavailable, text: "\(error)", connectionID: id).element(name))
            tell(replyTo, message, Element("reserveFailed", in: NSI.types, children))
        }
        return response
    }

    private func end(_ stp: String) throws -> String {
        let name = stp.prefix { $0 != "?" }
        guard name.hasPrefix(network + ":") else { throw NSIException(id: NSIException.unknownSTP, text: "\(stp.prefix(200)) is not of \(network)") }
        return String(name.dropFirst(network.count + 1))
    }

    /// That of a border; others are chosen here.
    private func label(_ stp: String) -> Int? {
        URLComponents(string: "stp:?\(stp.drop { $0 != "?" }.dropFirst())")?.queryItems?.first { $0.name == "vlan" }?.value.flatMap { Int($0) }
    }

    // MARK: - What is shown

    private func summary(_ message: NSIMessage, _ peer: String, _ operation: String) async throws -> Element {
        let ids = Set(message.body.all("connectionId").compactMap(\.value))
        let globals = Set(message.body.all("globalReservationId").compactMap(\.value))
        var found: [Element] = []
        for each in await controller.all() where each.owner == peer && each.requester != nil {
            guard ids.isEmpty && globals.isEmpty || ids.contains(each.id) || globals.contains(each.requester?.globalReservationID ?? "") else { continue }
            let states = await connectionStates(each)
            found.append(Element("reservation", details(each, isHeld: false) + [Element("requesterNSA", each.requester?.name ?? ""), states]))
        }
        return Element(operation, in: NSI.types, found)
    }

    private func details(_ reservation: Reservation, isHeld: Bool) -> [Element] {
        var children = [Element("connectionId", reservation.id)]
        if let id = reservation.requester?.globalReservationID { children.append(Element("globalReservationId", id)) }
        if let text = reservation.requester?.description { children.append(Element("description", text)) }
        let change = isHeld ? reservation.change : nil
        let criteria = NSICriteria(
            version: reservation.version + (change == nil ? 0 : 1), from: reservation.from, until: change?.until ?? reservation.until,
            megabitsPerSecond: Int((change?.bitsPerSecond ?? reservation.bitsPerSecond) / 1e6),
            ends: [stp(reservation.ends[0], reservation.hops.first), stp(reservation.ends[1], reservation.hops.last)])
        return children + [criteria.element]
    }

    private func stp(_ end: String, _ hop: Hop?) -> String {
        "\(network):\(end)" + (hop.flatMap { $0.link == end ? "?vlan=\($0.label)" : nil } ?? "")
    }

    private func connectionStates(_ reservation: Reservation) async -> Element {
        let isOver = reservation.state == .terminated
        let isHeld = reservation.state == .held || reservation.change != nil
        return Element(
            "connectionStates",
            [
                Element("reservationState", isHeld ? "ReserveHeld" : "ReserveStart"),
                Element("provisionState", reservation.state == .provisioned ? "Provisioned" : "Released"),
                Element("lifecycleState", !isOver ? "Created" : reservation.until <= reservation.ended ?? .now ? "PassedEndTime" : "Terminated"),
                plane(reservation, isActive: await controller.isActive(reservation)),
            ])
    }

    private func plane(_ reservation: Reservation, isActive: Bool) -> Element {
        Element(
            "dataPlaneStatus",
            [Element("active", "\(isActive)"), Element("version", "\(reservation.version)"), Element("versionConsistent", "true")])
    }

    // MARK: - What is told

    private func tell(_ replyTo: String, _ message: NSIMessage, _ body: Element) {
        let reply = NSIMessage(correlationID: message.correlationID, requester: message.requester, provider: name, body: body)
        Task { await send(replyTo, reply) }
    }

    private func send(_ url: String, _ message: NSIMessage) async {
        do throws(TurntableError) {
            let answer = try await client.exchange(
                .POST, url, ("text/xml; charset=utf-8", message.envelope(for: NSI.requesterProtocol)),
                headers: ["soapaction": "\"\(NSI.actions)\(message.operation)\""])
            if answer.status >= 400 { log.info("\(message.operation) to \(url): HTTP \(answer.status)") }
        } catch {
            // It asks by itself, if it wants to know.
            log.info("\(message.operation): \(error)")
        }
    }

    /// Tells what happens to connections, until the task is cancelled.
    func tellEvents() async {
        var count = 0
        for await event in controller.events {
            count += 1
            let told: (Reservation, Element)
            switch event {
            case .dataPlane(let reservation, let isActive):
                told = (reservation, notice("dataPlaneStateChange", reservation, count, [plane(reservation, isActive: isActive)]))
            case .expired(let reservation):
                guard reservation.version == 0, reservation.lease < reservation.until else { continue }
                told = (
                    reservation,
                    notice(
                        "reserveTimeout", reservation, count,
                        [
                            Element("timeoutValue", "\(Int(Limits.lightpathHoldTime.seconds))"), Element("originatingConnectionId", reservation.id),
                            Element("originatingNSA", name),
                        ])
                )
            }
            guard let requester = told.0.requester, let replyTo = requester.replyTo else { continue }
            await send(
                replyTo, NSIMessage(correlationID: NSIMessage.newCorrelation(), requester: requester.name, provider: name, body: told.1))
        }
    }

    private func notice(_ operation: String, _ reservation: Reservation, _ number: Int, _ more: [Element]) -> Element {
        Element(
            operation, in: NSI.types,
            [Element("connectionId", reservation.id), Element("notificationId", "\(number)"), Element("timeStamp", NSI.text(.now))] + more)
    }
}

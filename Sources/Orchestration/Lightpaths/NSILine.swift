// A line from a provider of the NSI Connection Service 2: Lightpaths/NSI/NSIMessage.swift.
//
// A migration's connections carry its id as their global reservation id, and nothing of them is remembered here: whoever goes on
// with a migration asks the provider what there is. Messages to `replyTo` are hints, as are notices: they may be lost, come before
// the answer that they follow, in another order, or say of the data plane what is no longer so. After each the provider is asked by
// querySummarySync, and so it is when none comes; what it says then counts. Only a refusal is taken from a reply itself.
//
// The end of a connection's schedule is its lease: it ends by itself unless it is kept, which needs a provider that modifies.

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import Lightpaths
internal import NIOHTTP1
internal import TurntableCore

/// Messages from providers, for whoever waits for one.
actor NSIReplies {
    private var waiting: [String: AsyncStream<NSIMessage?>.Continuation] = [:]

    /// The replies to a request, every notice, and nil now and then.
    func expect(_ correlation: String) throws(TurntableError) -> AsyncStream<NSIMessage?> {
        guard waiting.count < Limits.nsiReplies else {
            throw TurntableError(.line, "asking a provider", "\(waiting.count) replies are waited for already", remedy: "it is tried again")
        }
        let (stream, continuation) = AsyncStream<NSIMessage?>.makeStream(bufferingPolicy: .bufferingOldest(64))
        let pulse = Task {
            while !Task.isCancelled {
                try? await Task.sleep(for: .nanoseconds(Limits.nsiPollTime.value))
                continuation.yield(nil)
            }
        }
        continuation.onTermination = { _ in pulse.cancel() }
        waiting[correlation] = continuation
        return stream
    }

    func forget(_ correlation: String) { waiting.removeValue(forKey: correlation)?.finish() }

    /// A reply is its request's; a notice has a correlation of its own, and concerns whoever waits.
    func take(_ message: NSIMessage) {
        if let one = waiting[message.correlationID] { one.yield(message) } else { for each in waiting.values { each.yield(message) } }
    }
}

/// Who this domain is to providers, and where they reply.
public struct NSIRequester: Sendable {
    public var name: String
    /// Of this orchestrator, as providers reach it: https://host:port.
    public var url: String
    let replies = NSIReplies()

    public init(name: String, url: String) {
        self.name = name
        self.url = url
    }

    static let path = "/v1/nsi/replies"
}

struct NSILine: LightpathProvider {
    let client: Client
    let requester: NSIRequester
    let provider: LineProvider

    private var url: String { provider.url }
    private func what(_ operation: String) -> String { "\(operation) at \(provider.nsa ?? url)" }
    private func globalID(_ id: String) -> String { "urn:uuid:\(id)" }

    // MARK: - Asking

    /// Sends a request; gives the answer in the same connection.
    private func send(_ operation: String, _ children: [Element], _ correlation: String) async throws(TurntableError) -> NSIMessage {
        let message = NSIMessage(
            correlationID: correlation, requester: requester.name, provider: provider.nsa ?? "", replyTo: requester.url + NSIRequester.path,
            body: Element(operation, in: NSI.types, children))
        let answer = try await client.exchange(
            .POST, url, ("text/xml; charset=utf-8", message.envelope(for: NSI.providerProtocol)), headers: ["soapaction": "\"\(NSI.actions)\(operation)\""])
        do throws(TurntableError) { return try NSIMessage.parse(answer.body) } catch {
            if answer.status >= 400, error.what.hasPrefix("reading") {
                // It says nothing by NSI, or something before it does.
                throw TurntableError(answer.status >= 500 ? .line : .protocol, what(operation), "HTTP \(answer.status)")
            }
            throw TurntableError(error.kind, what(operation), error.why, remedy: error.remedy)
        }
    }

    private func connections(_ id: String) async throws(TurntableError) -> [NSIConnection] {
        let answer = try await send("querySummarySync", [Element("globalReservationId", globalID(id))], NSIMessage.newCorrelation())
        // Some providers answer with all that there are.
        return NSIConnection.all(in: answer).filter { $0.globalReservationID == globalID(id) && !$0.isOver }
    }

    /// Asks for something, and waits until the provider shows that it is done.
    private func perform(
        _ id: String, _ operation: String?, _ children: [Element] = [], until isDone: (NSIConnection?) -> Bool
    ) async throws(TurntableError) -> NSIConnection? {
        let correlation = NSIMessage.newCorrelation()
        let messages = try await replies.expect(correlation)
        defer { Task { [replies] in await replies.forget(correlation) } }
        if let operation { _ = try await send(operation, children, correlation) }
        let end = ContinuousClock.now + .nanoseconds(Limits.nsiReplyTime.value)
        for await message in messages {
            if let message, message.correlationID == correlation, message.operation.hasSuffix("Failed") || message.operation == "error" {
                let detail = message.body["serviceException"]
                throw (NSIException(detail) ?? NSIException(id: NSIException.internalError, text: message.operation)).error(what(operation ?? "a connection"))
            }
            let now = try await connections(id).last
            if isDone(now) { return now }
            if let now, isLost(now) { throw TurntableError(.refused, what(operation ?? "a connection"), "its state is \(now.reservation)") }
            if now == nil, operation != "reserve" {
                throw TurntableError(.refused, what(operation ?? "a connection"), "lightpath \(id) has ended there")
            }
            if ContinuousClock.now > end || Task.isCancelled { break }
        }
        throw TurntableError(.line, what(operation ?? "waiting for a connection"), "it is not done within \(Limits.nsiReplyTime)", remedy: "it is tried again")
    }

    private var replies: NSIReplies { requester.replies }

    private func known(_ id: String) async throws(TurntableError) -> NSIConnection {
        guard let connection = try await connections(id).last else {
            throw TurntableError(.refused, "lightpath \(id)", "\(provider.nsa ?? url) has none of that name, or none any more")
        }
        return connection
    }

    private func path(_ connection: NSIConnection) -> Lightpath {
        Lightpath(
            state: connection.provision == "Provisioned" ? .provisioned : connection.reservation == "ReserveHeld" ? .held : .committed,
            bitsPerSecond: connection.megabitsPerSecond * 1e6, isActive: connection.carries, until: connection.until ?? .distantFuture)
    }

    /// Nothing is held of it.
    private func isLost(_ connection: NSIConnection) -> Bool { ["ReserveFailed", "ReserveTimeout"].contains(connection.reservation) }

    private func megabits(_ rate: Double) -> Int { max(1, Int(rate / 1e6)) }

    // MARK: - LightpathProvider

    func reserve(_ id: String, _ request: LightpathRequest) async throws(TurntableError) -> Lightpath {
        for old in try await connections(id) {
            guard isLost(old) else { return path(old) }
            // What was held and not committed in time is of no more use.
            try await end(id, old)
        }
        let criteria = NSICriteria(
            version: 0, from: request.from, until: request.until, megabitsPerSecond: megabits(request.bitsPerSecond), ends: request.ends)
        let held = try await perform(
            id, "reserve", [Element("globalReservationId", globalID(id)), Element("description", "migration \(id)"), criteria.element]
        ) { $0?.reservation == "ReserveHeld" }
        guard let held else { return path(try await known(id)) }
        return path(held)
    }

    func commit(_ id: String) async throws(TurntableError) {
        let connection = try await known(id)
        guard connection.reservation != "ReserveStart" else { return }
        guard !isLost(connection) else { throw TurntableError(.refused, what("reserveCommit"), "its state is \(connection.reservation)") }
        _ = try await perform(id, "reserveCommit", [Element("connectionId", connection.id)]) { $0?.reservation == "ReserveStart" }
    }

    func provision(_ id: String) async throws(TurntableError) -> Lightpath {
        let connection = try await known(id)
        let isAsked = connection.provision == "Provisioned"
        // The first notice may say that nothing passes yet: what counts is that all of it does, with this version.
        let active = try await perform(id, isAsked ? nil : "provision", [Element("connectionId", connection.id)]) {
            $0?.provision == "Provisioned" && $0?.carries == true
        }
        return path(active ?? connection)
    }

    func query(_ id: String) async throws(TurntableError) -> Lightpath? { try await connections(id).last.map { path($0) } }

    func change(_ id: String, bitsPerSecond: Double) async throws(TurntableError) -> Lightpath {
        let connection = try await known(id)
        return path(try await modify(id, connection, megabits(bitsPerSecond), connection.until))
    }

    func keep(_ id: String) async throws(TurntableError) {
        let connection = try await known(id)
        guard provider.modifies ?? true, let until = connection.until, until < .now + Limits.lightpathTime.seconds / 2 else { return }
        _ = try await modify(id, connection, Int(connection.megabitsPerSecond), .now + Limits.lightpathTime.seconds)
    }

    private func modify(_ id: String, _ connection: NSIConnection, _ rate: Int, _ until: Date?) async throws(TurntableError) -> NSIConnection {
        guard provider.modifies ?? true else {
            throw TurntableError(.unsupported, "changing lightpath \(id)", "\(provider.nsa ?? url) does not modify connections")
        }
        let version = connection.version + 1
        let name = Element("connectionId", connection.id)
        let criteria = NSICriteria(version: version, until: until, megabitsPerSecond: rate, ends: [])
        _ = try await perform(id, "reserve", [name, criteria.element]) { $0?.reservation == "ReserveHeld" }
        do throws(TurntableError) {
            let changed = try await perform(id, "reserveCommit", [name]) {
                $0?.reservation == "ReserveStart" && $0?.version == version && ($0?.provision != "Provisioned" || $0?.carries == true)
            }
            return changed ?? connection
        } catch {
            // What is held of it is not wanted; it stays as it was.
            _ = try? await send("reserveAbort", [name], NSIMessage.newCorrelation())
            throw error
        }
    }

    func release(_ id: String) async throws(TurntableError) {
        guard let connection = try await connections(id).last, connection.provision == "Provisioned" else { return }
        _ = try await perform(id, "release", [Element("connectionId", connection.id)]) { $0?.provision != "Provisioned" }
    }

    func terminate(_ id: String) async throws(TurntableError) { for connection in try await connections(id) { try await end(id, connection) } }

    private func end(_ id: String, _ connection: NSIConnection) async throws(TurntableError) {
        _ = try await perform(id, "terminate", [Element("connectionId", connection.id)]) { $0 == nil || $0?.id != connection.id }
    }
}

/// Where providers reply.
struct NSIRepliesAPI: Sendable {
    let requester: NSIRequester

    func add(to routes: inout Routes) {
        routes.add(NSIRequester.path, (.post, { request, _ in
            let message = try NSIMessage.parse(try await request.bytes(atMost: Limits.nsiMessageBytes))
            await requester.replies.take(message)
            let answer = NSIMessage(
                correlationID: message.correlationID, requester: message.requester, provider: message.provider,
                body: Element("acknowledgment", in: NSI.types, []))
            return .xml(answer.envelope(for: NSI.requesterProtocol))
        }))
    }
}

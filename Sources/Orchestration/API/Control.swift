// The API as its users ask it: orchestrators in turn, until one answers.

internal import Foundation
internal import NIOHTTP1
public import Protection
public import TurntableCore

/// A JSON value as it came.
public enum Value: Codable, Sendable, Equatable {
    case none
    case bool(Bool)
    case number(Double)
    case string(String)
    case list([Value])
    case object([String: Value])

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .none
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([Value].self) {
            self = .list(value)
        } else {
            self = .object(try container.decode([String: Value].self))
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .none: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .list(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }

    /// A member; none if there is no such thing.
    public subscript(name: String) -> Value {
        if case .object(let members) = self { return members[name] ?? .none }
        return .none
    }
    public subscript(path: [String]) -> Value { path.reduce(self) { $0[$1] } }

    public var list: [Value] { if case .list(let items) = self { items } else { [] } }
    public var string: String? { if case .string(let text) = self { text } else { nil } }
    public var number: Double? { if case .number(let number) = self { number } else { nil } }

    /// As people read it: a value by itself, anything larger as JSON.
    public var text: String {
        switch self {
        case .none: "-"
        case .bool(let value): value ? "yes" : "no"
        case .number(let value): value == value.rounded() && abs(value) < 1e15 ? String(Int(value)) : String(value)
        case .string(let value): value
        case .list, .object: (try? JSON.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? ""
        }
    }
}

public struct Control: Sendable {
    private let orchestrators: [String]
    private let client: Client

    public init(orchestrators: [String], identity: HostIdentity) throws(TurntableError) {
        self.orchestrators = orchestrators
        client = try Client(identity: identity)
    }

    public func shutDown() async { await client.shutDown() }

    public func get(_ path: String) async throws(TurntableError) -> Value { try await ask(.GET, path, nil) }
    public func put(_ path: String, _ body: [String: Value]) async throws(TurntableError) -> Value { try await ask(.PUT, path, body) }
    public func delete(_ path: String) async throws(TurntableError) { _ = try await ask(.DELETE, path, nil) }
    /// What is asked for has a name of its own, so that asking again does no harm.
    public func post(_ path: String, _ body: [String: Value]?) async throws(TurntableError) -> Value { try await ask(.POST, path, body) }

    private func ask(_ method: HTTPMethod, _ path: String, _ body: [String: Value]?) async throws(TurntableError) -> Value {
        var failure = TurntableError(.usage, "asking an orchestrator", "none is named", remedy: "--orchestrator https://host:port")
        for orchestrator in orchestrators {
            do throws(TurntableError) {
                let answer = try await client.ask(method, orchestrator + path, body)
                return answer.body.isEmpty ? .none : try answer.decoded(Value.self, "the answer of \(orchestrator)")
            } catch {
                failure = error
                guard error.kind == .line else { throw error }
            }
        }
        throw failure
    }

    /// Gives each change of a migration to `body`, until it is over; gives its end. An orchestrator that dies is followed by another.
    public func follow(_ id: String, _ body: (Value) -> Void) async throws(TurntableError) -> Value {
        let end = Clock.deadline(Limits.followPatience)
        var lastAnswer = end
        while true {
            let now = try await get("/v1/migrations/\(id)", until: lastAnswer)
            lastAnswer = Clock.deadline(Limits.followPatience)
            body(now)
            if isOver(now) { return now }
            for orchestrator in orchestrators {
                var last: Value?
                try? await client.lines("\(orchestrator)/v1/migrations/\(id)/events", headers: ["accept": "text/event-stream"]) { line in
                    guard line.starts(with: Data("data: ".utf8)) else { return true }
                    let value = try JSON.decode(Value.self, Data(line.dropFirst(6)), "an event")
                    body(value)
                    last = value
                    return !isOver(value)
                }
                if let last, isOver(last) { return last }
            }
        }
    }

    /// Asks again while nobody answers.
    private func get(_ path: String, until deadline: ContinuousClock.Instant) async throws(TurntableError) -> Value {
        while true {
            do throws(TurntableError) { return try await get(path) } catch {
                guard error.kind == .line, ContinuousClock.now < deadline else { throw error }
                try? await Task.sleep(for: .milliseconds(300))
            }
        }
    }

    private func isOver(_ migration: Value) -> Bool { migration["state"].string.flatMap { MigrationState(rawValue: $0) }?.isOver ?? false }
}

private enum Clock {
    static func deadline(_ time: Nanoseconds) -> ContinuousClock.Instant { .now + .nanoseconds(time.value) }
}

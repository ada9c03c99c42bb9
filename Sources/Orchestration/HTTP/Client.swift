internal import AsyncHTTPClient
internal import Foundation
internal import NIOCore
internal import NIOHTTP1
internal import Protection
internal import TurntableCore

/// Asks servers like ours: JSON, problems, TLS as this host.
struct Client: Sendable {
    let http: HTTPClient

    /// - Parameter limit: for making a connection, with its handshake.
    init(identity: HostIdentity?, connectingWithin limit: Nanoseconds = .seconds(3)) throws(TurntableError) {
        var configuration = HTTPClient.Configuration()
        if let identity { configuration.tlsConfiguration = try identity.clientConfiguration() }
        configuration.timeout.connect = .nanoseconds(limit.value)
        configuration.redirectConfiguration = .disallow
        // Who cannot be reached is asked again by whoever asks, if at all.
        configuration.connectionPool.retryConnectionEstablishment = false
        http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    func shutDown() async { try? await http.shutdown() }

    struct Answer: Sendable {
        var status: Int
        var headers: HTTPHeaders
        var body: Data

        func decoded<Value: Decodable>(_ type: Value.Type, _ what: String) throws(TurntableError) -> Value { try JSON.decode(type, body, what) }
    }

    /// - Throws: a problem that the server gave as its error, or that nobody answered.
    func ask(
        _ method: HTTPMethod, _ url: String, _ body: (any Encodable)? = nil, headers: [String: String] = [:],
        within limit: Nanoseconds = Limits.agentTime, atMost most: Int = Limits.listEntries * Limits.storedBytes
    ) async throws(TurntableError) -> Answer {
        let what = "\(method.rawValue) \(url)"
        let content = try body.map { body throws(TurntableError) in (type: "application/json", data: try JSON.encode(body)) }
        let answer = try await exchange(method, url, content, headers: headers, within: limit, atMost: most)
        guard answer.status < 400 else {
            guard let problem = try? JSON.decode(Problem.self, answer.body, what) else {
                throw TurntableError(answer.status >= 500 ? .line : .protocol, what, "HTTP \(answer.status)")
            }
            throw problem.error(what)
        }
        return answer
    }

    /// Whatever is answered, also an error.
    func exchange(
        _ method: HTTPMethod, _ url: String, _ content: (type: String, data: Data)?, headers: [String: String] = [:],
        within limit: Nanoseconds = Limits.agentTime, atMost most: Int = Limits.listEntries * Limits.storedBytes
    ) async throws(TurntableError) -> Answer {
        var request = HTTPClientRequest(url: url)
        request.method = method
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        if let content {
            request.headers.add(name: "content-type", value: content.type)
            request.body = .bytes(ByteBuffer(bytes: content.data))
        }
        do {
            let response = try await http.execute(request, timeout: .nanoseconds(limit.value))
            let bytes = try await response.body.collect(upTo: most)
            return Answer(status: Int(response.status.code), headers: response.headers, body: Data(bytes.readableBytesView))
        } catch {
            throw TurntableError(
                .line, "\(method.rawValue) \(url)", "\(error)", remedy: "check that it runs there, and whom its certificate is for")
        }
    }

    /// The lines of an answer without end.
    func lines(_ url: String, headers: [String: String], each: (Data) throws -> Bool) async throws {
        var request = HTTPClientRequest(url: url)
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        let response = try await http.execute(request, timeout: .hours(24))
        var splitter = LineSplitter(most: Limits.storedBytes)
        guard response.status == .ok else {
            let bytes = try await response.body.collect(upTo: Limits.storedBytes)
            let problem = try JSON.decode(Problem.self, Data(bytes.readableBytesView), url)
            throw problem.error(url)
        }
        for try await piece in response.body {
            for line in try splitter.take(piece) where try !each(line) { return }
        }
    }
}

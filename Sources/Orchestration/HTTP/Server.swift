// The HTTP side of the orchestrator and of a site's agent: TLS with the client's certificate or a Web client's token, whose name every request has;
// errors as problems; and a 405 with what is allowed where a path exists and the method does not.

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import HummingbirdTLS
internal import Logging
internal import NIOCore
internal import NIOSSL
internal import Protection
internal import SwiftASN1
internal import TurntableCore
internal import TurntableLinux
internal import X509

struct Context: RequestContext {
    var coreContext: CoreRequestContextStorage
    private let channel: any Channel
    /// The client's name, in its certificate or token.
    var peer = ""

    init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }

    func certificateName() async throws -> String {
        guard let certificate = try await channel.nioSSL_peerCertificate().get() else {
            throw Problem(.unauthorized, "unauthorized", "who you are", "no certificate was shown", remedy: "show one of an authority that is trusted here")
        }
        return CertificateNames(try Certificate(derEncoded: certificate.toDERBytes())).description
    }

    /// A path parameter that is a name of ours.
    func name(_ parameter: String) throws -> String {
        let name = try parameters.require(parameter)
        do { try MachineName.check(name) } catch { throw Problem.notFound("\(parameter) \(name.prefix(80))") }
        return name
    }
}

typealias Handler = @Sendable (Request, Context) async throws -> Response

/// Paths and what may be done there.
struct Routes: Sendable {
    private var table: [(path: String, handlers: [(method: HTTPRequest.Method, handler: Handler)])] = []

    mutating func add(_ path: String, _ handlers: (HTTPRequest.Method, Handler)...) {
        table.append((path, handlers.map { (method: $0.0, handler: $0.1) }))
    }

    /// Those of them that satisfy a condition on path and method.
    func filter(_ isKept: (String, HTTPRequest.Method) -> Bool) -> Routes {
        var kept = Routes()
        kept.table = table.compactMap { path, handlers in
            let left = handlers.filter { isKept(path, $0.method) }
            return left.isEmpty ? nil : (path, left)
        }
        return kept
    }

    func router(_ peers: Peers) -> Router<Context> {
        let router = Router(context: Context.self)
        router.add(middleware: ErrorsAsProblems(routes: self))
        router.add(middleware: NamedPeer(peers: peers))
        for (path, handlers) in table {
            for (method, handler) in handlers { router.on(RouterPath(path), method: method, use: handler) }
        }
        return router
    }

    /// The methods of a path; nil if there is no such path.
    func allowed(_ path: String) -> String? {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        let found = table.first { entry in
            let pattern = entry.path.split(separator: "/", omittingEmptySubsequences: false)
            return pattern.count == parts.count && zip(pattern, parts).allSatisfy { $0.hasPrefix(":") ? !$1.isEmpty : $0 == $1 }
        }
        return found.map { $0.handlers.map(\.method.rawValue).joined(separator: ", ") }
    }
}

/// What clients are known by.
enum Peers: Sendable {
    case certificates
    case tokens(WebGate)
}

private struct NamedPeer: RouterMiddleware {
    let peers: Peers

    func handle(_ request: Request, context: Context, next: (Request, Context) async throws -> Response) async throws -> Response {
        var context = context
        context.peer =
            switch peers {
            case .certificates: try await context.certificateName()
            case .tokens(let gate): try await gate.admit(request)
            }
        return try await next(request, context)
    }
}

private struct ErrorsAsProblems: RouterMiddleware {
    let routes: Routes

    func handle(_ request: Request, context: Context, next: (Request, Context) async throws -> Response) async throws -> Response {
        do { return try await next(request, context) } catch {
            if let error = error as? HTTPError, error.status == .notFound, let allowed = routes.allowed(request.uri.path) {
                return try Problem(.methodNotAllowed, "method", "\(request.method.rawValue) \(request.uri.path)", "allowed are: \(allowed)")
                    .response(headers: [.allow: allowed])
            }
            let problem = problem(error, request)
            if problem.status >= 500 { context.logger.warning("\(request.method) \(request.uri.path): \(problem.title): \(problem.detail)") }
            return try problem.response(headers: problem.status == Problem.Status.unauthorized.rawValue ? [.wwwAuthenticate: "Bearer"] : [:])
        }
    }

    private func problem(_ error: any Error, _ request: Request) -> Problem {
        let what = "\(request.method.rawValue) \(request.uri.path.prefix(200))"
        switch error {
        case let problem as Problem: return problem
        case let error as TurntableError: return Problem(error)
        case let error as HTTPError:
            let word = error.status == .notFound ? "not-found" : "request"
            return Problem(code: error.status.code, word, what, error.body ?? error.status.reasonPhrase)
        case let error as any HTTPResponseError: return Problem(code: error.status.code, "request", what, error.status.reasonPhrase)
        default: return Problem(.internalServerError, "unexpected", what, "\(error)")
        }
    }
}

extension Request {
    func bytes(atMost most: Int) async throws -> Data {
        var body = ByteBuffer()
        for try await piece in self.body {
            guard body.readableBytes + piece.readableBytes <= most else {
                throw Problem(.contentTooLarge, "too-large", "the body", "it has over \(ByteCount(most))")
            }
            body.writeImmutableBuffer(piece)
        }
        return Data(body.readableBytesView)
    }

    /// The body as JSON of a type.
    func json<Value: Decodable>(_ type: Value.Type) async throws -> Value {
        guard let kind = headers[.contentType], kind.lowercased().hasPrefix("application/json") else {
            throw Problem(
                .unsupportedMediaType, "media-type", "the body", "its type is \(headers[.contentType] ?? "not stated")", remedy: "send application/json")
        }
        let body = try await bytes(atMost: Limits.storedBytes)
        do { return try JSON.decode(type, body, "the body") } catch {
            throw Problem(.badRequest, "body", "the body", error.why)
        }
    }
}

extension Response {
    static func xml(_ data: Data, status: HTTPResponse.Status = .ok) -> Response {
        Response(status: status, headers: [.contentType: "text/xml; charset=utf-8"], body: .init(byteBuffer: ByteBuffer(bytes: data)))
    }

    static func json(_ value: any Encodable, status: HTTPResponse.Status = .ok, headers more: HTTPFields = [:]) throws -> Response {
        var headers = more
        headers[.contentType] = "application/json"
        return Response(status: status, headers: headers, body: .init(byteBuffer: ByteBuffer(bytes: try JSON.encode(value))))
    }
}

/// Serves until the task is cancelled or the process is asked to end.
struct Server: Sendable {
    let address: Address
    let identity: HostIdentity
    var peers = Peers.certificates
    let log: Logger

    /// - Parameter running: called with the port, once requests are taken.
    func run(_ routes: Routes, running: @escaping @Sendable (UInt16) async -> Void) async throws {
        let application = Application(
            router: routes.router(peers), server: try .tls(.http1(), tlsConfiguration: identity.serverConfiguration(for: peers)),
            configuration: .init(address: .hostname(address.host, port: Int(address.port)), serverName: "turntable"),
            onServerRunning: { channel in await running(UInt16(channel.localAddress?.port ?? 0)) }, logger: log)
        do { try await application.run() } catch let error as IOError {
            throw TurntableError(.usage, "listening on \(address)", errorText(error.errnoCode), remedy: "choose another with --listen")
        }
    }
}

internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import TurntableCore

/// What goes back when something cannot be done: RFC 9457, application/problem+json.
struct Problem: Error, Codable, Sendable, Equatable {
    /// urn:turntable:problem: and one word, for programs.
    var type: String
    var title: String
    var status: Int
    /// Why: the value met and the limit.
    var detail: String
    /// One thing to do about it.
    var remedy: String?

    enum Status: Int, Sendable {
        case badRequest = 400
        case unauthorized = 401
        case forbidden = 403
        case notFound = 404
        case methodNotAllowed = 405
        case conflict = 409
        case preconditionFailed = 412
        case contentTooLarge = 413
        case unsupportedMediaType = 415
        case internalServerError = 500
        case notImplemented = 501
        case badGateway = 502
        case serviceUnavailable = 503
    }

    static let prefix = "urn:turntable:problem:"

    init(_ status: Status, _ word: String, _ title: String, _ detail: String, remedy: String = "") {
        self.init(code: status.rawValue, word, title, detail, remedy: remedy)
    }

    init(code: Int, _ word: String, _ title: String, _ detail: String, remedy: String = "") {
        type = Self.prefix + word
        self.title = title
        status = code
        self.detail = detail
        self.remedy = remedy.isEmpty ? nil : remedy
    }

    init(_ error: TurntableError) {
        let status: Status =
            switch error.kind {
            case .usage: .badRequest
            case .refused, .cancelled, .relinquished: .conflict
            case .line: .serviceUnavailable
            case .protocol: .badGateway
            case .unsupported: .notImplemented
            case .hypervisor, .damaged: .internalServerError
            }
        self.init(status, error.kind.rawValue, error.what, error.why, remedy: error.remedy)
    }

    /// As an error of this program again; `what` was asked.
    func error(_ what: String) -> TurntableError {
        let word = type.hasPrefix(Self.prefix) ? String(type.dropFirst(Self.prefix.count)) : ""
        let kind = TurntableError.Kind(rawValue: word) ?? (status >= 500 ? .line : status == 400 || status == 404 ? .usage : .refused)
        return TurntableError(kind, title.isEmpty ? what : title, detail, remedy: remedy ?? "")
    }

    static func notFound(_ what: String) -> Problem { Problem(.notFound, "not-found", what, "there is none of that name") }
}

extension Problem: ResponseGenerator {
    func response(from request: Request, context: some RequestContext) throws -> Response {
        try response(headers: [:])
    }

    func response(headers more: HTTPFields) throws -> Response {
        var headers = more
        headers[.contentType] = "application/problem+json"
        return Response(status: .init(code: status), headers: headers, body: .init(byteBuffer: .init(bytes: try JSON.encode(self))))
    }
}

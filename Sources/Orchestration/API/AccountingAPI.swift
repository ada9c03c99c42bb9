internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import TurntableCore

/// What migrations used, in the order in which they ended.
struct AccountingAPI: Sendable {
    let api: OrchestratorAPI

    /// Those of a time, or of one who asked: a page of the latter may have fewer than it could.
    @Sendable func list(_ request: Request, _ context: Context) async throws -> Response {
        let parameters = request.uri.queryParameters
        func time(_ name: String) throws(Problem) -> String? {
            guard let text = parameters[name[...]].map(String.init) else { return nil }
            guard let time = Date(exactly: text) else { throw Problem(.badRequest, "query", name, "it is no time such as 2026-01-31T22:00:00Z") }
            return AccountRecord.mark(time)
        }
        let since = try time("since")
        let until = try time("until")
        let by = parameters["by"].map { $0.lowercased() }
        if let by, (try? MachineName.check(by)) == nil { throw Problem(.badRequest, "query", "by", "it is no name of a host") }
        let (entries, after) = try await api.page(request, Key.accounting, after: since, filters: ["since", "until", "by"])
        let inTime = entries.prefix { entry in until.map { entry.name < $0 } ?? true }
        let items = try inTime.map { try $0.stored(AccountRecord.self).record }.filter { by == nil || $0.requestedBy == by }
        let query = [("since", parameters["since"]), ("until", parameters["until"]), ("by", parameters["by"])]
            .compactMap { name, value in value.map { "&\(name)=\($0)" } }.joined()
        return try .json(Page(items: items, next: inTime.count < entries.count ? nil : after.map { "/v1/accounting?after=\($0)\(query)" }))
    }
}

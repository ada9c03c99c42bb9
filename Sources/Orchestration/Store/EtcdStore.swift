// The store of several orchestrators: etcd 3, through its JSON gateway (etcd.io/docs/v3.4/dev-guide/api_grpc_gateway).
//
// Keys lie under /turntable/<domain>/. The gateway wants keys and values in base64, gives 64-bit numbers as text, and leaves out
// what is false, zero or empty. A watch is one answer without end, an object a line.
//
// Members are tried in turn. A transaction is not: if its answer is lost, it may have been made (Store.swift).

internal import AsyncHTTPClient
internal import Foundation
internal import NIOCore
internal import NIOHTTP1
internal import Synchronization
internal import TurntableCore

final class EtcdStore: Store {
    private let members: [String]
    private let prefix: String
    private let client: HTTPClient
    /// The member that answered last.
    private let current = Mutex(0)

    /// - Parameter members: base addresses, such as http://10.5.0.1:2379.
    init(members: [String], domain: String, client: HTTPClient) {
        self.members = members
        self.client = client
        prefix = "/turntable/\(domain)/"
    }

    // MARK: - Messages

    private struct KeyValue: Decodable {
        var key: String?
        var value: String?
        var mod_revision: String?
    }
    private struct RangeRequest: Encodable {
        var key: String
        var range_end: String?
        var limit: Int
        var sort_order = "ASCEND"
    }
    private struct RangeAnswer: Decodable { var kvs: [KeyValue]? }
    private struct Header: Decodable { var revision: String? }
    private struct Compare: Encodable {
        var key: String
        var target = "MOD"
        var result = "EQUAL"
        var mod_revision: String
    }
    private struct Put: Encodable {
        var key: String
        var value: String
        var lease: String?
    }
    private struct Delete: Encodable { var key: String }
    private struct Operation: Encodable {
        var request_put: Put?
        var request_delete_range: Delete?
    }
    private struct TransactionRequest: Encodable {
        var compare: [Compare]
        var success: [Operation]
    }
    private struct TransactionAnswer: Decodable {
        var header: Header?
        var succeeded: Bool?
    }
    private struct LeaseRequest: Encodable {
        var ID: String?
        var TTL: String?
    }
    private struct LeaseAnswer: Decodable {
        var ID: String?
        var TTL: String?
        var result: Renewed?
        struct Renewed: Decodable { var TTL: String? }
    }
    private struct WatchRequest: Encodable {
        var create_request: RangeToWatch
        struct RangeToWatch: Encodable {
            var key: String
            var range_end: String
        }
    }
    private struct WatchAnswer: Decodable {
        var result: Result?
        var error: Failure?
        struct Result: Decodable {
            var created: Bool?
            var canceled: Bool?
            var events: [Event]?
        }
        struct Event: Decodable {
            var type: String?
            var kv: KeyValue?
        }
        struct Failure: Decodable { var message: String? }
    }
    private struct Failure: Decodable {
        var error: String?
        var message: String?
    }

    private func coded(_ key: String) -> String { Data((prefix + key).utf8).base64EncodedString() }

    private func entry(_ found: KeyValue) -> Entry? {
        guard let key = found.key.flatMap({ Data(base64Encoded: $0) }), let revision = found.mod_revision.flatMap({ Revision($0) }) else { return nil }
        let whole = String(decoding: key, as: UTF8.self)
        guard whole.hasPrefix(prefix) else { return nil }
        return Entry(key: String(whole.dropFirst(prefix.count)), value: found.value.flatMap { Data(base64Encoded: $0) } ?? Data(), revision: revision)
    }

    // MARK: - Store

    func read(_ key: String) async throws(TurntableError) -> Entry? {
        let answer: RangeAnswer = try await ask("kv/range", RangeRequest(key: coded(key), limit: 1), mayRepeat: true)
        return answer.kvs?.first.flatMap { entry($0) }
    }

    func list(_ prefix: String, after: String?, atMost: Int) async throws(TurntableError) -> [Entry] {
        // The first key after another is that one with a zero byte behind it.
        let request = RangeRequest(
            key: coded(after.map { $0 + "\0" } ?? prefix), range_end: coded(end(ofPrefix: prefix)), limit: min(atMost, Limits.listEntries))
        let answer: RangeAnswer = try await ask("kv/range", request, mayRepeat: true)
        return (answer.kvs ?? []).compactMap { entry($0) }
    }

    func commit(_ conditions: [Condition], _ writes: [Write]) async throws(TurntableError) -> Revision? {
        let request = TransactionRequest(
            compare: conditions.map { Compare(key: coded($0.key), mod_revision: String($0.revision)) },
            success: writes.map { write in
                switch write {
                case .put(let key, let value, let lease):
                    Operation(request_put: Put(key: coded(key), value: value.base64EncodedString(), lease: lease.map { String($0.identifier) }))
                case .delete(let key): Operation(request_delete_range: Delete(key: coded(key)))
                }
            })
        let answer: TransactionAnswer
        do throws(TurntableError) { answer = try await ask("kv/txn", request, mayRepeat: false) } catch {
            if error.why.contains("lease not found") { return nil }
            throw error
        }
        guard answer.succeeded == true else { return nil }
        return answer.header?.revision.flatMap { Revision($0) }
    }

    func grantLease(_ time: Nanoseconds) async throws(TurntableError) -> Lease {
        let answer: LeaseAnswer = try await ask("lease/grant", LeaseRequest(TTL: String(max(1, Int(time.seconds.rounded(.up))))), mayRepeat: true)
        guard let identifier = answer.ID.flatMap({ Int64($0) }) else {
            throw TurntableError(.protocol, "asking etcd for a lease", "its answer names none")
        }
        return Lease(identifier: identifier)
    }

    func renew(_ lease: Lease) async throws(TurntableError) -> Bool {
        let answer: LeaseAnswer = try await ask("lease/keepalive", LeaseRequest(ID: String(lease.identifier)), mayRepeat: true)
        return answer.result?.TTL.flatMap { Int($0) } ?? 0 > 0
    }

    func revoke(_ lease: Lease) async throws(TurntableError) {
        do throws(TurntableError) {
            let _: LeaseAnswer = try await ask("lease/revoke", LeaseRequest(ID: String(lease.identifier)), mayRepeat: true)
        } catch {
            // It has ended already.
            if !error.why.contains("lease not found") { throw error }
        }
    }

    func watch(_ prefix: String) async throws(TurntableError) -> Changes {
        let (stream, continuation) = Changes.makeStream(bufferingPolicy: .bufferingOldest(Limits.watchedChanges))
        let (created, confirm) = AsyncStream<TurntableError?>.makeStream()
        let task = Task {
            do {
                try await follow(prefix, continuation) { confirm.yield(nil) }
                continuation.finish(throwing: TurntableError(.line, "watching \(prefix) in etcd", "the watch ended", remedy: "it is begun again"))
            } catch {
                confirm.yield(error as? TurntableError ?? TurntableError(.line, "watching \(prefix) in etcd", "\(error)"))
                continuation.finish(throwing: error)
            }
        }
        continuation.onTermination = { _ in task.cancel() }
        var answers = created.makeAsyncIterator()
        if let failure = await answers.next() ?? TurntableError(.line, "watching \(prefix) in etcd", "the watch ended") { throw failure }
        return stream
    }

    private func follow(_ prefix: String, _ stream: Changes.Continuation, created: () -> Void) async throws {
        let range = WatchRequest.RangeToWatch(key: coded(prefix), range_end: coded(end(ofPrefix: prefix)))
        var request = HTTPClientRequest(url: members[current.withLock { $0 }] + "/v3/watch")
        request.method = .POST
        request.body = .bytes(ByteBuffer(bytes: try JSON.encode(WatchRequest(create_request: range))))
        // Its deadline is for the whole answer: a watch is begun anew once a day.
        let response = try await client.execute(request, timeout: .hours(24))
        var lines = LineSplitter(most: Limits.storedBytes * 4)
        for try await piece in response.body {
            for line in try lines.take(piece) {
                let answer = try JSON.decode(WatchAnswer.self, line, "a watch of etcd")
                if let failure = answer.error { throw TurntableError(.line, "watching etcd", failure.message ?? "it gave an error") }
                guard answer.result?.canceled != true else { return }
                if answer.result?.created == true { created() }
                for event in answer.result?.events ?? [] {
                    guard let entry = event.kv.flatMap({ entry($0) }) else { continue }
                    stream.yield(Change(key: entry.key, value: event.type == "DELETE" ? nil : entry.value, revision: entry.revision))
                }
            }
        }
    }

    // MARK: - Asking

    /// - Parameter mayRepeat: asked twice it does no harm.
    private func ask<Answer: Decodable>(_ path: String, _ body: any Encodable, mayRepeat: Bool) async throws(TurntableError) -> Answer {
        let bytes = try JSON.encode(body)
        let first = current.withLock { $0 }
        var failure = TurntableError(.usage, "asking etcd", "no member is named", remedy: "--store etcd://host:2379")
        for attempt in 0..<members.count {
            let index = (first + attempt) % members.count
            do throws(TurntableError) {
                let answer: Answer = try await ask(members[index], path, bytes)
                current.withLock { $0 = index }
                return answer
            } catch {
                failure = error
                // Another member may do better, also for whoever asks next.
                guard error.kind == .line else { throw error }
                current.withLock { $0 = (index + 1) % members.count }
                if !mayRepeat { throw error }
            }
        }
        throw failure
    }

    private func ask<Answer: Decodable>(_ member: String, _ path: String, _ body: Data) async throws(TurntableError) -> Answer {
        let what = "asking etcd at \(member) (\(path))"
        var request = HTTPClientRequest(url: "\(member)/v3/\(path)")
        request.method = .POST
        request.body = .bytes(ByteBuffer(bytes: body))
        let status: UInt
        let bytes: ByteBuffer
        do {
            let response = try await client.execute(request, timeout: .nanoseconds(Limits.storeTime.value))
            status = response.status.code
            bytes = try await response.body.collect(upTo: Limits.listEntries * Limits.storedBytes)
        } catch {
            throw TurntableError(.line, what, "\(error)", remedy: "check that etcd runs there, and that most of its members do")
        }
        let data = Data(bytes.readableBytesView)
        guard status == 200 else {
            let failure = try? JSON.decode(Failure.self, data, what)
            let why = failure?.message ?? failure?.error ?? "HTTP \(status)"
            // Without a leader, or too slow: to be asked again.
            throw TurntableError(status >= 500 ? .line : .protocol, what, why)
        }
        return try JSON.decode(Answer.self, data, what)
    }
}

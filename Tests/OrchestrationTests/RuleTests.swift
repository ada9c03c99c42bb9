internal import Foundation
internal import Logging
internal import NIOCore
internal import Synchronization
internal import Testing
internal import TurntableCore
@testable internal import Orchestration

/// Rules that need no machine: who is master, what is admitted, what a program's output says.
struct RuleTests {
    private func store() throws -> (any Store, String) {
        let path = FileManager.default.temporaryDirectory.appending(path: "turntable-rules-\(UUID().uuidString).sqlite").path
        return (try SQLiteStore(path: path), path)
    }

    private func remove(_ path: String) { for more in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: path + more) } }

    /// Of several candidates one works at a time, under terms that grow; when one ends, another begins.
    @Test func oneMasterAtATime() async throws {
        let (store, path) = try store()
        defer { remove(path) }
        struct State { var working = 0, most = 0, terms: [Revision] = [] }
        let state = Mutex(State())
        let work: @Sendable (Term) async -> Void = { term in
            state.withLock { state in
                state.working += 1
                state.most = max(state.most, state.working)
                state.terms.append(term.number)
            }
            try? await Task.sleep(for: .milliseconds(20))
            state.withLock { $0.working -= 1 }
        }
        await withTaskGroup(of: Void.self) { group in
            for name in ["a", "b", "c"] {
                group.addTask { await Mastership(store: store, name: name, log: Logger(label: "test")).run(work) }
            }
            while state.withLock({ $0.terms.count }) < 6 { try? await Task.sleep(for: .milliseconds(5)) }
            group.cancelAll()
        }
        state.withLock { state in
            #expect(state.most == 1)
            #expect(zip(state.terms, state.terms.dropFirst()).allSatisfy { $0 < $1 })
        }
    }

    /// A master whose lease is over writes nothing, though it does not know.
    @Test func aDeposedMasterWritesNothing() async throws {
        let (store, path) = try store()
        defer { remove(path) }
        let lease = try await store.grantLease(.seconds(3600))
        let first = Term(number: try #require(try await store.commit([.absent(Term.key)], [.put(Term.key, Data("a".utf8), lease)])))
        #expect(try await store.commit([first.condition], [.put("x", Data("1".utf8))]) != nil)
        try await store.revoke(lease)
        let next = try await store.grantLease(.seconds(3600))
        let second = Term(number: try #require(try await store.commit([.absent(Term.key)], [.put(Term.key, Data("a".utf8), next)])))
        #expect(try await store.commit([first.condition], [.put("x", Data("2".utf8))]) == nil)
        #expect(try await store.commit([second.condition], [.put("x", Data("3".utf8))]) != nil)
    }

    @Test(arguments: [
        (MigrationRequest(vm: "", target: "b"), "vm"), (MigrationRequest(vm: "a", target: "../b"), "target"),
        (MigrationRequest(id: "1", vm: "a", target: "b"), "id"), (MigrationRequest(id: UUID().uuidString, vm: "a", target: "b"), "id"),
        (MigrationRequest(vm: "a", target: "b", downtimeMilliseconds: 0.5), "downtimeMilliseconds"),
        (MigrationRequest(vm: "a", target: "b", downtimeMilliseconds: .nan), "downtimeMilliseconds"),
        (MigrationRequest(vm: "a", target: "b", bitsPerSecond: 1), "bitsPerSecond"),
        (MigrationRequest(vm: "a", target: "b", bitsPerSecond: .infinity), "bitsPerSecond"),
        (MigrationRequest(vm: "a", target: "b", streams: 0), "streams"), (MigrationRequest(vm: "a", target: "b", streams: 17), "streams"),
    ]) func aBadRequestIsNamed(_ request: MigrationRequest, _ member: String) throws {
        let problem = try #require(throws: Problem.self) { try Admission.check(request) }
        #expect(problem.status == 400 && problem.title == member)
    }

    @Test func anEpochThatIsOverMovesNothing() throws {
        let vm = VMRecord(site: "a", epoch: 3, state: "here", memoryBytes: 1, processors: 1)
        try Admission.check(MigrationRequest(vm: "m", target: "b", epoch: 3), vm)
        try Admission.check(MigrationRequest(vm: "m", target: "b"), vm)
        #expect(try #require(throws: Problem.self) { try Admission.check(MigrationRequest(vm: "m", target: "b", epoch: 2), vm) }.status == 412)
        #expect(try #require(throws: Problem.self) { try Admission.check(MigrationRequest(vm: "m", target: "a"), vm) }.status == 409)
        var absent = vm
        absent.state = "absent"
        #expect(throws: Problem.self) { try Admission.check(MigrationRequest(vm: "m", target: "b"), absent) }
    }

    /// Whoever asks for a migration that begins while he is looked at gets that one, and not a word that the machine is being moved.
    @Test func askedTwiceAtOnceItBeginsOnce() async throws {
        let (store, path) = try store()
        defer { remove(path) }
        let authority = Authority(domain: "d", operators: ["o"])
        let vm = VMRecord(site: "a", epoch: 1, state: "here", memoryBytes: 1, processors: 1)
        _ = try await store.commit([], [.put(Key.site("b"), Data()), .put(Key.vm("m"), try JSON.encode(vm))])
        @Sendable func admit(_ request: MigrationRequest, _ store: any Store) async throws -> (record: MigrationRecord, isNew: Bool)? {
            try await Admission.admit(request, by: "o", under: authority, to: store)
        }
        let request = MigrationRequest(id: UUID().uuidString.lowercased(), vm: "m", target: "b", epoch: 1)
        let first = Mutex(MigrationRecord?.none)
        let slow = OvertakenStore(store) {
            let admitted = try? await admit(request, store)
            first.withLock { $0 = admitted?.isNew == true ? admitted?.record : nil }
        }
        let second = try #require(try await admit(request, slow))
        #expect(!second.isNew && second.record.id == request.id && second.record.request == first.withLock { $0 }?.request)
        let other = MigrationRequest(id: UUID().uuidString.lowercased(), vm: "m", target: "b")
        #expect(try await #require(throws: Problem.self) { try await admit(other, store) }.type == Problem.prefix + "busy")
    }

    @Test func stepsAreBegunInOrder() {
        var record = MigrationRecord(
            id: "i", request: MigrationRequest(vm: "m", target: "b"), requestedBy: "x", created: .now, state: .scheduled, step: .hold)
        #expect(!record.began(.hold))
        record.begin(VMRecord(site: "a", epoch: 1, state: "here", memoryBytes: 1, processors: 1))
        record.proceed(to: .reserve, "…")
        #expect(Step.allCases.map { record.began($0) } == [true, true, true, false, false])
        for number in 0..<200 { record.note("\(number)") }
        // The first word and the last ones are kept.
        #expect(record.events.count == Limits.migrationEvents && record.events.last?.text == "199" && record.events[0].text.hasPrefix("it begins"))
    }

    /// Events in pieces, as they are found in a file that is being written.
    @Test func aProgramsOutputIsReadAsItComes() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "turntable-output-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let lines = [
            #"{"event":"listening","address":"127.0.0.1:5"}"#, "no JSON", #"{"event":"phase","phase":"copying"}"#,
            #"{"event":"progress","progress":{"round":2,"pagesLeft":7,"rateBitsPerSecond":1.5,"dirtyBytesPerSecond":3,"predictedBlackoutMilliseconds":4,"secondsLeft":5}}"#,
            #"{"event":"sent","sent":{"bytesOnWire":9000,"blocksSent":2}}"#,
            #"{"event":"failed","kind":"refused","what":"moving m","why":"it is","remedy":"do"}"#,
        ]
        let text = Data((lines.joined(separator: "\n") + "\n").utf8)
        try Data().write(to: URL(filePath: path))
        var output = ProgramOutput(path: path)
        let file = try #require(FileHandle(forWritingAtPath: path))
        for start in stride(from: 0, to: text.count, by: 7) {
            try file.write(contentsOf: text[start..<min(start + 7, text.count)])
            output.read()
        }
        #expect(output.listening == "127.0.0.1:5")
        #expect(output.progress?.phase == "copying" && output.progress?.pagesLeft == 7 && output.progress?.round == 2)
        #expect(output.failure == TurntableError(.refused, "moving m", "it is", remedy: "do"))
        #expect(output.report == nil)
        #expect(output.sent == SentBytes(bytesOnWire: 9000, diskBytes: 8192))
    }

    @Test func aProblemKeepsWhatItIs() throws {
        for kind in [TurntableError.Kind.usage, .refused, .line, .cancelled, .hypervisor, .damaged] {
            let error = TurntableError(kind, "what", "why", remedy: "remedy")
            #expect(Problem(error).error("asking") == error)
        }
        #expect(Problem(.notFound, "not-found", "w", "d").error("asking").kind == .usage)
    }

    @Test func linesAreCutWhereTheyEnd() throws {
        var splitter = LineSplitter(most: 10)
        #expect(try splitter.take(ByteBuffer(string: "a\nb")).map { String(decoding: $0, as: UTF8.self) } == ["a"])
        #expect(try splitter.take(ByteBuffer(string: "c\n\n")).map { String(decoding: $0, as: UTF8.self) } == ["bc", ""])
        #expect(throws: TurntableError.self) { try splitter.take(ByteBuffer(string: "01234567890")) }
    }
}

/// A store in which something else is done right after the first entry was looked for.
private final class OvertakenStore: Store {
    private let store: any Store
    private let overtaking: Mutex<(@Sendable () async -> Void)?>

    init(_ store: any Store, by overtaking: @escaping @Sendable () async -> Void) {
        self.store = store
        self.overtaking = Mutex(overtaking)
    }

    func read(_ key: String) async throws(TurntableError) -> Entry? {
        let entry = try await store.read(key)
        await overtaking.withLock { $0.take() }?()
        return entry
    }

    func list(_ prefix: String, after: String?, atMost most: Int) async throws(TurntableError) -> [Entry] {
        try await store.list(prefix, after: after, atMost: most)
    }
    func commit(_ conditions: [Condition], _ writes: [Write]) async throws(TurntableError) -> Revision? { try await store.commit(conditions, writes) }
    func grantLease(_ time: Nanoseconds) async throws(TurntableError) -> Lease { try await store.grantLease(time) }
    func renew(_ lease: Lease) async throws(TurntableError) -> Bool { try await store.renew(lease) }
    func revoke(_ lease: Lease) async throws(TurntableError) { try await store.revoke(lease) }
    func watch(_ prefix: String) async throws(TurntableError) -> Changes { try await store.watch(prefix) }
}

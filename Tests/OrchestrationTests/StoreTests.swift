internal import AsyncHTTPClient
internal import Foundation
internal import NIOCore
internal import NIOHTTP1
internal import Testing
internal import TurntableCore
internal import TurntableLinux
@testable internal import Orchestration

/// What both stores promise, in Store.swift's words.
@Suite(.serialized) struct StoreTests {
    enum Kind: String, CaseIterable, Sendable { case sqlite, etcd }

    /// A store of its own for each test.
    private func with(_ kind: Kind, _ body: (any Store) async throws -> Void) async throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "turntable-store-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        switch kind {
        case .sqlite: try await body(SQLiteStore(path: "\(directory)/store.sqlite"))
        case .etcd:
            let etcd = try await RealEtcd.start()
            try await body(EtcdStore(members: [etcd], domain: UUID().uuidString, client: HTTPClient.shared))
        }
    }

    static let kinds = RealEtcd.isInstalled ? Kind.allCases : [.sqlite]

    @Test(.enabled(if: RealEtcd.isInstalled, "there is no etcd: install etcd-server")) func etcdIsTested() { #expect(Self.kinds.contains(.etcd)) }

    private func bytes(_ text: String) -> Data { Data(text.utf8) }

    @Test(arguments: kinds) func aTransactionIsMadeWholeOrNotAtAll(_ kind: Kind) async throws {
        try await with(kind) { store in
            let first = try #require(try await store.commit([.absent("a")], [.put("a", bytes("1")), .put("b", bytes("1"))]))
            #expect(try await store.read("a") == Entry(key: "a", value: bytes("1"), revision: first))
            #expect(try await store.read("b")?.revision == first)
            // One of the conditions does not hold: nothing is written, nothing is deleted.
            #expect(try await store.commit([.unchanged("a", first), .absent("b")], [.put("a", bytes("2")), .delete("b"), .put("c", Data())]) == nil)
            #expect(try await store.read("a")?.value == bytes("1"))
            #expect(try await store.read("c") == nil)
            let second = try #require(try await store.commit([.unchanged("a", first)], [.put("a", bytes("2")), .delete("b")]))
            #expect(second > first)
            #expect(try await store.commit([.unchanged("a", first)], [.put("a", bytes("3"))]) == nil)
            #expect(try await store.read("b") == nil)
            // What was deleted is absent, and a deletion of nothing is none.
            #expect(try await store.commit([.absent("b")], [.delete("nothing")]) != nil)
        }
    }

    @Test(arguments: kinds) func ofManyWritersOneIsFirst(_ kind: Kind) async throws {
        try await with(kind) { store in
            _ = try await store.commit([], [.put("count", bytes("0"))])
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        var done = 0
                        while done < 10 {
                            let entry = try #require(try await store.read("count"))
                            let next = (Int(String(decoding: entry.value, as: UTF8.self)) ?? 0) + 1
                            if try await store.commit([.unchanged("count", entry.revision)], [.put("count", Data("\(next)".utf8))]) != nil { done += 1 }
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await store.read("count")?.value == bytes("80"))
        }
    }

    @Test(arguments: kinds) func listsAreInOrderAndInPages(_ kind: Kind) async throws {
        try await with(kind) { store in
            for name in ["x/b", "x/a", "x/c", "x", "y/a", "x0"] { _ = try await store.commit([], [.put(name, bytes(name))]) }
            #expect(try await store.list("x/").map(\.key) == ["x/a", "x/b", "x/c"])
            #expect(try await store.list("x/", after: nil, atMost: 2).map(\.key) == ["x/a", "x/b"])
            #expect(try await store.list("x/", after: "x/b", atMost: 2).map(\.key) == ["x/c"])
            #expect(try await store.list("z/") == [])
            let many = (0..<Limits.listEntries + 5).map { "m/\(String(format: "%06d", $0))" }
            for start in stride(from: 0, to: many.count, by: 100) {
                _ = try await store.commit([], many[start..<min(start + 100, many.count)].map { .put($0, Data()) })
            }
            #expect(try await store.list("m/").map(\.key) == many)
        }
    }

    @Test(arguments: kinds) func whatALeaseHoldsGoesWithIt(_ kind: Kind) async throws {
        try await with(kind) { store in
            let short = try await store.grantLease(.seconds(2))
            let kept = try await store.grantLease(.seconds(2))
            _ = try await store.commit([], [.put("short", bytes("1"), short), .put("kept", bytes("1"), kept), .put("free", bytes("1"))])
            let begun = ContinuousClock.now
            while try await store.read("short") != nil {
                #expect(try await store.renew(kept))
                try #require(ContinuousClock.now - begun < .seconds(20), "the lease does not end")
                try await Task.sleep(for: .milliseconds(200))
            }
            #expect(ContinuousClock.now - begun > .milliseconds(1500))
            #expect(try await store.renew(short) == false)
            // Under a lease that has ended nothing is written any more.
            #expect(try await store.commit([], [.put("late", bytes("1"), short)]) == nil)
            #expect(try await store.read("kept") != nil)
            try await store.revoke(kept)
            #expect(try await store.read("kept") == nil)
            try await store.revoke(kept)
            #expect(try await store.read("free") != nil)
        }
    }

    @Test(arguments: kinds) func aWatchTellsEveryChangeInOrder(_ kind: Kind) async throws {
        try await with(kind) { store in
            _ = try await store.commit([], [.put("w/old", Data())])
            let changes = try await store.watch("w/")
            let lease = try await store.grantLease(.seconds(2))
            _ = try await store.commit([], [.put("w/a", bytes("1")), .put("v/a", bytes("1"))])
            _ = try await store.commit([], [.put("w/a", bytes("2"))])
            _ = try await store.commit([], [.delete("w/a")])
            _ = try await store.commit([], [.put("w/l", bytes("3"), lease)])
            var seen: [Change] = []
            for try await change in changes {
                seen.append(change)
                if seen.count == 5 { break }
            }
            #expect(seen.map(\.key) == ["w/a", "w/a", "w/a", "w/l", "w/l"])
            #expect(seen.map(\.value) == [bytes("1"), bytes("2"), nil, bytes("3"), nil])
            #expect(zip(seen, seen.dropFirst()).allSatisfy { $0.revision < $1.revision })
        }
    }

    @Test func aFileKeepsWhatWasWrittenButNoLease() async throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "turntable-store-\(UUID().uuidString).sqlite").path
        defer { for more in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: path + more) } }
        var revision: Revision = 0
        do {
            let store = try SQLiteStore(path: path)
            let lease = try await store.grantLease(.seconds(60))
            revision = try #require(try await store.commit([], [.put("a", Data("1".utf8)), .put("leased", Data(), lease)]))
            // It is this process's, also for a second one in it.
            #expect(throws: TurntableError.self) { try SQLiteStore(path: path) }
        }
        let store = try SQLiteStore(path: path)
        #expect(try await store.read("a")?.revision == revision)
        #expect(try await store.read("leased") == nil)
    }
}

/// Debian's etcd, one for all tests of this process, in a directory that goes with it.
enum RealEtcd {
    static let isInstalled = FileManager.default.isExecutableFile(atPath: "/usr/bin/etcd")
    private static let started = Task { () -> String in
        let directory = FileManager.default.temporaryDirectory.appending(path: "turntable-etcd-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let ports = try (freePort(), freePort())
        let client = "http://127.0.0.1:\(ports.0)"
        let peer = "http://127.0.0.1:\(ports.1)"
        // It ends when this process does, however that ends: the shell waits until nobody holds the other end of its standard input.
        let ends = try Socket.pair()
        let theirs = Descriptor(owning: ends.1)
        let script = """
            etcd --data-dir \(directory)/data --listen-client-urls \(client) --advertise-client-urls \(client) --listen-peer-urls \(peer) \
            --initial-advertise-peer-urls \(peer) --initial-cluster default=\(peer) >\(directory)/log 2>&1 &
            cat >/dev/null; kill -9 $!; wait; rm -rf \(directory)
            """
        _ = try ChildProcess(["sh", "-c", script], channel: theirs.rawValue)
        for _ in 0..<200 {
            if let answer = try? await HTTPClient.shared.execute(HTTPClientRequest(url: "\(client)/health"), timeout: .seconds(1)), answer.status == .ok { return client }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw TurntableError(.unsupported, "starting etcd", (try? String(contentsOfFile: "\(directory)/log", encoding: .utf8)) ?? "it says nothing")
    }
    static func start() async throws -> String { try await started.value }

    private static func freePort() throws -> UInt16 {
        let listener = try Socket.listen(on: Address(host: "127.0.0.1", port: 0)) { _ throws(TurntableError) in }
        return Socket.localPort(listener)
    }
}

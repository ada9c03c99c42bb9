// Which of a domain's orchestrators decides: the one whose name stands under `master`, written under its lease.
//
// The revision of that entry is its term. Whatever a master writes is conditional on the entry being unchanged, and whatever it
// asks of a site carries its term, below which the site refuses: so a master that was deposed and does not know it yet changes
// nothing, and nothing is decided twice.

internal import Foundation
internal import Logging
internal import TurntableCore

/// A master's right to decide.
struct Term: Sendable, Hashable {
    static let key = "master"
    var number: Revision
    var condition: Condition { .unchanged(Self.key, number) }
}

struct Mastership: Sendable {
    let store: any Store
    /// How this orchestrator is called.
    let name: String
    let log: Logger

    /// Stands for election again and again, and does `work` while it is elected. Ends when the task is cancelled.
    func run(_ work: @escaping @Sendable (Term) async -> Void) async {
        while !Task.isCancelled {
            do { try await stand(work) } catch {
                if Task.isCancelled { return }
                log.warning("not master: \(error)")
                try? await Task.sleep(for: .seconds(1))
            }
        }
    }

    private func stand(_ work: @escaping @Sendable (Term) async -> Void) async throws {
        // Before the attempt, so that no end of a term is missed.
        let changes = try await store.watch(Term.key)
        let lease = try await store.grantLease(Limits.masterTime)
        guard let revision = try await store.commit([.absent(Term.key)], [.put(Term.key, Data(name.utf8), lease)]) else {
            try await store.revoke(lease)
            try await waitForEnd(changes)
            return
        }
        log.info("master", metadata: ["term": "\(revision)"])
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await work(Term(number: revision)) }
            group.addTask { await keep(lease) }
            await group.next()
            group.cancelAll()
        }
        // On the way out the next one need not wait.
        let store = store
        await Task { try? await store.revoke(lease) }.value
        log.info("no longer master", metadata: ["term": "\(revision)"])
    }

    /// Renews the lease until that fails, or until it may have ended because nobody answered.
    private func keep(_ lease: Lease) async {
        var end = ContinuousClock.now + .nanoseconds(Limits.masterTime.value)
        while !Task.isCancelled {
            do { try await Task.sleep(for: .nanoseconds(Limits.masterTime.value / 4)) } catch { return }
            let asked = ContinuousClock.now
            do {
                guard try await store.renew(lease) else { return }
                end = asked + .nanoseconds(Limits.masterTime.value)
            } catch {
                log.warning("the store does not answer: \(error)")
                if ContinuousClock.now > end { return }
            }
        }
    }

    private func waitForEnd(_ changes: Changes) async throws {
        // It may have ended before the attempt, and between that and the watch nothing is lost: look, then listen.
        guard try await store.read(Term.key) != nil else { return }
        for try await change in changes where change.key == Term.key && change.value == nil { return }
    }
}

// A controller of lightpaths on Linux: one process, which has the book of a network in a store and makes its links so.
//
//   lightpaths/<id>   Reservation   written before anything is set up, and before anybody is answered
//
// Operations are done one after the other, each written before the next. What is set up follows: `run` compares what the book wants
// with what was made, also at the begin and the end of a window, and after a kill with what it finds.

internal import Foundation
internal import Lightpaths
internal import Logging
internal import TurntableCore

actor LightpathController {
    enum Event: Sendable {
        /// Traffic gets its rate from now on, or no longer.
        case dataPlane(Reservation, isActive: Bool)
        /// Nobody committed or kept it.
        case expired(Reservation)
    }

    private var book: LightpathBook
    private let store: any Store
    private let setup: LinkSetup
    private let log: Logger
    /// How long a lightpath is had that nobody commits or keeps.
    private let holdTime: Nanoseconds
    /// What was made last; nil while that is not known.
    private var made: [Reservation]?
    private var operations: Task<Void, Never>?
    private let wake: AsyncStream<Void>.Continuation
    private let woken: AsyncStream<Void>
    nonisolated let events: AsyncStream<Event>
    private let tell: AsyncStream<Event>.Continuation

    init(
        topology: Topology, store: any Store, holdTime: Nanoseconds = Limits.lightpathHoldTime, log: Logger
    ) async throws(TurntableError) {
        var book = LightpathBook(topology: topology)
        for entry in try await store.loadAll("lightpaths/", Reservation.self) {
            var stored = entry
            stored.record = book.restore(entry.record, at: .now)
            if stored != entry { _ = try await store.commit([entry.condition], [stored.write()]) }
        }
        self.book = book
        self.store = store
        self.log = log
        self.holdTime = holdTime
        setup = LinkSetup(topology: topology)
        (woken, wake) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        (events, tell) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(Limits.watchedChanges))
    }

    // MARK: - Operations

    /// Changes the book, and writes what was changed, after all that was asked before.
    private func change(
        _ body: @escaping @Sendable (inout LightpathBook, Set<Int>) throws(TurntableError) -> Reservation
    ) async throws(TurntableError) -> Reservation {
        let before = operations
        let operation = Task { () -> Result<Reservation, TurntableError> in
            await before?.value
            let old = book
            do throws(TurntableError) {
                let changed = try body(&book, Set((made ?? []).map(\.number)))
                try await write([changed], insteadOf: old)
                return .success(changed)
            } catch {
                book = old
                return .failure(error)
            }
        }
        operations = Task { _ = await operation.value }
        let result = await operation.value
        wake.yield()
        return try result.get()
    }

    private func write(_ changed: [Reservation], insteadOf old: LightpathBook) async throws(TurntableError) {
        var writes: [Write] = []
        for reservation in changed where old.reservations[reservation.id] != reservation {
            writes.append(.put("lightpaths/\(reservation.id)", try JSON.encode(reservation)))
        }
        if !writes.isEmpty { _ = try await store.commit([], writes) }
    }

    /// As soon as what is set up is what the book wants, or after a while.
    private func settled() async {
        let deadline = ContinuousClock.now + .nanoseconds(Limits.agentTime.value / 2)
        while !isMade(wanted(.now)), ContinuousClock.now < deadline, !Task.isCancelled { try? await Task.sleep(for: .milliseconds(10)) }
    }

    private func lease() -> Date { .now + holdTime.seconds }

    func reserve(
        _ id: String, _ request: LightpathRequest, owner: String, requester: Reservation.Requester? = nil
    ) async throws(TurntableError) -> Reservation {
        let lease = lease()
        return try await change { book, busy throws(TurntableError) in
            try book.reserve(id, request, owner: owner, requester: requester, lease: lease, at: .now, besides: busy)
        }
    }

    /// - Parameter isLeased: whoever does not keep it in time loses it; else it stays as long as its window.
    func commit(_ id: String, owner: String, isLeased: Bool) async throws(TurntableError) -> Reservation {
        let lease = isLeased ? lease() : .distantFuture
        let committed = try await change { book, _ throws(TurntableError) in try book.commit(id, owner: owner, lease: lease) }
        await settled()
        return committed
    }

    func keep(_ id: String, owner: String) async throws(TurntableError) -> Reservation {
        let lease = lease()
        return try await change { book, _ throws(TurntableError) in try book.keep(id, owner: owner, lease: lease, at: .now) }
    }

    func provision(_ id: String, owner: String, isLeased: Bool) async throws(TurntableError) -> Reservation {
        let lease = isLeased ? lease() : .distantFuture
        let provisioned = try await change { book, _ throws(TurntableError) in try book.provision(id, owner: owner, lease: lease) }
        await settled()
        return provisioned
    }

    func hold(_ id: String, bitsPerSecond: Double?, until: Date?, owner: String) async throws(TurntableError) -> Reservation {
        try await change { book, _ throws(TurntableError) in
            try book.hold(id, bitsPerSecond: bitsPerSecond, until: until, owner: owner, at: .now)
        }
    }

    func abort(_ id: String, owner: String) async throws(TurntableError) -> Reservation {
        try await change { book, _ throws(TurntableError) in try book.abort(id, owner: owner, at: .now) }
    }

    func release(_ id: String, owner: String) async throws(TurntableError) -> Reservation {
        let released = try await change { book, _ throws(TurntableError) in try book.release(id, owner: owner) }
        await settled()
        return released
    }

    func terminate(_ id: String, owner: String) async throws(TurntableError) -> Reservation {
        let ended = try await change { book, _ throws(TurntableError) in try book.terminate(id, owner: owner, at: .now) }
        await settled()
        return ended
    }

    // MARK: - Questions

    func all() -> [Reservation] { book.reservations.values.sorted { $0.id < $1.id } }

    func reservation(_ id: String, of owner: String) throws(TurntableError) -> Reservation { try book.reservation(id, of: owner) }

    func isActive(_ reservation: Reservation) -> Bool { made?.contains { $0.id == reservation.id && $0.setup == reservation.setup } == true }

    func path(_ reservation: Reservation) -> Lightpath { reservation.path(isActive: isActive(reservation), book.topology.addresses) }

    /// What is free for a path over several networks.
    func offer(_ request: Offer.Request) throws(TurntableError) -> Offer { try book.offer(request, at: .now) }

    // MARK: - What is set up

    private func isMade(_ wanted: [Reservation]) -> Bool { made.map { $0.map(\.setup) } == wanted.map(\.setup) }

    private func wanted(_ now: Date) -> [Reservation] { book.reservations.values.filter { $0.isWanted(at: now) }.sorted { $0.id < $1.id } }

    /// Until the task is cancelled.
    func run() async {
        let ticks = Task { [wake] in
            while !Task.isCancelled {
                wake.yield()
                try? await Task.sleep(for: .nanoseconds(Limits.lightpathTickTime.value))
            }
        }
        defer { ticks.cancel() }
        for await _ in woken {
            if Task.isCancelled { return }
            await expire()
            await make()
        }
    }

    /// Makes what the book wants. What an earlier process left is found and made so as well.
    func make() async {
        let wanted = wanted(.now)
        guard !isMade(wanted) else { return }
        let before = made ?? []
        do throws(TurntableError) {
            try await setup.apply(wanted, anew: made == nil)
            made = wanted
        } catch {
            log.warning("\(error)")
            made = nil
            return
        }
        for reservation in wanted where !before.contains(where: { $0.id == reservation.id && $0.setup == reservation.setup }) {
            tell.yield(.dataPlane(reservation, isActive: true))
        }
        for reservation in before where !wanted.contains(where: { $0.id == reservation.id }) {
            tell.yield(.dataPlane(book.reservations[reservation.id] ?? reservation, isActive: false))
        }
    }

    /// Ends what is over, and forgets what ended long ago.
    private func expire() async {
        await operations?.value
        let old = book
        let over = book.expire(at: .now)
        do throws(TurntableError) { try await write(over, insteadOf: old) } catch {
            // It is over whether or not that is written: whoever reads it later finds that too.
            log.warning("\(error)")
        }
        for reservation in over {
            log.notice("lightpath \(reservation.id) of \(reservation.owner) is over")
            tell.yield(.expired(reservation))
        }
        let last = Date.now - Limits.endedMoveTime.seconds
        for reservation in book.reservations.values {
            guard let ended = reservation.ended, ended < last else { continue }
            book.forget(reservation.id)
            _ = try? await store.commit([], [.delete("lightpaths/\(reservation.id)")])
        }
    }
}

// What is held at a site and what is moved from it, for orchestrators. State, one file each, written before it is acted on:
//
//   <directory>/slots/<migration>.json    a slot, and which of its receivers is the last
//   <directory>/moves/<migration>.json    a move, and which of its senders is the last
//   <directory>/output/…                  what those programs print
//   <directory>/terms.json                the highest term of each domain
//
// An agent that is killed leaves its programs at work, and finds them when it is started again.

internal import Capability
internal import Foundation
internal import Logging
internal import TurntableCore

/// What a site has, and how it lets machines in.
struct SiteOptions: Sendable {
    var host: String
    var key: [UInt8]
    /// What demands tokens; without it none is needed.
    var gate: TokenGate?
    var memoryBytes: Int
    var processors: Int
    /// Where disks of machines that come are made; nil: none may.
    var disks: DiskRoom?
    /// Where receivers listen.
    var receiveAddress: String
    /// Further options of `turntable receive`: which paths it allows.
    var receiveOptions: [String]
    var endpoints: SiteEndpoints?
    var directory: String
}

actor SiteAgent {
    let options: SiteOptions
    let programs: TurntablePrograms
    let log: Logger
    private var slots: [String: KeptSlot] = [:]
    private var moves: [String: MoveKeeper] = [:]
    private var terms: [String: Revision] = [:]

    struct KeptSlot: Codable {
        var slot: Slot
        var disks: [HeldDisk]?
        var receivers = 0
        var ended: Date?
        var program: RunningProgram?
        /// The receiver is being started.
        var isStarting = false

        private enum CodingKeys: CodingKey { case slot, disks, receivers, ended }
    }

    init(options: SiteOptions, programs: TurntablePrograms, log: Logger) throws(TurntableError) {
        self.options = options
        self.programs = programs
        self.log = log
        let files = Files(directory: options.directory)
        try files.make()
        terms = try files.read("terms.json", [String: Revision].self) ?? [:]
        for name in files.names(in: "slots") {
            guard var kept = try files.read("slots/\(name).json", KeptSlot.self) else { continue }
            if kept.slot.state == .receiving { kept.program = TurntablePrograms.find(output: files.output(name, "receive", kept.receivers)) }
            slots[name] = kept
        }
        for name in files.names(in: "moves") {
            guard let kept = try files.read("moves/\(name).json", MoveKeeper.Kept.self) else { continue }
            moves[name] = MoveKeeper(name, kept, files, programs, options, log)
        }
        for keeper in moves.values { Task { await keeper.carryOn() } }
    }

    private nonisolated var files: Files { Files(directory: options.directory) }

    // MARK: - Terms

    /// Refuses whoever was master before the one that asked last.
    func heed(_ domain: String, _ number: Revision) throws(TurntableError) {
        let known = terms[domain] ?? 0
        guard number >= known else {
            throw TurntableError(
                .refused, "term \(number) of \(domain)", "term \(known) has asked here since: this is the master no longer",
                remedy: "if the domain's store was made anew, remove terms.json in \(options.directory)")
        }
        if number > known {
            terms[domain] = number
            try files.write(terms, "terms.json")
        }
    }

    // MARK: - Site

    func site() async throws(TurntableError) -> SiteState { state(try await programs.machines()) }

    private func state(_ machines: [SiteMachine]) -> SiteState {
        let alive = machines.filter { $0.state != "dead" }
        let held = slots.values.filter { kept in kept.slot.state != .released && !alive.contains { $0.name == kept.slot.request.machine } }
        let memory = alive.reduce(0) { $0 + $1.memoryBytes } + held.reduce(0) { $0 + $1.slot.request.memoryBytes }
        let processors = alive.reduce(0) { $0 + $1.processors } + held.reduce(0) { $0 + $1.slot.request.processors }
        return SiteState(
            host: options.host, key: Data(options.key), trusts: options.gate?.domains.names, memoryBytes: options.memoryBytes,
            memoryFreeBytes: max(0, options.memoryBytes - memory),
            processors: options.processors, processorsFree: max(0, options.processors - processors), machines: machines,
            slots: slots.filter { $0.value.slot.state != .released }.keys.sorted())
    }

    func disks(_ domain: String) async throws(TurntableError) -> SiteDisks {
        SiteDisks(
            freeBytes: options.disks?.freeBytes, keptBytes: try options.disks?.keptBytes(of: domain) ?? [:], machines: try await programs.disks())
    }

    // MARK: - Tokens

    /// Refuses what no trusted domain has granted.
    /// - Parameter holder: nil where whoever holds the token is seen later, by the receiver.
    private func demand(
        _ token: String?, for id: String, _ what: String, machine: String, from source: String, to target: String, holder: [UInt8]? = nil
    ) throws(TurntableError) {
        guard let gate = options.gate else { return }
        do throws(CapabilityError) {
            guard let token else { throw .missing }
            let use = Claims.Use(machine: machine, source: source, target: target, holder: holder)
            try gate.admit(Capability(text: token), use, as: "migration", id)
        } catch { throw error.error("\(what) \(machine) on \(options.host)") }
    }

    private func demand(_ request: SlotRequest, for id: String, _ what: String) throws(TurntableError) {
        try demand(request.token, for: id, what, machine: request.machine, from: request.sourceHost, to: options.host)
    }

    // MARK: - Slots

    func hold(_ id: String, _ request: SlotRequest, for domain: String) async throws(TurntableError) -> Slot {
        try MachineName.check(request.machine)
        try demand(request, for: id, "holding a slot for")
        if let slot = try extend(id, request) { return slot }
        let machines = try await programs.machines()
        // Another request may have been faster.
        if let slot = try extend(id, request) { return slot }
        let now = state(machines)
        if let other = machines.first(where: { $0.name == request.machine && $0.isHere }) {
            throw TurntableError(.refused, "holding a slot for \(request.machine)", "a machine of that name is \(other.state) on \(options.host)")
        }
        guard request.memoryBytes <= now.memoryFreeBytes, request.processors <= now.processorsFree else {
            throw TurntableError(
                .refused, "holding a slot for \(request.machine) on \(options.host)",
                "it needs \(ByteCount(request.memoryBytes)) and \(request.processors) processors; \(ByteCount(now.memoryFreeBytes)) of "
                    + "\(ByteCount(now.memoryBytes)) and \(now.processorsFree) of \(now.processors) are free",
                remedy: "choose another site, or make room there")
        }
        let slot = Slot(state: .held, request: request, until: .now + Limits.slotTime.seconds, host: options.host)
        let kept = KeptSlot(slot: slot, disks: try places(request, domain))
        try keep(id, kept)
        do { try makeDisks(kept) } catch {
            discardDisks(kept)
            slots[id] = nil
            files.remove(id, "slots")
            throw error
        }
        return slot
    }

    private func places(_ request: SlotRequest, _ domain: String) throws(TurntableError) -> [HeldDisk]? {
        guard let disks = request.disks, !disks.isEmpty else { return nil }
        guard let room = options.disks else {
            throw TurntableError(
                .refused, "holding room for the disks of \(request.machine)", "\(options.host) takes no disks",
                remedy: "start its agent with --disks, or choose another site")
        }
        return try room.places(for: disks, of: request.machine, domain: domain)
    }

    /// Those that are there stay: an agent that was killed makes the rest.
    private func makeDisks(_ kept: KeptSlot) throws(TurntableError) {
        try options.disks?.make(kept.disks ?? [], of: kept.slot.request.machine)
    }

    private func discardDisks(_ kept: KeptSlot) { options.disks?.discard(kept.disks ?? []) }

    private func extend(_ id: String, _ request: SlotRequest? = nil) throws(TurntableError) -> Slot? {
        guard var kept = slots[id] else { return nil }
        guard kept.slot.state != .released, request == nil || request == kept.slot.request else {
            throw TurntableError(
                .refused, "holding a slot for migration \(id)", "it was given back, or is for another machine", remedy: "ask with a new migration")
        }
        if kept.slot.state == .held { try makeDisks(kept) }
        kept.slot.until = .now + Limits.slotTime.seconds
        try keep(id, kept)
        return kept.slot
    }

    private func keep(_ id: String, _ kept: KeptSlot) throws(TurntableError) {
        try files.write(kept, "slots/\(id).json")
        slots[id] = kept
    }

    /// Starts the receiver, if it is not at work, and gives where it listens.
    func receive(_ id: String) async throws(TurntableError) -> Slot {
        guard var kept = slots[id], kept.slot.state != .released else {
            throw TurntableError(.refused, "receiving for migration \(id)", "nothing is held for it on \(options.host)", remedy: "hold a slot first")
        }
        // Once it has begun it goes on, for it may be what hears of the hand-off.
        if kept.receivers == 0 { try demand(kept.slot.request, for: id, "receiving") }
        _ = try extend(id)
        kept = slots[id] ?? kept
        if kept.program?.isAlive == true, kept.slot.address != nil { return kept.slot }
        guard !kept.isStarting else { throw TurntableError(.line, "receiving for migration \(id)", "its receiver is being started", remedy: "ask again") }
        let announcing = try options.endpoints?.options(kept.slot.request.machine, at: kept.slot.request.site) ?? []
        kept.slot.state = .receiving
        kept.receivers += 1
        kept.isStarting = true
        try keep(id, kept)
        defer { slots[id]?.isStarting = false }
        let output = files.output(id, "receive", kept.receivers)
        let program = try programs.start(
            ["receive", "--json", "--listen", kept.slot.address ?? "\(options.receiveAddress):0", "--allow-peer", kept.slot.request.sourceHost,
                "--max-memory", "\(kept.slot.request.memoryBytes)"] + receiveOptions(kept.disks ?? []) + options.receiveOptions + announcing, output: output)
        slots[id]?.program = program
        let address = try await listening(output, program)
        guard var now = slots[id], now.slot.state == .receiving else {
            program.interrupt()
            throw TurntableError(.refused, "receiving for migration \(id)", "its slot was given back meanwhile")
        }
        now.slot.address = address
        try keep(id, now)
        return now.slot
    }

    private func receiveOptions(_ disks: [HeldDisk]) -> [String] {
        disks.flatMap { ["--disk", "\($0.disk.name)=\($0.path)"] } + (disks.contains(where: \.isOlder) ? ["--recycle"] : [])
    }

    private func listening(_ path: String, _ program: RunningProgram) async throws(TurntableError) -> String {
        var output = ProgramOutput(path: path)
        let deadline = ContinuousClock.now + .nanoseconds(Limits.agentTime.value / 2)
        while ContinuousClock.now < deadline {
            output.read()
            if let address = output.listening { return address }
            if let failure = output.failure { throw failure }
            guard program.isAlive else { break }
            try? await Task.sleep(for: .milliseconds(10))
        }
        program.interrupt()
        let said = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        throw TurntableError(.unsupported, "starting turntable receive on \(options.host)", "it does not listen: \(said.suffix(300))")
    }

    /// Gives a slot back, for good: what comes late under its name is refused.
    /// - Parameter isDiscarding: The machine did not come.
    func release(_ id: String, discarding isDiscarding: Bool) async throws(TurntableError) -> Slot {
        let none = SlotRequest(machine: "", memoryBytes: 0, processors: 0, sourceHost: "")
        var kept = slots[id] ?? KeptSlot(slot: Slot(state: .released, request: none, until: .now, host: options.host))
        kept.slot.state = .released
        kept.ended = kept.ended ?? .now
        try keep(id, kept)
        do { try options.gate?.revoke(kept.slot.request.token) } catch { throw error.error("revoking the token of migration \(id)") }
        await end(kept.program)
        slots[id]?.program = nil
        if isDiscarding, kept.disks != nil {
            // Whoever asks knows; but a machine's disk is not lost by what somebody says.
            if let machine = try await programs.machines().first(where: { $0.name == kept.slot.request.machine && $0.isHere }) {
                throw TurntableError(.refused, "removing the disks of \(machine.name)", "it is \(machine.state) on \(options.host)")
            }
            discardDisks(kept)
        }
        return kept.slot
    }

    private func end(_ program: RunningProgram?) async {
        guard let program else { return }
        program.interrupt()
        // It may be in the middle of something that it ends in its own way. Killed it loses nothing either: docs/promise.md.
        let deadline = ContinuousClock.now + .nanoseconds(Limits.agentTime.value / 2)
        while program.isAlive, ContinuousClock.now < deadline { try? await Task.sleep(for: .milliseconds(20)) }
        program.kill()
        program.reap()
    }

    // MARK: - Moves

    func move(_ id: String, _ request: MoveRequest) async throws(TurntableError) -> Move {
        if let keeper = moves[id] {
            try await keeper.restate(request.bitsPerSecond)
            return await keeper.move
        }
        try demand(
            request.token, for: id, "moving", machine: request.machine, from: options.host, to: request.targetHost, holder: options.key)
        // What would stop each of its senders is said before there is one.
        _ = try options.endpoints?.options(request.machine, at: request.site, to: request.targetSite)
        let keeper = MoveKeeper(id, MoveKeeper.Kept(move: Move(state: .moving, request: request)), files, programs, options, log)
        moves[id] = keeper
        try await keeper.begin()
        return await keeper.move
    }

    func move(_ id: String) async throws(Problem) -> Move {
        guard let keeper = moves[id] else { throw Problem.notFound("move \(id)") }
        return await keeper.move
    }

    func withdraw(_ id: String) async throws(TurntableError) -> Move {
        if let keeper = moves[id] {
            try await keeper.cancel()
            return await keeper.move
        }
        // It never began, and never will.
        let move = Move(state: .ended, cancelled: true, owner: .source, ended: .now)
        let keeper = MoveKeeper(id, MoveKeeper.Kept(move: move), files, programs, options, log)
        moves[id] = keeper
        try await keeper.save()
        return move
    }

    // MARK: - Upkeep

    /// Starts receivers again that ended, ends what nobody asked for in time, and forgets what nobody can ask for any more.
    func tend() async {
        for (id, kept) in slots {
            do {
                if kept.slot.state == .released { try forget(id, kept.ended, "slots") } else if kept.slot.until < .now {
                    try await expire(id, kept)
                } else if kept.slot.state == .receiving, !kept.isStarting, kept.program?.isAlive != true {
                    kept.program?.reap()
                    log.warning("the receiver of \(id) has ended: it is started again")
                    _ = try await receive(id)
                }
            } catch {
                log.warning("slot \(id): \(error)")
            }
        }
        for (id, keeper) in moves { try? forget(id, await keeper.move.ended, "moves") }
    }

    private func expire(_ id: String, _ kept: KeptSlot) async throws(TurntableError) {
        // A machine that has come in part is its source's until that says otherwise.
        let isComing = try await programs.machines().contains { $0.name == kept.slot.request.machine && !$0.isHere && $0.state != "dead" }
        if isComing && kept.slot.state == .receiving { return }
        log.warning("the slot of \(id) has not been asked for since \(kept.slot.until - Limits.slotTime.seconds): it is given back")
        // A machine may have come to a receiver, whatever became of it since: its disks stay.
        _ = try await release(id, discarding: kept.receivers == 0)
    }

    private func forget(_ id: String, _ ended: Date?, _ kind: String) throws(TurntableError) {
        guard let ended, Date.now.timeIntervalSince(ended) > Limits.endedMoveTime.seconds else { return }
        if kind == "slots" { slots[id] = nil } else { moves[id] = nil }
        files.remove(id, kind)
    }
}

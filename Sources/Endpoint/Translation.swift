internal import TurntableCore
internal import TurntableLinux

/// Has the kernel translate what is for machines, and what comes from them: TranslationRules.swift. The table is there while this is.
final class Translation: Sendable {
    /// Of one machine.
    final class Way: Backend {
        private let translation: Translation
        private let index: Int
        private let preparation: @Sendable () throws(TurntableError) -> Void

        fileprivate init(_ translation: Translation, _ index: Int, _ preparation: @escaping @Sendable () throws(TurntableError) -> Void) {
            (self.translation, self.index, self.preparation) = (translation, index, preparation)
        }

        func prepare() throws(TurntableError) { try preparation() }
        func point(to site: Int) throws(TurntableError) { try translation.point(index, to: site) }
    }

    private struct Entry {
        var machine: TranslationRules.Machine
        var site = 0
        /// By the site to which it turns.
        var flips: [[NetlinkMessage]]
    }
    private struct State {
        var entries: [Entry] = []
        /// As long as the table is to be there.
        var socket: NetlinkSocket?
    }
    private let state = Monitor(State())

    /// - Parameter preparation: what the way needs beside the table.
    func add(_ machine: TranslationRules.Machine, preparation: @escaping @Sendable () throws(TurntableError) -> Void) -> Way {
        let rules = TranslationRules(isV6: machine.isV6)
        let entry = Entry(machine: machine, flips: machine.sites.indices.map { rules.flip(machine, to: $0) })
        return state.update { state in
            state.entries.append(entry)
            return Way(self, state.entries.count - 1, preparation)
        }
    }

    /// Makes the table with all machines where they are known to be, in the place of what an earlier process left.
    func make() throws(TurntableError) {
        try state.update { (state) throws(TurntableError) in
            guard !state.entries.isEmpty else { return Self.removeRemains() }
            let socket = try NetlinkSocket(.filters)
            try Self.make(state.entries, socket)
            state.socket = socket
        }
    }

    /// Makes the table again if somebody has removed it. Says whether it was gone.
    func restore() throws(TurntableError) -> Bool {
        try state.update { (state) throws(TurntableError) in
            guard let socket = state.socket else { return false }
            let isThere = Self.families.allSatisfy { isV6 in
                guard state.entries.contains(where: { $0.machine.isV6 == isV6 }) else { return true }
                return (try? socket.perform(TranslationRules(isV6: isV6).question, what: "looking for the table")) != nil
            }
            if !isThere { try Self.make(state.entries, socket) }
            return !isThere
        }
    }

    /// Removes the table; from now on machines that move do so without it.
    func remove() throws(TurntableError) {
        try state.update { (state) throws(TurntableError) in
            guard let socket = state.socket else { return }
            state.socket = nil
            for isV6 in Self.families { try Self.remove(isV6, socket) }
        }
    }

    /// Before the table is made, the site is written down.
    fileprivate func point(_ index: Int, to site: Int) throws(TurntableError) {
        try state.update { (state) throws(TurntableError) in
            state.entries[index].site = site
            guard let socket = state.socket else { return }
            let entry = state.entries[index]
            do throws(TurntableError) {
                try socket.perform(entry.flips[site], what: "turning the way to \(entry.machine.name) to site \(site)")
            } catch {
                // Somebody has changed the table, or removed it.
                try Self.make(state.entries, socket)
            }
        }
    }

    private static let families = [false, true]

    private static func make(_ entries: [Entry], _ socket: NetlinkSocket) throws(TurntableError) {
        for isV6 in families {
            let members = entries.filter { $0.machine.isV6 == isV6 }
            if members.isEmpty {
                try remove(isV6, socket)
            } else {
                let whole = TranslationRules(isV6: isV6).whole(of: members.map { ($0.machine, $0.site) })
                try socket.perform(whole, what: "making the table of nftables for \(members.count) machines")
            }
        }
    }

    private static func remove(_ isV6: Bool, _ socket: NetlinkSocket) throws(TurntableError) {
        let isDone = Errno.noFamily.union([Errno.notThere])
        try socket.perform(TranslationRules(isV6: isV6).removal, but: isDone, what: "removing the table of nftables")
    }

    /// Of an earlier process that had machines to translate. Where there can be no tables, there are none.
    private static func removeRemains() {
        guard let socket = try? NetlinkSocket(.filters) else { return }
        for isV6 in families { try? remove(isV6, socket) }
    }
}

import CTurntableLinux
import Glibc

/// A network namespace, found by the name `ip netns` uses or by a path, and deleted at the end if this process made it.
struct NetworkNamespace: ~Copyable {
    private static let directory = "/run/netns"

    let name: String
    let isOurs: Bool
    private let path: String
    private let descriptor: OwnedDescriptor

    /// Opens a namespace that exists.
    init(opening name: String) throws(LineError) {
        let path = Self.path(of: name)
        let remedy = "create it with `ip netns add \(name)`, or give --create"
        // The path is a terminated string for the length of the call; so in every call below.
        let number = unsafe tt_netns_open(path)
        descriptor = OwnedDescriptor(
            try check(number, "cannot open network namespace \(name) at \(path)", remedy: number == -ENOENT ? remedy : nil))
        self.name = name
        self.path = path
        isOurs = false
    }

    /// Makes a namespace; with `replacing`, one that an earlier run left behind loses its name first.
    init(creating name: String, replacing: Bool) throws(LineError) {
        let path = Self.path(of: name)
        let home = try Self.current()
        if replacing {
            let deleted = unsafe tt_netns_delete(path)
            if deleted != -ENOENT { try check(deleted, "cannot replace network namespace \(name) at \(path)") }
        }
        let created = unsafe tt_netns_create(Self.directory, path)
        let remedy = "leave out --create to use it as it is, or add --replace if an earlier run left it behind"
        try check(created, "cannot create network namespace \(name) at \(path)", remedy: created == -EEXIST ? remedy : nil)
        do throws(LineError) {
            let socket = OwnedDescriptor(try check(tt_tun_socket(), "cannot open a socket in network namespace \(name)"))
            try check(unsafe tt_tun_set_up(socket.number, "lo"), "cannot set lo up in network namespace \(name)")
            try Self.enter(home.number, "its own network namespace")
            descriptor = OwnedDescriptor(try check(unsafe tt_netns_open(path), "cannot open network namespace \(name) at \(path)"))
        } catch {
            _ = tt_netns_enter(home.number)
            _ = unsafe tt_netns_delete(path)
            throw error
        }
        self.name = name
        self.path = path
        isOurs = true
    }

    /// Runs `body` with the calling thread inside the namespace and comes back, whatever happens.
    func inside<Result: ~Copyable>(_ body: () throws(LineError) -> Result) throws(LineError) -> Result {
        let home = try Self.current()
        try Self.enter(descriptor.number, "network namespace \(name)")
        do throws(LineError) {
            let result = try body()
            try Self.enter(home.number, "its own network namespace")
            return result
        } catch {
            _ = tt_netns_enter(home.number)
            throw error
        }
    }

    /// Deletes a namespace of ours, unless another now goes by its name.
    deinit {
        guard isOurs, isStillNamed() else { return }
        let deleted = unsafe tt_netns_delete(path)
        if deleted < 0 {
            let error = LineError.system("cannot delete network namespace \(name) at \(path)", errno: -deleted)
            writeText("turntable-lightpath: \(error)\n", to: STDERR_FILENO)
        }
    }

    private func isStillNamed() -> Bool {
        var opened = stat()
        var named = stat()
        // Both calls fill the structure they are given.
        guard unsafe fstat(descriptor.number, &opened) == 0, unsafe stat(path, &named) == 0 else { return false }
        return opened.st_ino == named.st_ino && opened.st_dev == named.st_dev
    }

    private static func current() throws(LineError) -> OwnedDescriptor {
        OwnedDescriptor(try check(tt_netns_open(nil), "cannot open this thread's network namespace"))
    }

    private static func enter(_ descriptor: Int32, _ what: String) throws(LineError) {
        try check(tt_netns_enter(descriptor), "cannot enter \(what)")
    }

    private static func path(of name: String) -> String { name.contains("/") ? name : "\(directory)/\(name)" }
}

internal import CTurntableLibxl
internal import Glibc
internal import TurntableCore
internal import TurntableLinux
internal import XenMove

/// libxl's context. One thread uses it; libxl runs its helper and scripts from it.
@safe final class Libxl {
    // Opened in init, closed in deinit, and passed to the shim alone.
    private let libxl: OpaquePointer

    init(isVerbose: Bool) throws(TurntableError) {
        var opened: OpaquePointer?
        try unsafe check(tt_libxl_open(&opened, isVerbose ? 1 : 0), "opening libxl", remedy: "run in a dom0, as root, with xenstored running")
        guard let opened = unsafe opened else { preconditionFailure("opened without an error") }
        unsafe libxl = opened
    }

    deinit { unsafe tt_libxl_close(libxl) }

    /// By a name or a number.
    func describe(_ name: String) throws(TurntableError) -> DomainFacts {
        var number: UInt32 = 0
        let error = unsafe tt_libxl_find(libxl, name, &number)
        guard error == 0 else { throw TurntableError(.usage, "the domain \(name)", "there is none here", remedy: "see `xl list`") }
        return try describe(number)
    }

    func describe(_ domain: UInt32) throws(TurntableError) -> DomainFacts {
        var found = tt_libxl_domain()
        let error = unsafe tt_libxl_describe(libxl, domain, &found)
        if error == tt_libxl_not_found { throw TurntableError(.usage, "domain \(domain)", "it is not here", remedy: "see `xl list`") }
        try check(error, "asking for domain \(domain)")
        let standing: DomainStanding =
            found.is_suspended != 0 ? .suspended : found.is_shut_down != 0 ? .ended : found.is_paused != 0 ? .paused : .runs
        let bytes = unsafe withUnsafeBytes(of: &found.uuid) { unsafe Array($0) }
        return DomainFacts(number: domain, uuid: Self.text(ofUUID: bytes), standing: standing)
    }

    private static func text(ofUUID bytes: [UInt8]) -> String {
        let digits = bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
        return [0..<4, 4..<6, 6..<8, 8..<10, 10..<16].map { digits[$0].joined() }.joined(separator: "-")
    }

    func configuration(_ domain: UInt32) throws(TurntableError) -> String {
        guard let text = unsafe tt_libxl_configuration(libxl, domain) else {
            throw TurntableError(.hypervisor, "reading the configuration of domain \(domain)", "libxl does not give it", remedy: "see what it says above")
        }
        defer { unsafe free(text) }
        return unsafe String(cString: text)
    }

    /// Those of such a configuration that this host's kernel can serve, as HelperSetting.disks has them.
    func disks(of configuration: String) throws(TurntableError) -> String {
        guard let text = unsafe tt_libxl_disks(libxl, configuration) else {
            throw TurntableError(.protocol, "reading the configuration of the domain that comes", "libxl cannot", remedy: "use one version of Xen")
        }
        defer { unsafe free(text) }
        return unsafe String(cString: text)
    }

    func save(_ domain: UInt32, to stream: Int32) throws(TurntableError) {
        try check(unsafe tt_libxl_save(libxl, domain, stream), "saving domain \(domain)")
    }

    /// Gives the domain that came.
    func restore(_ configuration: String, from stream: Int32) throws(TurntableError) -> UInt32 {
        var domain: UInt32 = 0
        try check(unsafe tt_libxl_restore(libxl, configuration, stream, &domain), "making the domain that comes")
        return domain
    }

    func unpause(_ domain: UInt32) throws(TurntableError) { try check(unsafe tt_libxl_unpause(libxl, domain), "starting domain \(domain)") }
    func resume(_ domain: UInt32) throws(TurntableError) { try check(unsafe tt_libxl_resume(libxl, domain), "resuming domain \(domain)") }
    func destroy(_ domain: UInt32) throws(TurntableError) { try check(unsafe tt_libxl_destroy(libxl, domain), "ending domain \(domain)") }
    func watch(_ domain: UInt32) throws(TurntableError) { try check(unsafe tt_libxl_watch(libxl, domain), "watching domain \(domain)") }
}

private func check(_ error: Int32, _ what: String, remedy: String = "see what libxl says above") throws(TurntableError) {
    if error != 0 { throw TurntableError(.hypervisor, what, "libxl's error \(error)", remedy: remedy) }
}

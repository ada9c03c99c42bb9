// The one owner of each thing that libibverbs and librdmacm hand out. Each holds what it depends on, so that they end in the
// order in which the libraries want them to.

internal import CTurntableVerbs
internal import Glibc
internal import TurntableCore
internal import TurntableLinux

/// The libraries, if this host has them.
enum VerbsLibrary {
    static let remedy = "install libibverbs1, librdmacm1 and ibverbs-providers; see `turntable doctor rdma`"

    static func load() throws(TurntableError) {
        guard tt_verbs_load() == 0 else {
            throw TurntableError(.unsupported, "using RDMA", unsafe String(cString: tt_verbs_load_error()), remedy: remedy)
        }
    }
}

/// Where the connection manager says what happens to connections.
@safe final class EventChannel: @unchecked Sendable {
    let raw: OpaquePointer
    var descriptor: Int32 { unsafe tt_cm_descriptor(raw) }

    init() throws(TurntableError) {
        try VerbsLibrary.load()
        guard let raw = unsafe tt_cm_open() else {
            throw TurntableError(
                .unsupported, "opening the RDMA connection manager", errorText(errno),
                remedy: "load the kernel module rdma_ucm; see `turntable doctor rdma`")
        }
        unsafe self.raw = raw
    }
    deinit { unsafe tt_cm_close(raw) }

    /// The next event, nil if there is none now.
    func next() throws(TurntableError) -> tt_cm_event? {
        var event = unsafe tt_cm_event()
        let result = unsafe tt_cm_next(raw, &event)
        return unsafe try checked(result, "hearing from the RDMA connection manager") == 1 ? event : nil
    }
}

extension tt_cm_event {
    var privateData: [UInt8] {
        let bytes = unsafe Int(private_data_bytes)
        return unsafe withUnsafeBytes(of: private_data) { unsafe Array($0.prefix(bytes)) }
    }
}

/// A connection's identifier.
@safe final class ConnectionID: @unchecked Sendable {
    let raw: OpaquePointer
    private let channel: EventChannel
    /// What events name it by.
    var key: UInt { unsafe UInt(bitPattern: raw) }

    init(_ channel: EventChannel) throws(TurntableError) {
        var raw: OpaquePointer?
        try checked(unsafe tt_cm_create(channel.raw, &raw), "making an RDMA connection")
        unsafe self.raw = raw!
        self.channel = channel
    }
    /// One that came with a request.
    init(owning raw: OpaquePointer, _ channel: EventChannel) {
        unsafe self.raw = raw
        self.channel = channel
    }
    deinit { unsafe tt_cm_destroy(raw) }

    var peer: String {
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { text in
            unsafe tt_cm_peer(raw, text.baseAddress!, text.count)
            return unsafe String(cString: text.baseAddress!)
        }
    }
}

/// What keys of registrations are good for: the queue pairs of one stream.
@safe final class ProtectionDomain: @unchecked Sendable {
    let raw: OpaquePointer
    let context: OpaquePointer
    /// The device has refused to register on demand.
    private let pinsAlways = Monitor(false)

    init(_ context: OpaquePointer) throws(TurntableError) {
        guard let raw = unsafe tt_pd_open(context) else {
            throw TurntableError(.unsupported, "making an RDMA protection domain", errorText(errno))
        }
        unsafe self.raw = raw
        unsafe self.context = context
    }
    deinit { must(unsafe tt_pd_close(raw)) }

    var device: String { unsafe String(cString: tt_device_name(context)) }

    func register(_ address: UnsafeMutableRawPointer, _ bytes: Int, _ access: Int, _ failure: inout Int32) -> OpaquePointer? {
        if !pinsAlways.read({ $0 }) {
            if let mr = unsafe tt_mr_open(raw, address, bytes, Int32(access) | Int32(tt_access_on_demand), &failure) { return unsafe mr }
            pinsAlways.update { $0 = true }
        }
        return unsafe tt_mr_open(raw, address, bytes, Int32(access), &failure)
    }
}

/// Memory that the device may read, or write, for as long as this lives.
@safe final class Registration: @unchecked Sendable {
    enum Access {
        case local
        case remoteWrite
    }
    private let raw: OpaquePointer
    private let domain: ProtectionDomain
    private let budget: PinBudget
    private let bytes: Int
    let localKey: UInt32
    let remoteKey: UInt32

    init(
        _ address: UnsafeMutableRawPointer, _ bytes: Int, _ access: Access, _ domain: ProtectionDomain, _ budget: PinBudget, what: String
    ) throws(TurntableError) {
        guard budget.take(bytes) else {
            throw TurntableError(.refused, "pinning \(what)", "\(ByteCount(bytes)) more than the \(budget.limit) that may be pinned here")
        }
        var failure: Int32 = 0
        let flags = tt_access_local_write | (access == .remoteWrite ? tt_access_remote_write : 0)
        guard let raw = unsafe domain.register(address, bytes, flags, &failure) else {
            budget.give(bytes)
            throw TurntableError(
                .unsupported, "pinning \(what)", errorText(-failure),
                remedy: "raise the limit of locked memory (ulimit -l), or run as root; see `turntable doctor rdma`")
        }
        unsafe self.raw = raw
        self.domain = domain
        self.budget = budget
        self.bytes = bytes
        localKey = unsafe tt_mr_local_key(raw)
        remoteKey = unsafe tt_mr_remote_key(raw)
    }

    deinit {
        must(unsafe tt_mr_close(raw))
        budget.give(bytes)
    }
}

/// Memory of our own that is registered.
@safe final class PinnedBuffer: @unchecked Sendable {
    let base: UnsafeMutableRawPointer
    let bytes: Int
    // Ends before the memory does.
    private var held: Registration?
    let localKey: UInt32
    let remoteKey: UInt32

    init(_ bytes: Int, _ access: Registration.Access, _ domain: ProtectionDomain, _ budget: PinBudget, what: String) throws(TurntableError) {
        // Shared: a child process that is started meanwhile must not make copies of pages that the device writes.
        let address = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        guard unsafe address != MAP_FAILED, let address = unsafe address else {
            throw TurntableError(.unsupported, "making room for \(what)", errorText(errno))
        }
        do throws(TurntableError) {
            let registration = try unsafe Registration(address, bytes, access, domain, budget, what: what)
            held = registration
            localKey = registration.localKey
            remoteKey = registration.remoteKey
        } catch {
            unsafe munmap(address, bytes)
            throw error
        }
        unsafe base = address
        self.bytes = bytes
    }

    deinit {
        held = nil
        unsafe munmap(base, bytes)
    }
}

/// Where completions of a stream's queue pairs are found.
@safe final class CompletionQueue: @unchecked Sendable {
    let raw: OpaquePointer
    private let channel: OpaquePointer
    private let domain: ProtectionDomain
    static let takenAtOnce = 32

    init(_ domain: ProtectionDomain, entries: Int) throws(TurntableError) {
        let what = "making an RDMA completion queue"
        guard let channel = unsafe tt_completion_channel_open(domain.context) else { throw TurntableError(.unsupported, what, errorText(errno)) }
        guard let raw = unsafe tt_cq_open(domain.context, Int32(entries), channel) else {
            let why = errorText(errno)
            must(unsafe tt_completion_channel_close(channel))
            throw TurntableError(.unsupported, what, "\(why) (\(entries) entries)", remedy: "use fewer streams")
        }
        unsafe self.raw = raw
        unsafe self.channel = channel
        self.domain = domain
    }

    deinit {
        unsafe tt_disarm(channel)
        must(unsafe tt_cq_close(raw))
        must(unsafe tt_completion_channel_close(channel))
    }

    var descriptor: Int32 { unsafe tt_completion_channel_descriptor(channel) }
    func arm() { must(unsafe tt_arm(raw)) }
    func disarm() { unsafe tt_disarm(channel) }
}

/// The libraries refuse these only if they are used wrongly.
func must(_ result: Int32) { precondition(result == 0, "a call of libibverbs failed: \(errorText(-result))") }

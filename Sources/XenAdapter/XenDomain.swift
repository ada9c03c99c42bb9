internal import CTurntableXen
internal import Glibc
public import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// A domain of this host's Xen, and the libraries' handles for it. Its owner's one thread at a time uses it.
@safe public final class XenDomain: @unchecked Sendable {
    public let number: UInt32
    // The libraries' handles: opened in init, closed in deinit, and passed to the shim alone.
    private let xen: OpaquePointer

    public init(_ number: UInt32) throws(TurntableError) {
        var opened: OpaquePointer?
        try unsafe Self.check(tt_xen_open(&opened), "opening Xen's interfaces", remedy: "run in a dom0, as root, with xenstored running")
        guard let opened = unsafe opened else { preconditionFailure("opened without an error") }
        self.number = number
        unsafe xen = opened
        var found = tt_xen_version()
        try check(unsafe tt_xen_version(xen, &found), "asking for Xen's version")
        guard (Int(found.major), Int(found.minor)) == StreamGreeting.xen else {
            throw TurntableError(
                .unsupported, "serving Xen \(found.major).\(found.minor)", "this helper is made for \(StreamGreeting.xen.major).\(StreamGreeting.xen.minor)",
                remedy: "unset LIBXL_SAVE_HELPER: Xen's own helper then moves the domain")
        }
    }

    deinit { unsafe tt_xen_close(xen) }

    private static func check(_ result: Int32, _ what: String, remedy: String = "") throws(TurntableError) {
        guard result < 0 else { return }
        throw TurntableError(.hypervisor, what, errorText(-result), remedy: remedy)
    }

    private func check(_ result: Int32, _ what: String, remedy: String = "") throws(TurntableError) {
        try Self.check(result, "\(what) of domain \(number)", remedy: remedy)
    }

    // MARK: - What it is

    struct Facts {
        var pages: Int
        var frames: Int
        var isHVM: Bool
        var hasDeviceModel: Bool
        var isShutDown: Bool
        var isDying: Bool
    }

    func facts() throws(TurntableError) -> Facts {
        var found = tt_xen_domain()
        try check(unsafe tt_xen_domain(xen, number, &found), "asking for the state")
        return Facts(
            pages: Int(found.pages), frames: Int(found.frames), isHVM: found.is_hvm != 0, hasDeviceModel: found.has_device_model != 0,
            isShutDown: found.is_shut_down != 0, isDying: found.is_dying != 0)
    }

    /// PVH and HVM domains have memory that can be copied as it is; a PV domain's page tables name the host's own frames.
    public func isHVM() throws(TurntableError) -> Bool { try facts().isHVM }

    /// Its devices are paravirtual alone: what is PVH, in contrast to HVM.
    public func hasDeviceModel() throws(TurntableError) -> Bool { try facts().hasDeviceModel }

    public func pageCount() throws(TurntableError) -> PageCount { PageCount(try facts().pages) }

    public func name() throws(TurntableError) -> String {
        guard let name = try stored("/local/domain/\(number)/name") else {
            throw TurntableError(.hypervisor, "asking for the name of domain \(number)", "xenstore has none")
        }
        return name
    }

    // MARK: - What xenstore has

    /// The value at a path; nil if there is none.
    func stored(_ path: String) throws(TurntableError) -> String? {
        try unsafe storeText(path) { unsafe tt_xen_store_read(xen, path, $0, $1) }
    }

    /// The names below a path.
    func storedNames(below path: String) throws(TurntableError) -> [String] {
        try unsafe storeText(path) { unsafe tt_xen_store_names(xen, path, $0, $1) }?.split(separator: "\n").map(String.init) ?? []
    }

    private func storeText(
        _ path: String, _ read: (UnsafeMutablePointer<CChar>?, Int) -> Int32
    ) throws(TurntableError) -> String? {
        var text = [CChar](repeating: 0, count: Limits.xenStoreBytes)
        let result = unsafe text.withUnsafeMutableBufferPointer { unsafe read($0.baseAddress, $0.count) }
        if result == -ENOENT { return nil }
        try Self.check(result, "reading \(path) of xenstore")
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    // MARK: - Memory

    /// The runs of frames that have memory behind them.
    func presentRuns(in frames: Range<Int>) throws(TurntableError) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        let most = Int(tt_xen_frames_per_query)
        var isPresent = [UInt8](repeating: 0, count: most)
        for start in stride(from: frames.lowerBound, to: frames.upperBound, by: most) {
            let count = min(most, frames.upperBound - start)
            let result = unsafe isPresent.withUnsafeMutableBufferPointer {
                unsafe tt_xen_present(xen, number, UInt64(start), UInt32(count), $0.baseAddress)
            }
            try check(result, "looking for the memory")
            for index in 0..<count where isPresent[index] != 0 {
                let frame = start + index
                if runs.last?.upperBound == frame {
                    runs[runs.count - 1] = runs[runs.count - 1].lowerBound..<frame + 1
                } else {
                    runs.append(frame..<frame + 1)
                }
            }
        }
        return runs
    }

    /// How many frames get memory only when the guest first uses them.
    func pagesOnDemand() throws(TurntableError) -> Int {
        let found = unsafe tt_xen_on_demand(xen, number)
        try check(Int32(clamping: found), "asking for the memory on demand")
        return Int(found)
    }

    func populate(_ frames: Range<Int>) throws(TurntableError) {
        try check(
            unsafe tt_xen_populate(xen, number, UInt64(frames.lowerBound), UInt32(frames.count)),
            "making frames \(frames.lowerBound) to \(frames.upperBound)", remedy: "free memory on this host, or send the domain to another one")
    }

    func map(_ frames: Range<Int>, to address: UnsafeMutableRawPointer, isWritable: Bool) throws(TurntableError) {
        try check(
            unsafe tt_xen_map(xen, number, UInt64(frames.lowerBound), frames.count, address, isWritable ? 1 : 0),
            "mapping frames \(frames.lowerBound) to \(frames.upperBound)")
    }

    func setDirtyLog(on isOn: Bool) throws(TurntableError) {
        try check(unsafe tt_xen_log_dirty(xen, number, isOn ? 1 : 0), isOn ? "logging the writes" : "ending the log of writes")
    }

    func fetchDirty(into words: inout [UInt64], frames: Int, isLast: Bool) throws(TurntableError) {
        precondition(words.count * 64 >= frames)
        let result = unsafe words.withUnsafeMutableBufferPointer {
            unsafe tt_xen_fetch_dirty(xen, number, UInt64(frames), isLast ? 1 : 0, $0.baseAddress)
        }
        try check(result, "fetching the writes")
    }

    // MARK: - Everything else

    func processorPolicy() throws(TurntableError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Limits.xenPolicyBytes)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe tt_xen_cpu_policy(xen, number, $0.baseAddress, $0.count) }
        try check(Int32(clamping: count), "reading the processor's features")
        return Array(bytes.prefix(count))
    }

    func setProcessorPolicy(_ policy: [UInt8]) throws(TurntableError) {
        let result = unsafe policy.withUnsafeBytes { unsafe tt_xen_set_cpu_policy(xen, number, $0.baseAddress, $0.count) }
        try check(
            result, "giving the guest the processor that it had", remedy: "move it to a host whose processor has what the source's has (cpuid=)")
    }

    func timeStampCounter() throws(TurntableError) -> XenState.Counter {
        var found = tt_xen_tsc()
        try check(unsafe tt_xen_tsc(xen, number, &found), "reading the time stamp counter")
        return .init(mode: found.mode, kilohertz: found.khz, incarnation: found.incarnation, elapsedNanoseconds: found.elapsed_ns)
    }

    func set(_ counter: XenState.Counter) throws(TurntableError) {
        var wanted = tt_xen_tsc(
            mode: counter.mode, khz: counter.kilohertz, incarnation: counter.incarnation, elapsed_ns: counter.elapsedNanoseconds)
        try check(unsafe tt_xen_set_tsc(xen, number, &wanted), "setting the time stamp counter")
    }

    func parameter(_ index: UInt32) throws(TurntableError) -> UInt64 {
        var value: UInt64 = 0
        try check(unsafe tt_xen_parameter(xen, number, index, &value), "reading parameter \(index)")
        return value
    }

    func set(parameter index: UInt32, to value: UInt64) throws(TurntableError) {
        try check(unsafe tt_xen_set_parameter(xen, number, index, value), "setting parameter \(index)")
    }

    func context() throws(TurntableError) -> [UInt8] {
        let needed = unsafe tt_xen_context(xen, number, nil, 0)
        try check(Int32(clamping: needed), "sizing the context")
        var bytes = [UInt8](repeating: 0, count: needed)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe tt_xen_context(xen, number, $0.baseAddress, $0.count) }
        try check(Int32(clamping: count), "reading the context")
        return Array(bytes.prefix(count))
    }

    func set(context: [UInt8]) throws(TurntableError) {
        let result = unsafe context.withUnsafeBytes { unsafe tt_xen_set_context(xen, number, $0.baseAddress, $0.count) }
        try check(result, "setting the context")
    }

    func clear(frame: UInt64) throws(TurntableError) {
        try check(unsafe tt_xen_clear_frame(xen, number, frame), "clearing frame \(frame)")
    }

    /// - Parameter isHVM: else the frames are the host's.
    func seedGrants(_ rings: XenRings, isHVM: Bool, _ services: XenServices) throws(TurntableError) {
        try check(
            unsafe tt_xen_seed_grants(xen, number, isHVM ? 1 : 0, rings.console, rings.store, services.consoleDomain, services.storeDomain),
            "granting console and xenstore")
    }

    /// Of a PV domain: which of its own frames one of the host's is.
    func ownFrame(of machine: UInt64) throws(TurntableError) -> UInt64 {
        var frame: UInt64 = 0
        try check(unsafe tt_xen_own_frame(xen, machine, &frame), "looking for frame \(machine) of the host")
        return frame
    }

    /// Of a PV domain: which of the host's frames one of its own is; nil as long as that has no memory.
    func machineFrame(of frame: UInt64) throws(TurntableError) -> UInt64? {
        var machine: UInt64 = 0
        let result = unsafe tt_xen_machine_frame(xen, number, frame, &machine)
        if result == -ENOENT { return nil }
        try check(result, "looking for frame \(frame)")
        return machine
    }

    /// A suspended domain runs on, as if its suspend had been cancelled.
    public func resume() throws(TurntableError) { try check(unsafe tt_xen_resume(xen, number), "letting the guest run on") }
    func unpause() throws(TurntableError) { try check(unsafe tt_xen_unpause(xen, number), "letting the guest run") }
}

/// Who serves a new domain's console and xenstore, and on which event channels: libxl says so.
public struct XenServices: Sendable {
    public var storeEvent, storeDomain, consoleEvent, consoleDomain: UInt32
    public init(storeEvent: UInt32, storeDomain: UInt32, consoleEvent: UInt32, consoleDomain: UInt32) {
        (self.storeEvent, self.storeDomain) = (storeEvent, storeDomain)
        (self.consoleEvent, self.consoleDomain) = (consoleEvent, consoleDomain)
    }
}

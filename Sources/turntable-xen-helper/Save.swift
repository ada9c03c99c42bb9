internal import CTurntableXen
internal import Glibc
internal import MigrationEngine
internal import Protection
internal import TransportTCP
internal import TurntableCore
internal import TurntableLinux
internal import XenAdapter

/// The source's side of a move.
struct Save {
    let invocation: Invocation
    let settings: Settings

    init(_ invocation: Invocation, _ settings: Settings) { (self.invocation, self.settings) = (invocation, settings) }

    func run() throws(TurntableError) -> Never {
        let domain = try XenDomain(invocation.domain)
        guard invocation.isLive, invocation.isPlain else { try Helper.becomeStock(invocation, settings) }
        let isOwned = settings.machine != nil
        let isPV = try !domain.isHVM()
        let libxl = LibxlCallbacks(understood: invocation.messages)
        let security = try settings.security()
        // A device model's state comes in libxl's stream when all else is there.
        let isLast = isPV ? true : try !domain.hasDeviceModel()
        let disks = try SourceDisks(of: domain, settings.disks)
        guard isLast || isOwned || disks.isEmpty else {
            throw TurntableError(
                .unsupported, "moving the disks of domain \(domain.number)", "under xl those of HVM domains do not go along: libxl makes them last",
                remedy: "`turntable xen migrate --disk`")
        }
        guard let met = try Meeting.greet(on: invocation.stream, at: settings.addresses, isLast: isLast, isPV: isPV) else {
            if isOwned || !disks.isEmpty { throw Self.nobodyCame }
            try serveStock(libxl)
        }
        if isPV { try carry(met, domain, disks, libxl, security) }
        // From here on this process is two: libxl waits for the one, the engine is in the other.
        let front = Front(
            descriptor: try checked(tt_xen_split(), "starting the engine"), stream: invocation.streamDescriptor,
            ending: disks.ending)
        let reports = Reports(path: Settings.reports) { libxl.log($0, $1) }
        do throws(TurntableError) {
            try move(domain, disks, libxl, met.address, security, front, reports)
            Front.rest()
        } catch {
            reports.failed(error)
            try? libxl.complete(failed: true)
            exit(error.kind.exitCode)
        }
    }

    /// How the line is used.
    var line: LineOptions {
        var line = LineOptions()
        line.rate = settings.rate
        line.streams = settings.streams
        // Foreign memory can only be copied into the kernel, and a page on its way from another process is used for the next.
        line.sendMethod = .copied
        return line
    }

    /// What the engine is to keep to.
    var options: MigrationOptions {
        var options = MigrationOptions()
        options.streams = settings.streams
        options.budget = settings.downtime
        options.statedRate = settings.rate
        return options
    }

    /// Who can be asked afterwards: the target's helper ends with the move.
    func nameTarget(_ address: Address, _ security: LineSecurity, _ options: inout MigrationOptions) {
        options.peer = settings.service ?? "\(address)"
        if settings.machine != nil { options.believes = security.believes(from: settings.peer ?? address.host) }
    }

    private func move(
        _ domain: XenDomain, _ disks: SourceDisks, _ libxl: LibxlCallbacks, _ address: Address, _ security: LineSecurity, _ front: Front,
        _ reports: Reports
    ) throws(TurntableError) {
        var options = options
        options.verification = settings.verification
        options.resumeWindow = Limits.xenResumeWindow
        nameTarget(address, security, &options)
        let completeLibxl: @Sendable () -> Void = { front.letGo { try? libxl.complete(failed: false) } }
        if settings.machine != nil, try domain.hasDeviceModel() {
            // The target's libxl wants the device model's state, which follows in libxl's own stream, before the guest can run there.
            options.announcing = { (_, _, isHere) throws(TurntableError) in if isHere { {} } else { completeLibxl } }
        }
        let machine = try XenSourceMachine(domain, libxl, name: settings.machine, disks: disks.open(for: domain.name()) { reports.pass(.note($0)) })
        let migration = SourceMigration(
            machine: machine, transport: TCPSourceTransport(address: address, options: line, security: security, peer: settings.peer),
            journals: try settings.journals(), options: options
        ) { event in
            reports.pass(event)
            // The target has it: libxl need not wait for what is compared and put away afterwards.
            if case .phase(.completed) = event { completeLibxl() }
        }
        Watch.start(invocation.stream) { _ = migration.cancel() }
        let memory = try domain.pageCount().bytes
        do throws(TurntableError) {
            var report = try migration.run()
            // The engine's memory is address space, of an HVM domain up to its highest frames.
            report.memoryBytes = memory.value
            reports.completed(report)
        } catch {
            machine.endDirtyLog()
            throw error
        }
    }

    /// Without the engine nothing says who owns the domain, and no disk goes along.
    private static let nobodyCame = TurntableError(
        .line, "meeting the target's turntable-xen-helper", "it did not come within \(Limits.xenMeetingTime)",
        remedy: "let the hosts reach each other, or set --address")

    /// The other end did not answer: it has Xen's own helper, which waits for a stream whose beginning it already got.
    private func serveStock(_ libxl: LibxlCallbacks) throws(TurntableError) -> Never {
        libxl.log(.warning, "the target has no turntable-xen-helper, or cannot reach this host: the domain moves by Xen's own stream")
        var words = unsafe Helper.words(invocation, settings)
        let code = unsafe words.withUnsafeMutableBufferPointer {
            unsafe tt_xen_run_into(
                settings.stockHelper, $0.baseAddress!, Int32(Invocation.streamWord), invocation.streamDescriptor, Meeting.headerBytes)
        }
        exit(code < 0 ? TurntableError.Kind.line.exitCode : code)
    }
}

/// The process that libxl waits for.
final class Front: Sendable {
    private let descriptor: Monitor<Int32?>
    private let stream: Int32
    /// - Parameter ending: what this process becomes when that one is killed, rather than to end at once.
    init(descriptor: Int32, stream: Int32, ending: (@Sendable () -> Void)? = nil) {
        self.descriptor = Monitor(descriptor)
        self.stream = stream
        // A terminal interrupts both, and that one is enough.
        if ending != nil { signal(SIGINT, SIG_IGN) }
        // Whoever kills that process means this one.
        _ = WorkerThread("front") { [descriptor = self.descriptor] in
            while let held = descriptor.read({ $0 }) {
                guard LibxlStream(descriptor: held).hasHungUp(within: Limits.heartbeatTime), descriptor.read({ $0 }) != nil else { continue }
                if let ending {
                    tt_xen_let_go(held, stream, 0)
                    ending()
                }
                exit(1)
            }
        }
    }

    /// libxl goes on; this process does too, alone. Nothing is done the next time.
    /// - Parameters:
    ///   - keepsStream: it watches libxl's stream for its end.
    ///   - lastWord: said before.
    func letGo(keepsStream: Bool = false, after lastWord: () -> Void = {}) {
        let taken = descriptor.update { descriptor in
            defer { descriptor = nil }
            return descriptor
        }
        guard let taken else { return }
        lastWord()
        tt_xen_let_go(taken, keepsStream ? -1 : stream, 0)
    }
}

extension Front {
    /// The move is over, but xl's part of the standstill is not: taking the maps down, which keeps a slow host busy for a second,
    /// waits.
    static func rest() -> Never {
        Clock.sleep(Limits.xenRestTime)
        exit(0)
    }
}

/// Watches libxl's stream: when the other end's xl is gone, so is the move.
enum Watch {
    static func start(_ stream: LibxlStream, _ hungUp: @escaping @Sendable () -> Void) {
        _ = WorkerThread("tt-stream") {
            while !stream.hasHungUp(within: Limits.heartbeatTime) {}
            hungUp()
        }
    }
}

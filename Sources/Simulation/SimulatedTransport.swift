// The engine's transport over the simulated line: the same frames and messages as everywhere, and every one a step at which
// something may happen.

internal import Transport
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

/// Connects a process to the receiver of another host.
final class SimulatedSourceTransport: SourceTransport, @unchecked Sendable {
    private let process: SimulatedProcess
    private let target: SimulatedHost
    private var world: World { process.host.world }

    init(_ process: SimulatedProcess, to target: SimulatedHost) { (self.process, self.target) = (process, target) }

    func connectControl() throws(TurntableError) -> any ControlChannel {
        world.at(.connect, process.host)
        let connection = try world.line.connect(process, to: target)
        try connection.write(Preface(role: .control).encoded())
        let control = LoopbackControl(connection)
        do throws(TurntableError) { control.welcome(try Greeting.await(on: control)) } catch {
            control.shutDown()
            throw error
        }
        return WatchedControl(control, process)
    }

    func connectStream(_ index: Int, attachment: AttachmentID, pages: any PageSource) throws(TurntableError) -> any FrameSender {
        let connection = try world.line.connect(process, to: target)
        try connection.write(Preface(role: .data, stream: UInt16(index), attachment: attachment).encoded())
        let limits = TransportLimits(extents: world.plan.frameExtents)
        let roundTrip = world.plan.delay + world.plan.delay
        return WatchedSender(LoopbackSender(connection, pages: pages, roundTrip: roundTrip, rate: nil, limits: limits), process)
    }
}

/// Takes connections for a receiver's process.
final class SimulatedListener: TargetTransport, @unchecked Sendable {
    let process: SimulatedProcess
    private var greeted: [IncomingConnection] = []
    private let arrived = WaitQueue()
    private var world: World { process.host.world }

    init(_ process: SimulatedProcess) { self.process = process }

    /// A thread of its own reads what the connection is for, so that a silent one holds nobody up.
    func arrive(_ connection: Endpoint) {
        world.scheduler.add("greeting", process) { [self] in
            guard let incoming = identify(connection) else { return connection.shutDown() }
            greeted.append(incoming)
            world.scheduler.wake(arrived)
        }
    }

    private func identify(_ connection: Endpoint) -> IncomingConnection? {
        do {
            let preface = try Preface.decode(try connection.read(Preface.bytes, within: Limits.helloTime))
            switch preface.role {
            case .control:
                var chance = Chance()
                let control = LoopbackControl(connection, attachment: .random(using: &chance))
                let answer = Greeting.answer(to: preface, Welcome(attachment: control.attachment), protection: .none)
                try control.send(answer)
                guard case .welcome = answer else { return nil }
                return .control(WatchedControl(control, process), peer: "simulated")
            case .data: return .data(WatchedReceiver(connection, stream: Int(preface.stream), process), preface)
            }
        } catch {
            return nil
        }
    }

    func accept(within limit: Nanoseconds) throws(TurntableError) -> IncomingConnection? {
        let scheduler = world.scheduler
        scheduler.pass()
        let deadline = scheduler.time + limit
        while greeted.isEmpty {
            if scheduler.wait(arrived, until: deadline) { break }
        }
        return greeted.isEmpty ? nil : greeted.removeFirst()
    }
}

/// A control stream that the simulation listens to.
final class WatchedControl: ControlChannel, @unchecked Sendable {
    private let inner: LoopbackControl
    private let process: SimulatedProcess
    var attachment: AttachmentID { inner.attachment }
    var peerName: String { inner.peerName }
    var peerKey: [UInt8] { inner.peerKey }

    init(_ inner: LoopbackControl, _ process: SimulatedProcess) { (self.inner, self.process) = (inner, process) }

    func send(_ message: ControlMessage) throws(TurntableError) {
        let world = process.host.world
        let point = Point(message)
        if let point { world.at(point, process.host) }
        world.answers.note(message, by: process)
        try inner.send(message)
        if point != nil { world.at(.said, process.host) }
    }

    func receive(within limit: Nanoseconds) throws(TurntableError) -> ControlMessage? {
        let message = try inner.receive(within: limit)
        if let message, Point(message) != nil { process.host.world.at(.heard, process.host) }
        return message
    }

    func shutDown() { inner.shutDown() }
}

final class WatchedSender: FrameSender, @unchecked Sendable {
    private let inner: LoopbackSender
    private let process: SimulatedProcess
    init(_ inner: LoopbackSender, _ process: SimulatedProcess) { (self.inner, self.process) = (inner, process) }

    var limits: TransportLimits { inner.limits }
    func send(_ frame: FrameDraft) throws(TurntableError) {
        if frame.kind != .warmUp { process.host.world.at(.sendFrame, process.host) }
        try inner.send(frame)
    }
    func flush() throws(TurntableError) { inner.flush() }
    var status: LineStatus { inner.status }
    var summary: String { inner.summary }
    func shutDown() { inner.shutDown() }
}

final class WatchedReceiver: FrameReceiver, @unchecked Sendable {
    private let inner: LoopbackReceiver
    private let process: SimulatedProcess
    private let mutated: MutatedConnection?

    init(_ connection: Endpoint, stream: Int, _ process: SimulatedProcess) {
        let mutation = process.host.world.plan.mutation
        mutated = mutation == .countsEarly || mutation == .damagesPages ? MutatedConnection(connection) : nil
        inner = LoopbackReceiver(mutated ?? connection, stream: stream)
        self.process = process
    }

    func receive(into sink: any FrameSink) throws(TurntableError) -> FrameHeader? {
        let header = try inner.receive(into: mutated.map { MutatedSink(sink, $0) } ?? sink)
        if let header, header.kind != .warmUp { process.host.world.at(.receiveFrame, process.host) }
        return header
    }
    func shutDown() { inner.shutDown() }
}

/// For a mutation: says that it has read a page when its bytes are still on their way, or changes some.
private final class MutatedConnection: ByteConnection, @unchecked Sendable {
    private let inner: Endpoint
    private var owed: UnsafeMutableRawBufferPointer?
    /// Where a page goes that is read next.
    var page: UnsafeMutableRawPointer?
    private var world: World { inner.owner.host.world }
    init(_ inner: Endpoint) { self.inner = inner }

    private func settle() throws(TurntableError) {
        guard let buffer = owed else { return }
        owed = nil
        try inner.read(into: buffer, within: Limits.stallTime)
    }
    func write(_ buffer: UnsafeRawBufferPointer) throws(TurntableError) { try inner.write(buffer) }
    func read(into buffer: UnsafeMutableRawBufferPointer, within limit: Nanoseconds) throws(TurntableError) {
        try settle()
        let isPage = page == buffer.baseAddress
        if isPage, world.plan.mutation == .countsEarly {
            owed = buffer
        } else {
            try inner.read(into: buffer, within: limit)
            if isPage, world.plan.mutation == .damagesPages, world.chance.once(in: 8) { buffer[0] ^= 1 }
        }
    }
    func waitReadable(within limit: Nanoseconds) -> Bool {
        // It is read when the next frame begins.
        if (try? settle()) == nil { return true }
        return inner.waitReadable(within: limit)
    }
    var sent: (unread: Int, read: Int) { inner.sent }
    func shutDown() { inner.shutDown() }
}

private final class MutatedSink: FrameSink, @unchecked Sendable {
    private let inner: any FrameSink
    private let connection: MutatedConnection
    init(_ inner: any FrameSink, _ connection: MutatedConnection) { (self.inner, self.connection) = (inner, connection) }

    var layout: MemoryLayoutTable { inner.layout }
    func destination(of extent: Extent) throws(TurntableError) -> UnsafeMutableRawPointer {
        let destination = try inner.destination(of: extent)
        connection.page = destination
        return destination
    }
    func zero(_ extent: Extent) throws(TurntableError) { try inner.zero(extent) }
    func deviceStateDestination(offset: Int, count: Int) throws(TurntableError) -> UnsafeMutableRawPointer {
        try inner.deviceStateDestination(offset: offset, count: count)
    }
}

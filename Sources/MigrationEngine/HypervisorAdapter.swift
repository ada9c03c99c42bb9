// The contract that a hypervisor fulfils. The engine moves the bytes and decides the moment; the hypervisor freezes the
// machine, saves what is not memory, and starts it again. Calls block and end within Limits.hypervisorTime.

public import TurntableCore
public import TurntableLinux
public import WireFormat

/// What saving and loading the device state costs, as far as is known before it happens.
public struct DeviceCost: Sendable, Codable, Equatable {
    public var bytes: ByteCount
    public var save: Nanoseconds
    public var load: Nanoseconds
    public init(bytes: ByteCount, save: Nanoseconds, load: Nanoseconds) {
        self.bytes = bytes
        self.save = save
        self.load = load
    }
}

/// A running machine that can be sent.
public protocol SourceMachine: AnyObject, Sendable {
    var name: String { get }
    /// The right to run that this machine runs under.
    var epoch: Epoch { get }
    /// What the target's host needs to know to make the same machine; opaque to the engine.
    var description: [UInt8] { get }
    var pages: any PageSource { get }
    var deviceCost: DeviceCost { get }
    /// Disks that come along.
    var disks: [any BlockSource] { get }
    /// True if something of it is carried beside the migration, and ``pause()`` and ``saveDeviceState()`` wait for that: the budget is for the rest.
    var isCarriedBeside: Bool { get }
    /// False if it is paused, which it then stays at the target.
    var isRunning: Bool { get }

    /// What a migration of this machine must not forget when its process dies: zeroes, or what an earlier process left.
    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory
    /// As ``sessionMemory(bytes:)``, for what is not to be forgotten of ``disks``.
    func diskMemory(bytes: Int) throws(TurntableError) -> SharedMemory
    /// The migration is over: nothing of it is kept.
    func forgetSession()
    /// An earlier process of this migration was killed, perhaps while it held the machine still: from now on ``isRunning`` is
    /// `wasRunning`, and ``resume()`` lets the machine run if it is not running.
    func takeUp(wasRunning: Bool) throws(TurntableError)

    /// Begins to log writes: everything written from now on is in the log. `streams` threads will drain it.
    /// - Parameter isContinued: marks made since an earlier process of this migration began to log are kept, if they can be:
    ///   ``DirtyLog/isContinued`` tells.
    func startDirtyLog(streams: Int, isContinued: Bool) throws(TurntableError) -> any DirtyLog
    /// Asked when the machine could be paused: false as long as it is to run on, for something that is done beside the migration. What it writes
    /// meanwhile goes in a round of its own.
    func mayPause() -> Bool
    /// Returns when no processor of the machine runs and no device writes its memory.
    func pause() throws(TurntableError)
    /// Saves everything that is not memory of ``pages``, at most ``Limits/deviceStateBytes``. Only while paused. Again without
    /// a ``resume()`` in between, be it by another process of this migration, it gives the same.
    func saveDeviceState() throws(TurntableError) -> [UInt8]
    /// The target gave the right to run back: the machine runs here under `epoch` from now on. Before ``resume()``.
    func reclaim(_ epoch: Epoch) throws(TurntableError)
    /// Lets a paused machine run on here: the migration was given up before the hand-off.
    func resume() throws(TurntableError)
    /// Ends the machine here: it runs at the target.
    func discard()
    /// Throws if the machine is gone.
    func checkAlive() throws(TurntableError)
}

/// A machine that is prepared and waits for its memory and device state.
public protocol TargetMachine: AnyObject, Sendable {
    var pages: any PageSink { get }
    /// Those of the offer, in its order.
    var disks: [any BlockSink] { get }
    /// What each region of memory and then each disk reads as before anything of this session arrived.
    var contents: [TargetContent] { get }
    /// False if it was paused at the source: then ``resume()`` makes it ready and leaves it so.
    var isRunning: Bool { get }
    /// False while its host still prepares what the machine needs beside memory and state: the source lets it run until then, if that does
    /// not take too long. Asked each ``Limits/pollTime``.
    var isReady: Bool { get }
    /// An earlier process of this receiver loaded the device state: the machine is ready to run, and may have been said to be.
    var hasDeviceState: Bool { get }
    /// What a migration to here must not forget when its process dies: zeroes, or what an earlier process of the receiver left.
    func sessionMemory(bytes: Int) throws(TurntableError) -> SharedMemory
    /// The migration is over: nothing of it is kept.
    func forgetSession()
    /// Takes the device state, all memory being in place; the machine is then ready to run, and no longer ends by itself when
    /// its receiver does. Nothing is done if it ``hasDeviceState``.
    func loadDeviceState(_ state: UnsafeRawBufferPointer) throws(TurntableError)
    /// Lets the machine run. It depends on its receiver no more. Again, for a machine that runs, it does no harm.
    func resume() throws(TurntableError)
    /// Ends the machine and removes what was made for it.
    func discard()
    /// Throws if the machine's hypervisor is gone.
    func checkAlive() throws(TurntableError)
}

extension SourceMachine {
    public var isRunning: Bool { true }
    public var isCarriedBeside: Bool { false }
    public func mayPause() -> Bool { true }
    public var disks: [any BlockSource] { [] }
    public func diskMemory(bytes: Int) throws(TurntableError) -> SharedMemory { preconditionFailure("a machine without disks needs none") }
}

extension TargetMachine {
    public var disks: [any BlockSink] { [] }
    public var contents: [TargetContent] {
        pages.regions.map { _ in .zero } + disks.map { $0.isZeroed ? .zero : $0.isUnfinishedCopy ? .older : .unknown }
    }
    public var isRunning: Bool { true }
    public var isReady: Bool { true }
    public var hasDeviceState: Bool { false }
}

/// Makes machines at a target.
public protocol TargetHost: AnyObject, Sendable {
    /// Checks the offer against what the operator allows and makes the machine: its memory, its disks and its stopped hypervisor.
    /// - Parameter resumeWindow: how long it waits for another process of this receiver when this one dies, before it is ended.
    func prepare(_ offer: Offer, resumeWindow: Nanoseconds) throws(TurntableError) -> any TargetMachine
    /// The machine that an earlier process of this receiver prepared for this offer's session, and that still waits. Nil if
    /// there is none. Throws if another living process receives it.
    func find(_ offer: Offer) throws(TurntableError) -> (any TargetMachine)?
    /// Whether ``find(_:)`` would find one of that name for that session.
    func isWaiting(_ machine: String, _ session: SessionID) -> Bool
}

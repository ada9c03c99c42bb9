internal import Foundation
internal import Glibc
internal import MigrationEngine
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

@testable import Hypervisors

/// Real machines whose sender or receiver dies: to the kernel, and to QEMU, a process that is killed is one whose descriptors
/// are closed, which is what happens here when an object goes.
@Suite(.serialized, .enabled(if: MachineStand.isPossible, "needs QEMU and the built programs"))
struct InterruptedMachineTests {
    private let stand = MachineStand()

    // MARK: - The source

    @Test func oneProcessMovesAMachine() throws {
        let process = try stand.start("m")
        defer { stand.end(process) }
        do {
            let first = try stand.source("m")
            let error = failure { () throws(TurntableError) in try stand.source("m") }
            #expect(error?.kind == .refused)
            #expect(error?.why == "it is being moved already")
            #expect(first.isRunning)
        }
        #expect(throws: Never.self) { try stand.source("m") }
    }

    @Test func theNextSenderTakesUpAPausedMachine() throws {
        let process = try stand.start("m")
        defer { stand.end(process) }
        let record = try stand.directory.read("m")
        #expect(!stand.directory.isInterrupted(record))
        do {
            let first = try stand.source("m")
            stand.write(0x51, to: try first.sessionMemory(bytes: 4096))
            #expect(!stand.directory.isInterrupted(record))
            try first.pause()
        }
        #expect(stand.directory.isInterrupted(record))
        let second = try stand.source("m")
        #expect(stand.word(of: try second.sessionMemory(bytes: 4096)) == 0x51)
        #expect(!second.isRunning)
        try second.takeUp(wasRunning: true)
        #expect(second.isRunning)
        #expect(try QEMUDescription(decoding: second.description).isRunning)
        try second.pause()
        #expect(try stand.status(of: second) == "paused")
        try second.resume()
        #expect(try stand.status(of: second) == "running")
        second.forgetSession()
        #expect(!stand.directory.isInterrupted(record))
    }

    @Test func deviceStateOutlivesItsSender() throws {
        let process = try stand.start("m")
        defer { stand.end(process) }
        var saved: [UInt8] = []
        do {
            let first = try stand.source("m")
            _ = try first.sessionMemory(bytes: 4096)
            try first.pause()
            saved = try first.saveDeviceState()
            #expect(saved.count > 10_000)
        }
        do {
            let second = try stand.source("m")
            try second.takeUp(wasRunning: true)
            #expect(try stand.status(of: second) == "postmigrate")
            try second.pause()
            #expect(try second.saveDeviceState() == saved)
            // Given back: it runs, and later all of it happens again.
            try second.reclaim(Epoch(9))
            try second.resume()
            #expect(try stand.status(of: second) == "running")
            try second.pause()
            #expect(try second.saveDeviceState().count > 10_000)
            second.forgetSession()
        }
        #expect(try stand.directory.read("m").epoch == Epoch(9))
        // Nothing of it is kept, and QEMU does not save twice.
        let error = failure { () throws(TurntableError) in try stand.source("m") }
        #expect(error?.why.contains("postmigrate") == true)
    }

    @Test func marksOutliveTheirReader() throws {
        let process = try stand.start("m")
        defer { stand.end(process) }
        let all = PageCount(MachineStand.memoryBytes / pageBytes)
        let marks = PageBitmap(pages: all)
        do {
            let first = try stand.source("m")
            let log = try first.startDirtyLog(streams: 1, isContinued: false)
            #expect(!log.isContinued)
            try #require(log.summary == "pagemap-scan", "only this one can")
            Clock.sleep(.milliseconds(300))
        }
        do {
            let second = try stand.source("m")
            let log = try second.startDirtyLog(streams: 1, isContinued: true)
            #expect(log.isContinued)
            try second.pause()
            try log.drain(into: [marks])
            #expect(marks.nextRun(from: 0, to: all.value) != nil, "what the firmware wrote meanwhile")
            // Stopped, and drained.
            let rest = PageBitmap(pages: all)
            try log.drain(into: [rest])
            #expect(rest.nextRun(from: 0, to: all.value) == nil)
            try second.resume()
        }
    }

    // MARK: - The target

    @Test func theNextReceiverFindsTheMachine() throws {
        let host = stand.host()
        let offer = stand.offer("t")
        #expect(try host.find(offer) == nil)
        do {
            let first = try host.prepare(offer, resumeWindow: .seconds(20))
            first.pages.address(of: PageIndex(77), in: RegionIndex(0)).storeBytes(of: 0xabcd, as: UInt64.self)
            stand.write(0x77, to: try first.sessionMemory(bytes: 8192))
            let error = failure { () throws(TurntableError) in try host.find(offer) }
            #expect(error?.kind == .refused, "its receiver lives")
        }
        #expect(stand.directory.isInterrupted(try stand.directory.read("t")))
        #expect(try host.find(stand.offer("t")) == nil, "another session")
        let second = try #require(try host.find(offer))
        #expect(!second.hasDeviceState)
        #expect(second.pages.address(of: PageIndex(77), in: RegionIndex(0)).load(as: UInt64.self) == 0xabcd)
        #expect(stand.word(of: try second.sessionMemory(bytes: 8192)) == 0x77)
        second.discard()
        #expect(stand.isEmpty)
        #expect(try host.find(offer) == nil)
    }

    @Test func aLaterAttemptEndsWhatWaits() throws {
        let host = stand.host()
        _ = try host.prepare(stand.offer("t", epoch: 5), resumeWindow: .seconds(20))
        let process = try stand.directory.read("t").process
        let error = failure { () throws(TurntableError) in try host.prepare(stand.offer("t", epoch: 4), resumeWindow: .seconds(20)) }
        #expect(error?.why.contains("a machine of that name") == true)
        let next = try host.prepare(stand.offer("t", epoch: 5), resumeWindow: .seconds(20))
        #expect(try stand.directory.read("t").process != process)
        next.discard()
        #expect(stand.isEmpty)
    }

    /// Nobody ends it, but the next receiver has it, and leaves nothing of it.
    @Test func aMachineWhoseKeeperWasKilledIsFound() throws {
        let host = stand.host()
        let offer = stand.offer("t")
        _ = try host.prepare(offer, resumeWindow: .milliseconds(200))
        let process = try stand.directory.read("t").process
        try Signals.send(SIGKILL, to: #require(stand.parent(of: process)))
        Clock.sleep(.milliseconds(500))
        let machine = try #require(try host.find(offer))
        try machine.checkAlive()
        machine.discard()
        #expect(stand.isEmpty)
    }

    @Test func aControllersMachineIsFound() throws {
        let process = try stand.start("named-otherwise", ["--incoming"])
        defer { stand.end(process) }
        let monitor = stand.directory.monitor(of: "named-otherwise")
        let host = QEMUHost(.monitor(monitor), directory: RunDirectory("/nowhere"), disks: MachineStand.noDisks, turntable: "")
        let offer = stand.offer("t")
        do {
            let first = try host.prepare(offer, resumeWindow: .zero)
            stand.write(0x42, to: try first.sessionMemory(bytes: 4096))
            #expect(failure { () throws(TurntableError) in try host.find(offer) }?.kind == .refused)
        }
        let error = failure { () throws(TurntableError) in try host.prepare(stand.offer("t"), resumeWindow: .zero) }
        #expect(error?.why.contains("another migration") == true)
        let second = try #require(try host.find(offer))
        #expect(stand.word(of: try second.sessionMemory(bytes: 4096)) == 0x42)
        second.discard()
    }

    @Test func aMachineWithoutReceiverEndsAfterTheWindow() throws {
        let host = stand.host()
        let offer = stand.offer("t")
        _ = try host.prepare(offer, resumeWindow: .milliseconds(400))
        #expect(try stand.directory.read("t").isAlive)
        #expect(stand.waitUntilEmpty(within: .seconds(10)))
        #expect(try host.find(offer) == nil)
    }

    @Test func aCompleteMachineIsNotEnded() throws {
        let process = try stand.start("m")
        defer { stand.end(process) }
        let host = stand.host()
        let offer = stand.offer("t")
        do {
            let source = try stand.source("m")
            try source.pause()
            let state = try source.saveDeviceState()
            let target = try host.prepare(offer, resumeWindow: .milliseconds(200))
            let from = source.pages.address(of: PageIndex(0), in: RegionIndex(0))
            target.pages.address(of: PageIndex(0), in: RegionIndex(0)).copyMemory(from: from, byteCount: MachineStand.memoryBytes)
            _ = try target.sessionMemory(bytes: 4096)
            try state.withUnsafeBytes { try target.loadDeviceState($0) }
        }
        // It was to be resumed; perhaps it was said to be.
        Clock.sleep(.milliseconds(800))
        let target = try #require(try host.find(offer))
        #expect(target.hasDeviceState)
        try target.loadDeviceState(UnsafeRawBufferPointer(start: nil, count: 0))
        try target.resume()
        try target.resume()
        target.forgetSession()
        let record = try stand.directory.read("t")
        #expect(!record.isIncoming && record.session == nil && record.epoch == offer.epoch)
        #expect(try host.find(offer) == nil)
        // Like any other, it can be sent on while its receiver is still there.
        let again = try QEMUSourceMachine("t", in: stand.directory)
        #expect(again.isRunning)
        target.discard()
        #expect(try stand.status(of: again) == "running")
        again.discard()
    }
}

internal import Foundation
internal import MigrationEngine
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat
@testable internal import XenMove

struct OwnerTests {
    @Test func theHelperHearsOfTheDevicesAndTheOwnerThatItRuns() throws {
        let place = try Place()
        let door = try OwnerDoor(path: "\(place.path)/owner")
        let owner = try Owner(path: door.path)
        let isRunning = Background { () throws(TurntableError) in try door.awaitRun() }
        try owner.awaitDevices()
        #expect(owner.itRunsNow())
        #expect(try isRunning.value())
    }

    @Test func aHelperThatEndsIsSeen() throws {
        let place = try Place()
        let door = try OwnerDoor(path: "\(place.path)/owner")
        do { _ = try Owner(path: door.path) }
        #expect(try door.awaitRun() == false)
    }

    @Test func anOwnerThatEndsIsSeen() throws {
        let place = try Place()
        var door: OwnerDoor? = try OwnerDoor(path: "\(place.path)/owner")
        let owner = try Owner(path: door!.path)
        door = nil
        #expect(throws: TurntableError.self) { try owner.awaitDevices() }
        #expect(!owner.itRunsNow())
    }
}

struct MoveLockTests {
    @Test func oneHoldsItAtATime() throws {
        let place = try Place()
        do {
            let held = try MoveLock(of: "web", in: place.path, within: .zero)
            let error = #expect(throws: TurntableError.self) { _ = try MoveLock(of: "web", in: place.path, within: .milliseconds(1)) }
            #expect(error?.kind == .refused)
            _ = try MoveLock(of: "db", in: place.path, within: .zero)
            _ = held.descriptor
        }
        _ = try MoveLock(of: "web", in: place.path, within: .zero)
    }

    /// Whoever was started with it holds it on.
    @Test func itOutlivesItsProcess() throws {
        let place = try Place()
        let (ours, theirs) = try Socket.pair()
        let mine = Descriptor(owning: ours)
        let child: ChildProcess
        do {
            let held = try MoveLock(of: "web", in: place.path, within: .zero)
            let channel = Descriptor(owning: theirs)
            child = try ChildProcess(["cat"], inherited: [held.descriptor], channel: channel.rawValue)
        }
        #expect(throws: TurntableError.self) { _ = try MoveLock(of: "web", in: place.path, within: .milliseconds(1)) }
        Socket.shutDown(mine)
        #expect(child.wait() == 0)
        _ = try MoveLock(of: "web", in: place.path, within: .seconds(30))
    }
}

struct ReportTests {
    private static let error = TurntableError(.refused, "the pause", "it would take 2 s, and may take 1 s", remedy: "raise --downtime")

    @Test func whatTheHelperTellsIsHeardInOrder() throws {
        let place = try Place()
        let heard = Monitor([String]())
        let door = try ReportDoor(path: "\(place.path)/reports") { event in
            if case .note(let text) = event { heard.update { $0.append(text) } }
        }
        let line = try ReportLine(path: door.path)
        for number in 0..<100 { line.say(.event(.note("\(number)"))) }
        line.say(.failed(Self.error))
        line.close()
        #expect(door.lastWord(within: .seconds(30)) == .failure(Self.error))
        #expect(heard.read { $0 } == (0..<100).map { "\($0)" })
    }

    @Test func aReaderThatDoesNotReadHoldsNothingUp() throws {
        let place = try Place()
        let listener = try Socket.listenUnix("\(place.path)/reports")
        let line = try ReportLine(path: "\(place.path)/reports")
        let long = String(repeating: "x", count: 4096)
        for _ in 0..<4 * Limits.heldReports { line.say(.event(.note(long))) }
        line.close()
        _ = listener.rawValue
    }

    @Test func aHelperThatNeverCameSaidNothing() throws {
        let place = try Place()
        let door = try ReportDoor(path: "\(place.path)/reports") { _ in }
        #expect(door.lastWord(within: .seconds(30)) == nil)
    }

    @Test(arguments: ["nonsense\n", "{}\n", "\n"]) func whoTalksNonsenseIsHeardNoMore(_ words: String) throws {
        let place = try Place()
        let door = try ReportDoor(path: "\(place.path)/reports") { _ in Issue.record("heard") }
        let stranger = try Socket.connectUnix(door.path)
        try Socket.write(stranger, Array(words.utf8), what: "talking nonsense")
        #expect(door.lastWord(within: .seconds(30)) == nil)
    }
}

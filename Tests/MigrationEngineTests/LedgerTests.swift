internal import Testing
internal import TurntableCore
internal import TurntableLinux
internal import WireFormat

@testable import MigrationEngine

/// What a source remembers of what the target has.
struct LedgerTests {
    private static let regions = [MemoryRegion(name: "r", pages: PageCount(600))]
    private let ledger: SendLedger

    init() throws {
        ledger = SendLedger(try SharedMemory(bytes: LedgerMemory.bytes(Self.regions)), regions: Self.regions)
        ledger.begin(SessionID(high: 1, low: 2), Epoch(3), streams: 1, wasRunning: true)
        ledger.restart { _, body in body(0..<40) }
    }

    /// Sends the pages in a frame of their own.
    private func send(_ pages: Range<Int>) {
        let extent = Extent(
            region: RegionIndex(0), firstPage: PageIndex(pages.lowerBound), pageCount: PageCount(pages.count), encoding: .raw)
        ledger.held[0].insert(pages)
        ledger.note(extent, in: ledger.started(0), on: 0)
        ledger.willSend(on: 0)
        ledger.pending[0].remove(pages)
    }

    @Test func whatIsOnItsWayIsSentAgain() throws {
        send(0..<10)
        send(10..<40)
        #expect(try ledger.rewind(to: [1]).value == 30)
        #expect(ledger.pending[0].count == 30 && ledger.started(0) == 1)
    }

    /// It took the first frame, and then lost it with its process: what was in it is remembered nowhere but in memory itself.
    /// Found by the simulation: an Offered that said so was lost, and the next one only counted no frames.
    @Test func aTargetThatLostWhatItHadGetsEverything() throws {
        send(0..<10)
        send(10..<40)
        #expect(!ledger.isBehind([1]))
        _ = try ledger.rewind(to: [1])
        send(10..<40)
        #expect(!ledger.isBehind([1]) && !ledger.isBehind([2]))
        #expect(ledger.isBehind([0]))
        // One page has become zero meanwhile: it may not be there.
        ledger.repeatAll { _, body in body(0..<39) }
        _ = try ledger.rewind(to: [0])
        #expect(ledger.pending[0].count(in: 0..<40) == 40 && ledger.started(0) == 0 && !ledger.isBehind([0]))
    }

    /// A heartbeat's count lets the ring forget as well.
    @Test func whatAHeartbeatConfirmedAndTheRingForgotIsMissed() {
        for page in 0...LedgerMemory.ringEntries {
            if page == LedgerMemory.ringEntries { ledger.confirm([UInt64(page)]) }
            send(page % 40..<page % 40 + 1)
        }
        #expect(ledger.isBehind([5]))
        #expect(!ledger.isBehind([UInt64(LedgerMemory.ringEntries)]))
    }

    /// A sender without a dirty log that outlives it sends everything, and goes on counting.
    @Test func everythingIsSentAgainOverWhatIsThere() throws {
        send(0..<40)
        ledger.repeatAll { _, body in body(0..<40) }
        _ = try ledger.rewind(to: [1])
        #expect(ledger.pending[0].count == 40 && ledger.started(0) == 1)
    }
}

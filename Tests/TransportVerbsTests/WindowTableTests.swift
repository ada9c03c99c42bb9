internal import TestSupport
internal import Testing
@testable internal import TransportVerbs
internal import TurntableCore
internal import WireFormat

/// #expect wants calls that change nothing outside of an object.
private final class Table {
    private var table: WindowTable
    init(stripes: [Int], capacity: Int) { table = WindowTable(stripes: stripes, capacity: capacity) }
    var requests: [WindowRequest] { table.requests }
    func isOpen(_ stripe: Int, in region: Int, taken: UInt64) -> Bool { table.isOpen(stripe, in: region, taken: taken) }
    func touch(_ stripe: Int, in region: Int, by frame: UInt64) { table.touch(stripe, in: region, by: frame) }
    func clearRequests() { table.clearRequests() }
    func take(_ grant: Grant) -> Bool { table.take(grant) }
    func want(
        _ stripe: Int, in region: Int, by frame: UInt64, isFree: (UInt64) -> Bool = { _ in true }, evicted: (Int) -> Void = { _ in }
    ) -> Bool { table.want(stripe, in: region, by: frame, isFree: isFree, evicted: evicted) }
}

/// Which stripes a source may write by itself, and when.
struct WindowTableTests {
    private func grant(_ stripe: Int, _ isGranted: Bool = true) -> Grant {
        Grant(region: 0, stripe: stripe, isGranted: isGranted, address: UInt64(stripe) << 20, key: UInt32(stripe))
    }

    @Test func aStripeIsOpenWhenItIsGrantedAndNobodyElseWritesIt() {
        let table = Table(stripes: [8], capacity: 4)
        table.touch(3, in: 0, by: 5)
        #expect(table.want(3, in: 0, by: 6))
        #expect(!table.isOpen(3, in: 0, taken: 9))
        #expect(table.take(grant(3)))
        // Frame 5, which the target's processor writes, is taken when six frames are.
        #expect(!table.isOpen(3, in: 0, taken: 5) && table.isOpen(3, in: 0, taken: 6))
        #expect(!table.isOpen(4, in: 0, taken: 9))
    }

    @Test func aDenialIsRememberedUntilItMakesRoom() {
        let table = Table(stripes: [8], capacity: 1)
        #expect(table.want(0, in: 0, by: 0))
        #expect(table.take(grant(0, false)))
        table.clearRequests()
        #expect(table.want(0, in: 0, by: 1) && table.requests.isEmpty)
        #expect(!table.isOpen(0, in: 0, taken: 9))
        #expect(table.want(1, in: 0, by: 2))
        // There was nothing to give back.
        #expect(table.requests == [WindowRequest(region: 0, stripe: 1, isWanted: true)])
    }

    @Test func answersThatNobodyAskedForAreNoAnswers() {
        let table = Table(stripes: [8, 2], capacity: 4)
        #expect(!table.take(grant(1)))
        _ = table.want(1, in: 0, by: 0)
        #expect(table.take(grant(1)) && !table.take(grant(1)))
        #expect(!table.take(Grant(region: 2, stripe: 0, isGranted: true)) && !table.take(Grant(region: 1, stripe: 2, isGranted: true)))
    }

    @Test func whatIsUnderWayMakesNoRoom() {
        let table = Table(stripes: [8], capacity: 2)
        _ = table.want(0, in: 0, by: 0)
        _ = table.want(1, in: 0, by: 1)
        // Asked for: the answer may be on its way.
        #expect(!table.want(2, in: 0, by: 9))
        _ = (table.take(grant(0)), table.take(grant(1)))
        #expect(!table.want(2, in: 0, by: 9, isFree: { $0 > 1 }))
        table.clearRequests()
        var gone: [Int] = []
        #expect(table.want(2, in: 0, by: 9, isFree: { $0 < 2 }, evicted: { gone.append($0) }))
        #expect(gone == [0])
        #expect(table.requests == [WindowRequest(region: 0, stripe: 0, isWanted: false), WindowRequest(region: 0, stripe: 2, isWanted: true)])
    }

    @Test func aFrameAsksForNoMoreThanItCanCarry() {
        let table = Table(stripes: [100], capacity: 100)
        let asked = (0..<100).prefix { table.want($0, in: 0, by: 0) }
        #expect(asked.count == Limits.grantsPerFrame - 1 && table.requests.count <= Limits.grantsPerFrame)
    }

    /// Against a plain model: what the table says is open is granted at the target, whatever is asked, answered and given back.
    @Test(arguments: UInt64(1)...8)
    func whatIsOpenIsGrantedAtTheTarget(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let table = Table(stripes: [24], capacity: 6)
        var atTarget: Set<Int> = []
        var onTheirWay: [Grant] = []
        for frame in 0..<UInt64(600) {
            for _ in 0..<3 {
                _ = table.want(Int.random(in: 0..<24, using: &generator), in: 0, by: frame, isFree: { $0 + 4 < frame })
            }
            // The frame is taken: the target does what it asks for, in order.
            for request in table.requests {
                if request.isWanted {
                    let isGranted = Int.random(in: 0..<5, using: &generator) > 0 && atTarget.count < 6
                    if isGranted { atTarget.insert(request.stripe) }
                    onTheirWay.append(grant(request.stripe, isGranted))
                } else {
                    #expect(atTarget.remove(request.stripe) != nil, "seed \(seed): it gives back what it has not")
                }
            }
            table.clearRequests()
            while let answer = onTheirWay.first, Bool.random(using: &generator) {
                #expect(table.take(answer), "seed \(seed)")
                onTheirWay.removeFirst()
            }
            for stripe in 0..<24 where table.isOpen(stripe, in: 0, taken: frame) {
                #expect(atTarget.contains(stripe), "seed \(seed), frame \(frame), stripe \(stripe)")
            }
        }
        #expect(!atTarget.isEmpty)
    }
}

internal import Testing
@testable internal import TransportVerbs
internal import TurntableCore

struct BudgetTests {
    @Test func noMoreIsTakenThanThereIs() {
        let budget = PinBudget(limit: .kibi(8))
        #expect(budget.take(4096) && budget.take(4096) && !budget.take(1))
        budget.give(4096)
        #expect(budget.take(4096) && !budget.take(4096))
        #expect(budget.peak == .kibi(8) && budget.pinned == .kibi(8))
    }
}

import GeventLoop
import GeventTesting
import Testing

@Suite("The conformance kit")
struct ConformanceKitTests {
    @Test("Every line of the contract has a check, and names are unique")
    func coverage() {
        #expect(Set(LoopConformance.checks.map(\.contractLine)) == Set(1...9))
        #expect(Set(LoopConformance.checks.map(\.name)).count == LoopConformance.checks.count)
    }

    @Test("The virtual loop meets the contract", arguments: LoopConformance.checks)
    func virtual(check: LoopConformance.Check) {
        let result = LoopConformance(name: "virtual") { try VirtualLoop() }.run(check)
        #expect(result.failure == nil)
    }

    @Test("The virtual loop in a CheckedLoop meets the contract", arguments: LoopConformance.checks)
    func virtualChecked(check: LoopConformance.Check) {
        let result = LoopConformance(name: "virtual, checked") {
            CheckedLoop(try VirtualLoop(), log: { _ in })
        }.run(check)
        #expect(result.failure == nil)
    }
}

import GeventEpoll
import GeventLoop
import GeventTesting
import Testing

/// The two ways in which an epoll loop waits, each with and without a `CheckedLoop`.
enum EpollVariant: String, CaseIterable, CustomTestStringConvertible {
    case nanoseconds, milliseconds, nanosecondsChecked, millisecondsChecked

    var testDescription: String { rawValue }

    var conformance: LoopConformance {
        LoopConformance(name: "epoll, \(rawValue)") {
            switch self {
            case .nanoseconds: try EpollLoop()
            case .milliseconds: try EpollLoop(allowingNanoseconds: false)
            case .nanosecondsChecked: CheckedLoop(try EpollLoop(), log: { _ in })
            case .millisecondsChecked: CheckedLoop(try EpollLoop(allowingNanoseconds: false), log: { _ in })
            }
        }
    }
}

@Suite("The epoll loop meets the contract")
struct EpollConformanceTests {
    @Test("Conformance check", arguments: EpollVariant.allCases, LoopConformance.checks)
    func conformance(variant: EpollVariant, check: LoopConformance.Check) {
        let result = variant.conformance.run(check)
        #expect(result.failure == nil)
    }
}

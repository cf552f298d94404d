import CLibev
import GeventLibev
import GeventLoop
import GeventTesting
import TestSupport
import Testing

/// The kinds of libev loops, some also in a `CheckedLoop`.
enum LibevVariant: String, CaseIterable, CustomTestStringConvertible {
    case own, adopted, ownChecked, adoptedChecked, poll, select, linuxaio

    var testDescription: String { rawValue }

    var conformance: LoopConformance {
        LoopConformance(name: "libev, \(rawValue)") {
            switch self {
            case .own: try LibevLoop()
            case .adopted: try hostedLoop()
            case .ownChecked: CheckedLoop(try LibevLoop(), log: { _ in })
            case .adoptedChecked: CheckedLoop(try hostedLoop(), log: { _ in })
            case .poll: try LibevLoop(backends: [.poll])
            case .select: try LibevLoop(backends: [.select])
            // libev's experimental backend, with epoll where the kernel refuses it.
            case .linuxaio: try LibevLoop(backends: [.linuxaio, .epoll])
            }
        }
    }
}

/// Creates a loop on an adopted C loop, which is destroyed after the loop was closed.
private func hostedLoop() throws -> HostedLoop<LibevLoop> {
    let host = try #require(ev_loop_new(0))
    let loop = try LibevLoop(adopting: host)
    return HostedLoop(loop) { ev_loop_destroy(host) }
}

@Suite("The loop on libev meets the contract")
struct LibevConformanceTests {
    @Test("Conformance check", arguments: LibevVariant.allCases, LoopConformance.checks)
    func conformance(variant: LibevVariant, check: LoopConformance.Check) {
        let result = variant.conformance.run(check)
        #expect(result.failure == nil)
    }
}

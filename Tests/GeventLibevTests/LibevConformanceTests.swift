import CLibev
import GeventLibev
import GeventLoop
import GeventTesting
import TestSupport
import Testing

/// The loops that libev can be, each as it is and checked.
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
            // An experiment of libev's, which falls back to epoll where the kernel refuses it.
            case .linuxaio: try LibevLoop(backends: [.linuxaio, .epoll])
            }
        }
    }
}

/// A loop on a C loop that has something of its own to wait for.
private func hostedLoop() throws -> HostedLoop<LibevLoop> {
    let host = try #require(ev_loop_new(0))
    let loop = try LibevLoop(adopting: host)
    return HostedLoop(loop) { ev_loop_destroy(host) }
}

@Suite("The loop on libev keeps the contract")
struct LibevConformanceTests {
    @Test("for", arguments: LibevVariant.allCases, LoopConformance.checks)
    func conformance(variant: LibevVariant, check: LoopConformance.Check) {
        let result = variant.conformance.run(check)
        #expect(result.failure == nil)
    }
}

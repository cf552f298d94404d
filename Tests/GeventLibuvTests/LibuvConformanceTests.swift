import CLibuv
import GeventLibuv
import GeventLoop
import GeventTesting
import TestSupport
import Testing

/// The kinds of libuv loops, each with and without a `CheckedLoop`.
enum LibuvVariant: String, CaseIterable, CustomTestStringConvertible {
    case own, adopted, ownChecked, adoptedChecked

    var testDescription: String { rawValue }

    var conformance: LoopConformance {
        LoopConformance(name: "libuv, \(rawValue)") {
            switch self {
            case .own: try LibuvLoop()
            case .adopted: try hostedLoop()
            case .ownChecked: CheckedLoop(try LibuvLoop(), log: { _ in })
            case .adoptedChecked: CheckedLoop(try hostedLoop(), log: { _ in })
            }
        }
    }
}

/// Creates a loop on an adopted C loop, which is closed as libuv requires: with one more run for the handles.
private func hostedLoop() throws -> HostedLoop<LibuvLoop> {
    let host = UnsafeMutablePointer<uv_loop_t>.allocate(capacity: 1)
    try #require(uv_loop_init(host) == 0)
    let loop = try LibuvLoop(adopting: host)
    return HostedLoop(loop) {
        uv_run(host, UV_RUN_DEFAULT)
        precondition(uv_loop_close(host) == 0, "our handles remain on the adopted loop")
        host.deallocate()
    }
}

@Suite("The loop on libuv meets the contract")
struct LibuvConformanceTests {
    @Test("Conformance check", arguments: LibuvVariant.allCases, LoopConformance.checks)
    func conformance(variant: LibuvVariant, check: LoopConformance.Check) {
        let result = variant.conformance.run(check)
        #expect(result.failure == nil)
    }
}

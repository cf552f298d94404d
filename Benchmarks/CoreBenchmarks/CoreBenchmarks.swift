import Benchmark
import BenchmarkCases
import Gevent
import GeventTesting
import Glibc

// Runs every case of the table, each run on a fresh thread with a hub of its own on the loop that GEVENT_LOOP chooses;
// the ones that the loop takes part in on every loop that is linked, unless GEVENT_LOOP names one.
//
// The unit is one run of so many operations: the plugin divides nothing, so the name says by what to divide. What a
// case says of memory is in a name too: the plugin has no metric for it that would not count the process' other cases.
let benchmarks: @Sendable () -> Void = {
    for one in allCases where one.figure != .memory {
        for loop in one.reachesLoop ? loops : [nil] { declare(one, on: loop) }
    }
}

/// Nil stands for what GEVENT_LOOP chooses.
private let loops: [String?] =
    getenv("GEVENT_LOOP").map { $0.pointee != 0 } == true ? [nil] : LoopBackend.linked.map(\.name)

private func declare(_ one: Case, on loop: String?) {
    let name = one.title + (loop.map { ", \($0)" } ?? "") + " (\(one.operations) operations)"
    let configuration = Benchmark.Configuration(
        metrics: [.wallClock, .cpuTotal], warmupIterations: 1, maxDuration: .seconds(3), maxIterations: 20)
    Benchmark(name, configuration: configuration) { benchmark in
        // The benchmark object is handed to the thread that runs the case and back: this thread waits meanwhile, so
        // the two never use it at the same time.
        nonisolated(unsafe) let benchmark = benchmark
        try withHub(on: testLoop(loop), allowingLeftovers: true) { hub in
            let run = Run(
                operations: one.operations,
                aroundMeasured: { body in
                    benchmark.startMeasurement()
                    try body()
                    benchmark.stopMeasurement()
                })
            try one(on: hub, run)
        }
    }
}

private func testLoop(_ name: String?) -> TestLoop {
    guard let name else { return .configured }
    return .custom {
        guard let backend = LoopBackend.linked.first(where: { $0.name == name }) else { fatalError("no loop \(name)") }
        return try backend.makeLoop(Gevent.configuration.resolve())
    }
}

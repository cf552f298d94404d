import Benchmark
import BenchmarkCases
import Gevent
import GeventTesting
import Glibc

// Runs every case, each run on a new thread with its own hub on the loop selected by GEVENT_LOOP. Without GEVENT_LOOP,
// cases that use the loop run on every linked loop.
//
// The unit is one run of that many operations: the plugin does not divide, so the name contains the divisor. A memory
// figure is in a name too, because the plugin's memory metrics would include the process's other cases.
let benchmarks: @Sendable () -> Void = {
    for one in allCases where one.figure != .memory {
        for loop in one.reachesLoop ? loops : [nil] { declare(one, on: loop) }
    }
}

/// Nil means the loop selected by GEVENT_LOOP.
private let loops: [String?] =
    getenv("GEVENT_LOOP").map { $0.pointee != 0 } == true ? [nil] : LoopBackend.linked.map(\.name)

private func declare(_ one: Case, on loop: String?) {
    let name = one.title + (loop.map { ", \($0)" } ?? "") + " (\(one.operations) operations)"
    let configuration = Benchmark.Configuration(
        metrics: [.wallClock, .cpuTotal], warmupIterations: 1, maxDuration: .seconds(3), maxIterations: 20)
    Benchmark(name, configuration: configuration) { benchmark in
        // The benchmark object is passed to the thread that runs the case and back. This thread waits meanwhile, so the
        // two never use it at the same time.
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

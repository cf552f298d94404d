import Benchmark
import Gevent
import GeventTesting

// Runs every case of the table, each run on a fresh thread with a hub of its own on the loop that GEVENT_LOOP chooses.
// The unit is one run of `operations` operations: the plugin divides nothing, so the name says by what to divide.
let benchmarks: @Sendable () -> Void = {
    for one in cases {
        let configuration = Benchmark.Configuration(
            metrics: [.wallClock, .cpuTotal], warmupIterations: 1, maxDuration: .seconds(3), maxIterations: 20)
        Benchmark("\(one.name) (\(one.operations) operations)", configuration: configuration) { benchmark in
            // The benchmark object is handed to the thread that runs the case and back: this thread waits meanwhile, so
            // the two never use it at the same time.
            nonisolated(unsafe) let benchmark = benchmark
            try withHub(on: .configured, allowingLeftovers: true) { hub in
                try one.run(hub) { body in
                    benchmark.startMeasurement()
                    try body()
                    benchmark.stopMeasurement()
                }
            }
        }
    }
}

import Gevent
import GeventTesting
import Glibc
import PollLoop

// Before the first hub. After this call GEVENT_LOOP=poll selects the loop, and it is last in the default order.
PollLoop.register()

let hub = try Hub.start()
let answer = spawn {
    try sleep(for: .milliseconds(5))
    return 42
}
print("\(try answer.get()) on \(hub.loopName) of \(LoopBackend.linked.map(\.name).sorted().joined(separator: ", "))")

if CommandLine.arguments.dropFirst().first == "conformance" {
    let results = LoopConformance(name: "poll") { try PollLoop() }.run()
    for result in results where result.failure != nil { print(result) }
    print("\(results.filter { $0.failure == nil }.count) of \(results.count) checks passed")
    exit(results.allSatisfy { $0.failure == nil } ? 0 : 1)
}

import Gevent

// The code does not depend on the loop. The manifest determines which loops are linked, and GEVENT_LOOP selects one.
let hub = try Hub.start()
let answer = spawn {
    try sleep(for: .milliseconds(5))
    return 42
}
print("\(try answer.get()) on \(hub.loopName) of \(LoopBackend.linked.map(\.name).sorted().joined(separator: ", "))")

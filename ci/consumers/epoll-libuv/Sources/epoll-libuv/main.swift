import Gevent

// Which loop it is, is nothing this program knows: its manifest says what there is, and GEVENT_LOOP what runs.
let hub = try Hub.start()
let answer = spawn {
    try sleep(for: .milliseconds(5))
    return 42
}
print("\(try answer.get()) on \(hub.loopName) of \(LoopBackend.linked.map(\.name).sorted().joined(separator: ", "))")

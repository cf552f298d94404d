import Gevent
import GeventNet

// The manifest names no product but GeventNet. It brings the core, and a loop for it to run on.
let hub = try Hub.start()
let server = StreamServer(.loopback()) { socket, _ in try socket.writeAll("42") }
try server.start()
let answer = spawn {
    let socket = try Socket.connect(to: server.address)
    defer { socket.close() }
    return String(decoding: try socket.read(), as: UTF8.self)
}
print("\(try answer.get()) on \(hub.loopName) of \(LoopBackend.linked.map(\.name).sorted().joined(separator: ", "))")
try server.stop()

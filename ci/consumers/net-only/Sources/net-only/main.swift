import Gevent
import GeventNet

// The manifest names only the product GeventNet, which includes the core and a loop.
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

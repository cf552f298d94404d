import Gevent
import GeventNet
import GeventTesting
import Glibc
import Testing

/// The connections that `stop` waits for.
@Suite struct StopIdleTests {
    /// Longer than a test may take: the test passes only if nothing waits that long.
    private static let never = Duration.seconds(600)

    @Test func idleConnectionsEndAtOnce() throws {
        try withNet { _ in
            let server = StreamServer(.loopback(), handler: echo)
            try server.start()
            // One client has sent nothing yet, and one was answered.
            let fresh = try Socket.connect(to: server.address)
            let answered = try Socket.connect(to: server.address)
            try answered.writeAll("request")
            #expect(text(try answered.readExactly(7)) == "request")
            try eventually("both handlers run") { server.handlerCount == 2 }
            try withTimeout(.seconds(60)) { _ in try server.stop(timeout: Self.never) }
            #expect(server.handlerCount == 0)
            for client in [fresh, answered] {
                #expect(try client.read() == [])
                client.close()
            }
        }
    }

    @Test func aRequestThatIsUnderWayIsAnsweredAndThenTheConnectionEnds() throws {
        try withNet { _ in
            let server = StreamServer(.loopback()) { socket, _ in
                while true {
                    let request = try socket.readExactly(10)
                    try socket.writeAll(request)
                }
            }
            try server.start()
            let client = try Socket.connect(to: server.address)
            try client.writeAll("first")
            try eventually("the handler runs") { server.handlerCount == 1 }
            try sleep(for: .milliseconds(2))
            let late = spawn(after: .milliseconds(20)) { try client.writeAll("-half") }
            try withTimeout(.seconds(60)) { _ in try server.stop(timeout: Self.never) }
            try late.get()
            #expect(text(try client.readExactly(10)) == "first-half")
            #expect(try client.read() == [])
            client.close()
        }
    }

    @Test func aRequestThatHasJustComeInIsAnswered() throws {
        try withNet { _ in
            try withServer { server in
                let client = try Socket.connect(to: server.address)
                try client.writeAll("x")
                #expect(text(try client.readExactly(1)) == "x")
                try sleep(for: .milliseconds(2))
                // The bytes are in the kernel, and no greenlet has read them.
                try client.writeAll("y")
                try withTimeout(.seconds(60)) { _ in try server.stop(timeout: Self.never) }
                #expect(text(try client.readExactly(1)) == "y")
                #expect(try client.read() == [])
                client.close()
            }
        }
    }

    /// Connections that the server can't recognise as idle get the whole timeout.
    @Test(arguments: ["only reads", "reads by other means", "reads elsewhere", "computes"])
    func othersGetTheWholeTimeout(kind: String) throws {
        try withNet { _ in
            let server = StreamServer(.loopback()) { socket, _ in
                try socket.writeAll("ready")
                switch kind {
                case "only reads":
                    while try socket.read() != [] {}
                case "reads by other means":
                    _ = try socket.waitReadable()
                case "reads elsewhere":
                    try spawn { _ = try socket.read() }.join()
                default:
                    try sleep(for: .seconds(3600))
                }
            }
            try server.start()
            let client = try Socket.connect(to: server.address)
            #expect(text(try client.readExactly(5)) == "ready")
            if kind == "only reads" { try client.writeAll("data") }
            try sleep(for: .milliseconds(2))
            let began = Hub.current.now
            try server.stop(timeout: .milliseconds(50))
            #expect(began.duration(to: Hub.current.now) >= .milliseconds(50))
            client.close()
            try sleep(for: .milliseconds(2))
        }
    }

    @Test func aHandlerThatStopsItsServerIsNotIdle() throws {
        try withNet { _ in
            let box = ServerBox()
            box.server = StreamServer(.loopback()) { socket, _ in
                try box.server?.stop(timeout: Self.never)
                try socket.writeAll("more?")
                try socket.writeAll(try socket.readExactly(3))
            }
            try box.server?.start()
            let client = try Socket.connect(to: try #require(box.server).address)
            #expect(text(try client.readExactly(5)) == "more?")
            try client.writeAll("yes")
            #expect(text(try client.readExactly(3)) == "yes")
            client.close()
            // A server retained by its own handler would never be deallocated.
            box.server = nil
        }
    }
}

private final class ServerBox {
    var server: StreamServer?
}

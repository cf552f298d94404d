import Gevent
import GeventNet
import Glibc
import Testing

/// Clients that misbehave: the server continues, and no greenlet or descriptor leaks.
@Suite struct HostileClientTests {
    @Test func aThousandConnectionsAndNoneIsLost() throws {
        try withNet { hub in
            let count = min(1000, roomForDescriptors() / 2 - 100)
            try withServer { server in
                let clients = (0..<count).map { number in
                    spawn { try roundTrips(3, with: server.address, number) }
                }
                for client in clients { try client.get(timeout: .seconds(120)) }
                try eventually("every handler ends") { server.handlerCount == 0 }
            }
            #expect(hub.statistics.peakLiveGreenlets >= count)
        }
    }

    @Test func aHalfClosedClientGetsItsAnswer() throws {
        try withNet { _ in
            let handler: StreamServer.Handler = { socket, _ in
                var request: [UInt8] = []
                while case let part = try socket.read(), !part.isEmpty { request += part }
                try socket.writeAll("\(request.count) bytes")
            }
            try withServer(handler) { server in
                let client = try Socket.connect(to: server.address)
                try client.writeAll([UInt8](repeating: 1, count: 300_000))
                try client.shutdown(.write)
                #expect(text(try client.readExactly(12)) == "300000 bytes")
                #expect(try client.read() == [])
                #expect(socketError { try client.writeAll("more") }?.errno == EPIPE)
            }
        }
    }

    @Test func aResetEndsOnlyItsConnection() throws {
        try withNet { hub in
            var reports: [CInt] = []
            hub.errorHandler = { error, _ in reports.append((error as? SocketError)?.errno ?? 0) }
            try withServer { server in
                let good = try Socket.connect(to: server.address)
                for _ in 0..<10 {
                    let bad = try Socket.connect(to: server.address)
                    try bad.writeAll("half a mess")
                    _ = try bad.readExactly(11)
                    try bad.setOption(.linger, to: .zero)
                    bad.close()
                }
                try eventually("only the good client remains") { server.handlerCount == 1 }
                try good.writeAll("x")
                #expect(text(try good.readExactly(1)) == "x")
                // Clients cause this all the time, so it is not reported.
                #expect(reports == [])
                good.close()
            }
        }
    }

    @Test func aSlowReaderHoldsUpOnlyItself() throws {
        try withNet { _ in
            let large = (0..<4_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            var written = 0
            let handler: StreamServer.Handler = { socket, _ in
                // Smaller than the message, even if the kernel enlarges its buffers.
                try socket.setOption(.sendBufferSize, to: 64 << 10)
                try socket.writeAll(large)
                written += 1
            }
            try withServer(handler) { server in
                let slow = try Socket.connect(to: server.address)
                try eventually("the handler runs") { server.handlerCount == 1 }
                // Other clients are served while the handler of the slow one is parked.
                let fast = try Socket.connect(to: server.address)
                #expect(try fast.readExactly(large.count) == large)
                try eventually("the fast one's handler ends") { written == 1 && server.handlerCount == 1 }
                var received: [UInt8] = []
                while received.count < 200_000 {
                    received += try slow.read(upTo: 4096)
                    try sleep()
                }
                received += try slow.readExactly(large.count - received.count)
                #expect(received == large)
                #expect(try slow.read() == [])
                #expect(written == 2)
                for client in [slow, fast] { client.close() }
            }
        }
    }

    @Test func aClientThatNeverReadsIsReleasedWhenItDisconnects() throws {
        try withNet { hub in
            hub.errorHandler = { _, _ in }
            let handler: StreamServer.Handler = { socket, _ in
                while true { try socket.writeAll([UInt8](repeating: 0, count: 1 << 20)) }
            }
            try withServer(handler) { server in
                let client = try Socket.connect(to: server.address)
                try eventually("the handler runs") { server.handlerCount == 1 }
                try Gevent.sleep(for: .milliseconds(10))
                client.close()
                try eventually("the handler ends") { server.handlerCount == 0 }
            }
        }
    }

    @Test func aClientThatIsKilledInTheMiddleOfAMessage() throws {
        try withNet { _ in
            var ends: [SocketError.Code] = []
            let handler: StreamServer.Handler = { socket, _ in
                do {
                    try socket.writeAll("unread by the client")
                    _ = try socket.readExactly(100)
                } catch let error as SocketError {
                    ends.append(error.code)
                }
            }
            try withServer(handler) { server in
                // The child sends half a message, waits until the bytes are written, and kills itself.
                let script = "exec 3<>/dev/tcp/127.0.0.1/\(server.port); printf 'half a message' >&3; kill -9 $$"
                let children = try (0..<5).map { _ in try Child("/bin/bash", "-c", script) }
                try eventually("every handler has noticed") { ends.count == children.count }
                for child in children { #expect(child.wait() == SIGKILL) }
                #expect(ends.allSatisfy { $0 == .endOfStream || $0 == .connectionLost })
                #expect(server.handlerCount == 0)
            }
        }
    }

    private func roomForDescriptors() -> Int {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        return Int(clamping: limit.rlim_cur)
    }
}

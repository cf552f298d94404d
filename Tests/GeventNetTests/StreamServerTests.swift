import Gevent
import GeventNet
import GeventTesting
import Glibc
import Testing

/// Recurses; each level takes 50 to 100 bytes of stack.
private func recurse(_ depth: Int) -> Int { depth == 0 ? 0 : recurse(depth - 1) &* 3 &+ depth }

@Suite struct StreamServerTests {
    /// Fact 126.
    @Test func theLifeOfAServer() throws {
        try withNet { _ in
            let probe = try Socket.listen(on: .loopback())
            let address = try probe.localAddress
            probe.close()
            let server = StreamServer(address) { socket, _ in try socket.writeAll("hello") }
            #expect(socketError { _ = try Socket.connect(to: address) }?.code == .connectionRefused)
            #expect(!server.isStarted)
            try server.start()
            try server.start()
            #expect(server.isStarted)
            #expect(server.address == address)
            // The end of the handler closes the connection.
            let client = try Socket.connect(to: server.address)
            #expect(text(try client.readExactly(5)) == "hello")
            #expect(try client.read() == [])
            try server.stop()
            try server.stop()
            #expect(server.isClosed)
            #expect(!server.isStarted)
            #expect(server.handlerCount == 0)
            #expect(socketError { _ = try Socket.connect(to: address) }?.code == .connectionRefused)
            #expect(socketError { try server.start() }?.code == .closed)
            // The address can be bound again although a connection lingers on it.
            let successor = StreamServer(address, handler: echo)
            try successor.start()
            try successor.stop()
        }
    }

    @Test func handlersRunOnStacksOfTheSizeThatWasAskedFor() throws {
        try withNet { _ in
            // A stack of the default size would overflow.
            let server = StreamServer(.loopback(), stackSize: 16 << 20) { socket, _ in
                _ = recurse(60_000)
                try socket.writeAll("\(AnyGreenlet.current.stackHighWaterMark! > 1 << 20)")
            }
            try server.start()
            let client = try Socket.connect(to: server.address)
            #expect(text(try client.readExactly(4)) == "true")
            client.close()
            try server.stop()
        }
    }

    @Test func thePortIsRealAfterStart() throws {
        try withNet { _ in
            let server = StreamServer(.loopback(), handler: echo)
            #expect(server.port == 0)
            try server.start()
            #expect(server.port > 0)
            #expect(server.address.host == "127.0.0.1")
            try server.stop()
        }
    }

    @Test func aGivenListenerQueuesBeforeTheStart() throws {
        try withNet { _ in
            let listener = try Socket.listen(on: .loopback())
            let server = try StreamServer(listener: listener, handler: echo)
            #expect(server.port > 0)
            let client = try Socket.connect(to: server.address)
            try client.writeAll("early")
            try server.start()
            #expect(text(try client.readExactly(5)) == "early")
            client.close()
            try server.stop()
            #expect(listener.isClosed)
        }
    }

    @Test func anAddressInUseIsNamed() throws {
        try withNet { _ in
            let first = try Socket.listen(on: .loopback())
            defer { first.close() }
            let address = try first.localAddress
            let server = StreamServer(address, handler: echo)
            let error = socketError { try server.start() }
            #expect(error?.code == .addressInUse)
            #expect(error?.description == "bind \(address): Address already in use (EADDRINUSE 98)")
            #expect(!server.isStarted)
        }
    }

    @Test func aUnixServerRemovesItsFile() throws {
        try withNet { _ in
            let path = "/tmp/gevent-net-server-\(getpid()).sock"
            unlink(path)
            let server = StreamServer(try .unix(path), handler: echo)
            try server.start()
            let client = try Socket.connect(to: server.address)
            try client.writeAll("x")
            #expect(text(try client.readExactly(1)) == "x")
            client.close()
            try server.stop()
            #expect(access(path, F_OK) != 0)
        }
    }

    /// Fact 127.
    @Test func aFullServerPausesAccepting() throws {
        try withNet { _ in
            var running = 0
            var most = 0
            let handler: StreamServer.Handler = { socket, peer in
                running += 1
                most = max(most, running)
                defer { running -= 1 }
                try echo(socket, peer)
            }
            try withServer(limit: 2, handler) { server in
                let clients = (0..<7).map { number in
                    spawn { try roundTrips(3, with: server.address, number) }
                }
                for client in clients { try client.get(timeout: .seconds(30)) }
                #expect(most == 2)
            }
        }
    }

    /// Fact 128.
    @Test func aHandlerThatThrowsAffectsOnlyItsConnection() throws {
        struct Oops: Error {}
        try withNet { hub in
            var reports: [String] = []
            hub.errorHandler = { error, greenlet in reports.append("\(type(of: error)) \(greenlet != nil)") }
            let handler: StreamServer.Handler = { socket, peer in
                switch text(try socket.readExactly(1)) {
                case "t": throw Oops()
                case "k": throw GreenletExit()
                default: try socket.writeAll("fine")
                }
            }
            try withServer(handler) { server in
                let thrower = try Socket.connect(to: server.address)
                let killed = try Socket.connect(to: server.address)
                let fine = try Socket.connect(to: server.address)
                try thrower.writeAll("t")
                try killed.writeAll("k")
                #expect(try thrower.read() == [])
                #expect(try killed.read() == [])
                try fine.writeAll("f")
                #expect(text(try fine.readExactly(4)) == "fine")
                #expect(reports == ["Oops true"])
            }
        }
    }

    @Test(.disabled(if: isSanitized, "a sanitizer needs terabytes of the address space that this test limits"))
    func aConnectionWithoutAStackIsClosedAndAcceptingPauses() throws {
        try withNet { hub in
            var shortages = 0
            hub.errorHandler = { error, _ in if (error as? HubError)?.code == .outOfStacks { shortages += 1 } }
            try withServer { server in
                let idle = try Socket.connect(to: server.address)
                // Enough for this test, but not for another slab of stacks.
                let limit = AddressSpaceLimit(headroom: 24 << 20)
                var sleepers: [Greenlet<Void>] = []
                while shortages == 0, sleepers.count < 2000 {
                    sleepers.append(spawn { try Gevent.sleep(for: .seconds(3600)) })
                    if sleepers.count % 50 == 0 { try sleep() }
                }
                #expect(shortages > 0)
                // The failed sleepers left no free stack, so the handler gets none either.
                let refused = try Socket.connect(to: server.address)
                #expect(try refused.read(timeout: .seconds(10)) == [])
                limit.lift()
                try killAll(sleepers)
                try roundTrips(1, with: server.address, 0)
                idle.close()
            }
        }
    }

    @Test func acceptingResumesAfterAShortageOfDescriptors() throws {
        try withNet { hub in
            var reports: [CInt] = []
            hub.errorHandler = { error, _ in reports.append((error as? SocketError)?.errno ?? 0) }
            let listener = try Socket.listen(on: .loopback())
            let server = try StreamServer(listener: listener, handler: echo)
            server.minDelay = .milliseconds(1)
            server.maxDelay = .milliseconds(4)
            // The kernel queues them, so only the server needs descriptors from here on.
            let clients = try (0..<3).map { _ in try Socket.connect(to: server.address) }
            let limit = try DescriptorLimit()
            try server.start()
            try Gevent.sleep(for: .milliseconds(30))
            #expect(server.isStarted)
            #expect(server.handlerCount == 0)
            #expect(reports == [EMFILE])
            limit.lift()
            for client in clients {
                try client.writeAll("x")
                #expect(text(try client.readExactly(1, timeout: .seconds(30))) == "x")
                client.close()
            }
            #expect(reports == [EMFILE])
            try server.stop()
        }
    }

    @Test func aPermanentErrorClosesTheServer() throws {
        try withNet { hub in
            var reports: [CInt] = []
            hub.errorHandler = { error, _ in reports.append((error as? SocketError)?.errno ?? 0) }
            // The socket does not listen, so accept fails permanently.
            let socket = try Socket(family: .ipv4)
            let server = try StreamServer(listener: socket, handler: echo)
            #expect(socketError { try server.serveForever() }?.errno == EINVAL)
            #expect(server.isClosed)
            #expect(reports == [EINVAL])
        }
    }

    @Test func closingTheGivenListenerClosesTheServer() throws {
        try withNet { hub in
            hub.errorHandler = { _, _ in }
            let listener = try Socket.listen(on: .loopback())
            let server = try StreamServer(listener: listener, handler: echo)
            let closer = spawn(after: .milliseconds(1)) { listener.close() }
            #expect(socketError { try server.serveForever() }?.code == .closed)
            #expect(server.isClosed)
            try closer.get()
        }
    }

    // MARK: Stopping

    @Test func stopWaitsForHandlersAndKillsTheRest() throws {
        try withNet { _ in
            var ends: [String] = []
            let server = StreamServer(.loopback()) { socket, _ in
                let kind = text(try socket.readExactly(1))
                defer { ends.append(kind) }
                if kind == "q" {
                    try Gevent.sleep(for: .milliseconds(10))
                } else {
                    try Gevent.sleep(for: .seconds(3600))
                }
                ends.append("served")
            }
            try server.start()
            let clients = try ["q", "s"].map { kind in
                let client = try Socket.connect(to: server.address)
                try client.writeAll(kind)
                return client
            }
            try eventually("both handlers run") { server.handlerCount == 2 }
            try server.stop(timeout: .milliseconds(200))
            #expect(ends == ["served", "q", "s"])
            #expect(server.handlerCount == 0)
            for client in clients { #expect(try client.read() == []) }
        }
    }

    @Test func stopKillsHandlersThatHaveNotRun() throws {
        try withNet { _ in
            var ran = false
            let listener = try Socket.listen(on: .loopback())
            let server = try StreamServer(listener: listener) { _, _ in ran = true }
            let client = try Socket.connect(to: server.address)
            try server.start()
            // The acceptor runs, and its handler is behind this greenlet in the ready queue.
            let stopper = spawn { try server.stop(timeout: .zero) }
            try stopper.get()
            #expect(!ran)
            #expect(server.handlerCount == 0)
            #expect(try client.read() == [])
        }
    }

    @Test func aHandlerMayStopItsServer() throws {
        try withNet { _ in
            var server: StreamServer?
            server = StreamServer(.loopback()) { socket, _ in
                try server?.stop(timeout: .zero)
                try socket.writeAll("done")
            }
            let serving = spawn { try server?.serveForever() }
            try sleep()
            let client = try Socket.connect(to: server!.address)
            #expect(text(try client.readExactly(4)) == "done")
            try serving.get()
            // A server retained by its own handler would never be deallocated.
            server = nil
        }
    }

    @Test func anInterruptedStopKillsTheHandlers() throws {
        try withNet { _ in
            try withServer({ _, _ in try Gevent.sleep(for: .seconds(3600)) }) { server in
                let client = try Socket.connect(to: server.address)
                try eventually("the handler runs") { server.handlerCount == 1 }
                #expect(throws: Timeout.self) {
                    try withTimeout(.milliseconds(5)) { _ in try server.stop(timeout: nil) }
                }
                #expect(try client.read() == [])
                #expect(server.handlerCount == 0)
            }
        }
    }

    /// Fact 130.
    @Test func serveForeverEndsWithTheServerOrItsGreenlet() throws {
        try withNet { _ in
            let first = StreamServer(.loopback(), handler: echo)
            let stopper = spawn(after: .milliseconds(1)) { try first.stop() }
            try first.serveForever()
            try stopper.get()
            #expect(first.isClosed)

            let second = StreamServer(.loopback(), handler: echo)
            let serving = spawn { try second.serveForever() }
            try eventually("the server has started") { second.isStarted }
            let client = try Socket.connect(to: second.address)
            try eventually("the handler runs") { second.handlerCount == 1 }
            client.close()
            try serving.kill()
            #expect(serving.exit != nil)
            #expect(second.isClosed)
            #expect(second.handlerCount == 0)
        }
    }

    @Test func aStopThatComesWithAConnectionIsNoFailure() throws {
        try withNet { hub in
            var reports: [String] = []
            hub.errorHandler = { error, _ in reports.append("\(error)") }
            for maxAccept in [1, 100] {
                let server = StreamServer(.loopback()) { _, _ in }
                server.maxAccept = maxAccept
                try server.start()
                try sleep()
                let serving = spawn { try server.serveForever() }
                try sleep()
                // One poll reports both events: the acceptor is woken, and stopped before it has run.
                let (command, trigger) = try Socket.pair()
                let stopper = spawn {
                    _ = try command.read(upTo: 1)
                    try server.stop(timeout: .zero)
                }
                try sleep()
                try trigger.writeAll("x")
                let client = try Socket(family: .ipv4)
                // The connection may be reset, because the server no longer accepts.
                do { try client.connect(to: server.address) } catch is SocketError {}
                try stopper.get()
                try serving.get()
                for socket in [client, command, trigger] { socket.close() }
            }
            #expect(reports == [])
        }
    }

    @Test func anEarlierStopIsPermanent() throws {
        try withNet { _ in
            let server = StreamServer(.loopback(), handler: echo)
            let serving = spawn { try server.serveForever() }
            try server.stop()
            try serving.get(timeout: .seconds(10))
            #expect(server.isClosed)
        }
    }

    @Test func aStopRightAfterAStartClosesTheServer() throws {
        try withNet { _ in
            let server = StreamServer(.loopback(), handler: echo)
            try server.start()
            try server.stop()
            #expect(server.isClosed)
        }
    }

    @Test func acceptingIsFairToOthers() throws {
        try withNet { _ in
            let listener = try Socket.listen(on: .loopback())
            let server = try StreamServer(listener: listener, handler: echo)
            server.maxAccept = 2
            let clients = try (0..<5).map { _ in try Socket.connect(to: server.address) }
            try server.start()
            try sleep()
            #expect(server.handlerCount == 2)
            for client in clients {
                try client.writeAll("x")
                #expect(text(try client.readExactly(1)) == "x")
                client.close()
            }
            try server.stop()
        }
    }

    @Test func aBurstIsNoticedSoonAfterSingleConnections() throws {
        try withNet { hub in
            let served = 40
            try withServer { server in
                for _ in 0..<20 {
                    let client = try Socket.connect(to: server.address)
                    try client.writeAll("x")
                    #expect(text(try client.readExactly(1)) == "x")
                    client.close()
                }
                while server.handlerCount > 0 { try sleep() }
                // The server does not run meanwhile: on the same machine the kernel completes the connection by itself.
                let burst = try (0..<served).map { _ in
                    let client = try Socket(family: .ipv4)
                    #expect(
                        [nil, .wouldBlock].contains(
                            socketError { try client.connect(to: server.address, timeout: .zero) }?.code))
                    return client
                }
                #expect(server.handlerCount == 0)
                let polls = hub.statistics.pollCount
                try withTimeout(.seconds(30)) { _ in
                    while server.handlerCount < served { try sleep() }
                }
                // Accepting one connection per poll would take forty polls.
                #expect(hub.statistics.pollCount - polls < 20)
                for client in burst {
                    try client.writeAll("x")
                    #expect(text(try client.readExactly(1)) == "x")
                    client.close()
                }
            }
        }
    }
}

/// Echoes all bytes until the end of the stream.
func echo(_ socket: Socket, _ peer: SocketAddress) throws {
    while try socket.withReadBytes({ bytes in
        try socket.writeAll(bytes)
        return !bytes.isEmpty
    }) {}
}

/// Runs `body` with a server on a free port, and stops the server afterwards.
func withServer(
    limit: Int? = nil, _ handler: @escaping StreamServer.Handler = echo, _ body: (StreamServer) throws -> Void
) throws {
    let server = StreamServer(.loopback(), limit: limit, handler: handler)
    try server.start()
    do {
        try body(server)
    } catch {
        try server.stop()
        throw error
    }
    try server.stop()
}

/// Exchanges messages with an echo server and checks the answers.
func roundTrips(_ count: Int, with address: SocketAddress, _ number: Int) throws {
    let socket = try Socket.connect(to: address, timeout: .seconds(30))
    defer { socket.close() }
    for round in 0..<count {
        let message = "client \(number), round \(round)"
        try socket.writeAll(message, timeout: .seconds(30))
        let answer = text(try socket.readExactly(message.utf8.count, timeout: .seconds(30)))
        #expect(answer == message)
    }
}

/// A limit that lets the process open no further descriptor until it is lifted.
final class DescriptorLimit {
    private var before = rlimit()

    init() throws {
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &before)
        // The next open would take the lowest free number.
        let lowest = dup(0)
        try #require(lowest >= 0)
        close(lowest)
        var limit = before
        limit.rlim_cur = rlim_t(lowest)
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    func lift() { setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &before) }

    deinit { lift() }
}

/// Whether AddressSanitizer or ThreadSanitizer is linked.
private let isSanitized = dlsym(nil, "__asan_init") != nil || dlsym(nil, "__tsan_init") != nil

/// A limit that leaves the process little additional address space until it is lifted.
final class AddressSpaceLimit {
    private var before = rlimit()

    init(headroom: Int) {
        getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &before)
        var limit = before
        limit.rlim_cur = rlim_t(addressSpace() + headroom)
        setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
    }

    func lift() { setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &before) }

    deinit { lift() }

    private func addressSpace() -> Int {
        guard let file = fopen("/proc/self/statm", "r") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        fgets(&line, CInt(line.count), file)
        return (strtol(line, nil, 10)) * Int(getpagesize())
    }
}

import Gevent
import GeventNet
import GeventTesting
import Glibc
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A program in which one greenlet waits for sockets in every possible way. It counts the scopes it has open.
private final class SocketProgram: KillableProgram {
    /// The number of scopes entered and not exited.
    var open = 0
    /// Called before each wait.
    var beforeWait: () -> Void = {}
    var finished = false
    private let living: LivingObjects

    init(_ living: LivingObjects) { self.living = living }

    /// Tracks an object that must be deallocated by the end.
    private func tracked<Object: AnyObject>(_ object: Object) -> Object {
        living.watch(object)
        return object
    }

    private func scope(_ body: () throws -> Void) throws {
        open += 1
        defer { open -= 1 }
        try body()
    }

    private func wait(_ body: () throws -> Void) throws {
        beforeWait()
        try scope(body)
    }

    /// Performs a wait that must end with its timeout.
    private func waitUntilTimeout(_ body: () throws -> Void) throws {
        do { try wait(body) } catch let error as SocketError where error.code == .timedOut {}
    }

    func run() throws {
        try scope {
            try connect()
            try connectToFullQueue()
            try read()
            try write()
            try serve()
            try serveStatus()
        }
        finished = true
    }

    /// Kills a greenlet. Cleanup must not be interrupted, so this does not wait.
    private func end(_ greenlet: Greenlet<Void>) { try? Gevent.kill(greenlet) }

    private func later(_ body: @escaping () throws -> Void) -> Greenlet<Void> {
        spawn(after: .milliseconds(1)) { try self.scope(body) }
    }

    // MARK: Connecting

    private func connect() throws {
        let listener = tracked(try Socket.listen(on: .loopback()))
        defer { listener.close() }
        try waitUntilTimeout { _ = try listener.accept(timeout: .milliseconds(1)) }
        let client = later {
            let socket = try Socket.connect(to: listener.localAddress)
            try sleep(for: .seconds(10))
            socket.close()
        }
        defer { end(client) }
        try wait { tracked(try listener.accept().socket).close() }
        try wait { tracked(try Socket.connect(to: listener.localAddress)).close() }
        let socket = tracked(try Socket(family: .ipv4))
        defer { socket.close() }
        try wait { try socket.connect(to: listener.localAddress, timeout: .seconds(10)) }
    }

    /// Connects to a Unix listener with a full queue: no event announces room in it.
    private func connectToFullQueue() throws {
        let listener = try Socket.listen(on: .unix("@gevent-kill-everywhere-\(getpid())"), backlog: 0)
        defer { listener.close() }
        var waiting: [Socket] = []
        defer { for socket in waiting { socket.close() } }
        while true {
            do {
                waiting.append(try Socket.connect(to: listener.localAddress, timeout: .zero))
            } catch let error as SocketError where error.code == .wouldBlock {
                break
            }
        }
        try waitUntilTimeout { try Socket.connect(to: listener.localAddress, timeout: .milliseconds(2)).close() }
        let acceptor = later { try listener.accept().socket.close() }
        defer { end(acceptor) }
        try wait { try Socket.connect(to: listener.localAddress).close() }
    }

    // MARK: Reading and writing

    private func read() throws {
        let (source, sink) = try Socket.pair()
        for socket in [source, sink] { living.watch(socket) }
        defer {
            source.close()
            sink.close()
        }
        let writer = spawn {
            try self.scope {
                for _ in 0..<20 {
                    try sleep(for: .milliseconds(1))
                    try sink.writeAll([1, 2, 3, 4])
                }
                try sink.shutdown(.write)
            }
        }
        defer { end(writer) }
        var buffer = [UInt8](repeating: 0, count: 100)
        try waitUntilTimeout { _ = try source.read(timeout: .microseconds(1)) }
        try wait { _ = try source.read() }
        try wait { _ = try buffer.withUnsafeMutableBytes { try source.read(into: $0) } }
        try wait { _ = try source.waitReadable() }
        var received: [UInt8] = []
        let stream: any ByteStream = source
        try wait { try received.append(addingCapacity: 10) { _ = try stream.read(into: &$0) } }
        #expect(!received.isEmpty)
        try wait {
            // The bytes stay borrowed while the body waits.
            try source.withReadBytes { bytes in
                try self.wait { try sleep(for: .milliseconds(1)) }
                #expect(!bytes.isEmpty)
            }
        }
        try wait { _ = try source.readExactly(10) }
        try waitUntilTimeout { _ = try source.readExactly(10, timeout: .microseconds(1)) }
        try wait { while try !source.read(upTo: 100_000).isEmpty {} }
    }

    private func write() throws {
        let (source, sink) = try Socket.pair()
        for socket in [source, sink] { living.watch(socket) }
        defer {
            source.close()
            sink.close()
        }
        try fill(sink)
        try waitUntilTimeout { _ = try sink.write([1], timeout: .milliseconds(1)) }
        try waitUntilTimeout { try sink.writeAll([1, 2], timeout: .milliseconds(1)) }
        try waitUntilTimeout { try sink.writeAll([1], "23".utf8, timeout: .milliseconds(1)) }
        let reader = spawn {
            try self.scope {
                repeat { try sleep(for: .milliseconds(1)) } while try !source.read(upTo: 100_000).isEmpty
            }
        }
        defer { end(reader) }
        try wait { _ = try sink.waitWritable() }
        try fill(sink)
        try wait { _ = try sink.write([1]) }
        try wait { try sink.writeAll([UInt8](repeating: 1, count: 1_000_000)) }
        let half = [UInt8](repeating: 2, count: 500_000)
        try wait { try sink.writeAll(half, "and".utf8, half) }
        let stream: any ByteStream = sink
        try wait { try stream.writeAll(half.span.bytes, half.span.bytes) }
        try fill(sink)
        try wait { _ = try stream.write("text") }
        sink.close()
        try wait { try reader.join() }
    }

    // MARK: Servers

    /// Spawns a client that reads until the server closes the connection.
    private func client(of address: SocketAddress) -> Greenlet<Void> {
        spawn {
            try self.scope {
                let socket = try Socket.connect(to: address)
                defer { socket.close() }
                do {
                    try socket.writeAll("help\n")
                    while try !socket.read().isEmpty {}
                } catch is SocketError {}
            }
        }
    }

    /// Creates a server whose handlers run until they are killed.
    private func makeServer() -> StreamServer {
        tracked(StreamServer(.loopback(), limit: 2) { _, _ in try self.scope { try Event().wait() } })
    }

    private func serve() throws {
        let server = makeServer()
        try server.start()
        // One more than the server serves at once.
        let clients = (0..<3).map { _ in client(of: server.address) }
        // An interrupted stop kills all handlers, so only the clients remain to be ended.
        var mustStop = true
        defer {
            for client in clients { end(client) }
            if mustStop { stopWithoutWaiting { try server.stop(timeout: .zero) } }
        }
        try wait { while server.handlerCount < 2 { try sleep(for: .milliseconds(1)) } }
        try wait {
            mustStop = false
            try server.stop(timeout: .milliseconds(1))
        }
        try serveForever()
    }

    private func serveForever() throws {
        let other = makeServer()
        let late = later {
            let client = self.client(of: other.address)
            defer { self.end(client) }
            try sleep(for: .milliseconds(2))
            try other.stop(timeout: .milliseconds(1))
        }
        defer { end(late) }
        // `serveForever` starts the server, and stops it when it is interrupted.
        try wait { try other.serveForever(stopTimeout: .milliseconds(1)) }
    }

    private func serveStatus() throws {
        let server = tracked(try StatusServer())
        try server.start()
        let client = client(of: server.address)
        defer {
            end(client)
            stopWithoutWaiting { try server.stop() }
        }
        try wait { try sleep(for: .milliseconds(2)) }
        try wait { try server.stop(timeout: .milliseconds(1)) }
        // The stop did not wait for the idle client, so a timeout may arrive only now.
        try wait { try sleep(for: .milliseconds(1)) }
    }

    /// Stops a server from another greenlet, because a sticky kill prevents this one from waiting in its cleanup.
    private func stopWithoutWaiting(_ stop: @escaping () throws -> Void) {
        spawn { try self.scope { try stop() } }
    }
}

@Suite struct KillEverywhereInSocketsTests {
    /// Runs the program, interrupts it as `arrange` specifies, and returns how it ended. The checks here fail if a
    /// descriptor, an object or a greenlet leaks.
    private static func run(
        on loop: TestLoop = .configured, _ arrange: @escaping @Sendable (Hub, SocketProgram, Greenlet<Void>) -> Void
    ) throws -> KilledRun {
        let before = openDescriptors()
        let outcome = try withHub(on: loop) { hub in
            var errors: [any Error] = []
            hub.errorHandler = { error, _ in errors.append(error) }
            let living = LivingObjects()
            let outcome = try runToCompletion(SocketProgram(living), on: hub, living, arrange)
            #expect(living.remaining() == [])
            // Errors of the interrupted greenlet, and of clients whose listener was closed with it.
            #expect(errors.allSatisfy { $0 is Struck || $0 is Timeout || $0 is SocketError }, "\(errors)")
            return outcome
        }
        #expect(openDescriptors() == before)
        return outcome
    }

    @Test(arguments: Interruption.allCases)
    func interruptedAtEveryWaitItLeavesNothingBehind(interruption: Interruption) throws {
        try checkEveryWait(by: interruption) { try Self.run($0) }
    }

    @Test(arguments: Interruption.kills)
    func interruptedJustBeforeEveryWaitItLeavesNothingBehind(interruption: Interruption) throws {
        try checkEveryWait(by: interruption, justBefore: true) { try Self.run($0) }
    }

    /// Interrupts also between a wake and the resumption, and in the later waits of calls with several. Runs on virtual
    /// time, which needs few rounds.
    @Test(arguments: Interruption.kills)
    func interruptedAfterAnyRoundItLeavesNothingBehind(interruption: Interruption) throws {
        var target = 0
        var hasFinished = false
        while !hasFinished {
            let round = target
            let outcome = try Self.run(on: .virtual) { hub, program, victim in
                RoundCounter.start(on: hub, until: { program.finished || victim.isDead }) { count in
                    if count == round { try interruption.strike(victim) }
                    return count < round
                }
            }
            #expect(outcome.isFinished || outcome.isEnded(by: interruption), "round \(round): \(outcome.description)")
            hasFinished = outcome.isFinished
            target += 1
        }
        #expect(target > 20)
    }
}

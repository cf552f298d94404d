import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventNet

/// The behaviour of a server when accepting fails.
@Suite struct ServerFailureTests {
    /// Temporary errors: of the system, of a loop that can't register a descriptor, and of connections that no longer
    /// exist.
    @Test(arguments: [EIO, ENOSPC, ENOMEM, ENFILE, ENOBUFS, EPERM, ECONNABORTED, ENETDOWN, EOPNOTSUPP])
    func anErrorThatMayPassIsWaitedOut(error: CInt) throws {
        try withNet { hub in
            var reports: [CInt] = []
            hub.errorHandler = { error, _ in reports.append((error as? SocketError)?.errno ?? 0) }
            let server = StreamServer(.loopback(), handler: echo)
            server.minDelay = .milliseconds(1)
            server.maxDelay = .milliseconds(2)
            server.maxAccept = 3
            var failures = 0
            server.acceptOne = { listener in
                if failures < 10 {
                    failures += 1
                    throw SocketError(errno: error, operation: "accept")
                }
                return try listener.acceptIfReady()
            }
            try server.start()
            try roundTrips(3, with: server.address, 0)
            #expect(failures == 10)
            #expect(server.isStarted)
            // Reported once for the whole shortage.
            #expect(reports == [error])
            try server.stop()
        }
    }

    @Test func aFewBrokenConnectionsAreNoShortage() throws {
        try withNet { hub in
            var reports = 0
            hub.errorHandler = { _, _ in reports += 1 }
            let server = StreamServer(.loopback(), handler: echo)
            // Long enough that a pause would fail the test.
            server.minDelay = .seconds(3600)
            var failures = 0
            server.acceptOne = { listener in
                guard let accepted = try listener.acceptIfReady() else { return nil }
                failures += 1
                if failures % 2 == 0 { return accepted }
                accepted.socket.close()
                throw SocketError(errno: ECONNABORTED, operation: "accept")
            }
            try server.start()
            for _ in 0..<20 {
                let client = try Socket.connect(to: server.address)
                try? client.writeAll("x")  // control: no timeout is set, and nothing kills the test
                client.close()
            }
            try eventually("all failures happened") { failures == 20 && server.handlerCount == 0 }
            #expect(reports == 0)
            #expect(server.isStarted)
            try server.stop()
        }
    }

    @Test func aRefusedRegistrationOfTheListenerIsWaitedOut() throws {
        try withHub(on: .custom { try RefusingLoop() }) { hub in
            var reports: [CInt] = []
            hub.errorHandler = { error, _ in reports.append((error as? SocketError)?.errno ?? 0) }
            let listener = try Socket.listen(on: .loopback())
            RefusingLoop.refused = listener.fileDescriptor
            RefusingLoop.remaining = 5
            let server = try StreamServer(listener: listener, handler: echo)
            server.minDelay = .milliseconds(1)
            server.maxDelay = .milliseconds(2)
            try server.start()
            try eventually("all failures happened") { RefusingLoop.remaining == 0 }
            #expect(server.isStarted)
            #expect(reports == [ENOSPC])
            try roundTrips(3, with: server.address, 0)
            // A listener that can't be registered is polled after each pause.
            RefusingLoop.remaining = .max
            for number in 0..<3 { try roundTrips(1, with: server.address, number) }
            #expect(server.isStarted)
            try server.stop()
        }
    }

    @Test(arguments: [EBADF, EINVAL, ENOTSOCK])
    func anErrorOfTheListenerItselfClosesTheServer(error: CInt) throws {
        try withNet { hub in
            var reports: [CInt] = []
            hub.errorHandler = { error, _ in reports.append((error as? SocketError)?.errno ?? 0) }
            let server = StreamServer(.loopback(), handler: echo)
            server.acceptOne = { _ in throw SocketError(errno: error, operation: "accept") }
            try server.start()
            let address = server.address
            #expect(socketError { try server.serveForever() }?.errno == error)
            #expect(server.isClosed)
            #expect(reports == [error])
            #expect(socketError { _ = try Socket.connect(to: address) }?.code == .connectionRefused)
            #expect(socketError { try server.start() }?.message.contains("closed by an error: accept") == true)
            // A later call throws the error again.
            #expect(socketError { try server.serveForever() }?.errno == error)
            try server.stop()
        }
    }

    private static func acceptor(of server: StreamServer) throws -> AnyGreenlet {
        try #require(GreenletTree.current().nodes.first { $0.greenlet.name == "accept on \(server.address)" }).greenlet
    }

    @Test(arguments: [true, false])
    func aServerWhoseAcceptorIsKilledIsClosed(beforeItRuns: Bool) throws {
        struct Oops: Error {}
        try withNet { hub in
            hub.errorHandler = { _, _ in }
            for isExit in [true, false] {
                let server = StreamServer(.loopback(), handler: echo)
                let serving = spawn { try server.serveForever() }
                if !beforeItRuns { try sleep() }
                try server.start()
                if !beforeItRuns { try sleep() }
                let client = try Socket(family: .ipv4)
                _ = socketError { try client.connect(to: server.address, timeout: .zero) }
                try Gevent.kill(try Self.acceptor(of: server), throwing: isExit ? GreenletExit() : Oops())
                try serving.join(timeout: .seconds(30))
                #expect(!server.isStarted && server.isClosed)
                if isExit {
                    let error = serving.error as? SocketError
                    #expect(error?.code == .closed)
                    #expect(error?.message.contains("the accepting greenlet was killed") == true)
                } else {
                    #expect(serving.error is Oops)
                }
                // The kernel drops the connections queued at the listener.
                #expect(
                    [.connectionLost, .connectionRefused].contains(
                        socketError { _ = try client.read(timeout: .seconds(30)) }?.code))
                client.close()
            }
        }
    }

    @Test func aListenerThatAnotherGreenletWaitsOnClosesTheServer() throws {
        try withNet { hub in
            var reports: [any Error] = []
            hub.errorHandler = { error, _ in reports.append(error) }
            let listener = try Socket.listen(on: .loopback())
            let other = spawn { _ = try listener.accept() }
            try sleep()
            let server = try StreamServer(listener: listener, handler: echo)
            #expect(throws: HubError.self) { try server.serveForever() }
            #expect(!server.isStarted)
            #expect((reports.first as? HubError)?.code == .concurrentUse)
            try other.join()
        }
    }
}

/// A loop that refuses to watch one descriptor, as epoll does when `fs.epoll.max_user_watches` is exhausted.
private final class RefusingLoop: Loop {
    // Tests run one at a time, on one thread.
    nonisolated(unsafe) static var refused: CInt = -1
    nonisolated(unsafe) static var remaining = 0
    static let backendName = "refusing"
    private let inner: any Loop

    init() throws { inner = try Gevent.configuration.resolve().makeLoop().loop }

    var now: LoopInstant { inner.now }
    var timerResolution: Duration { inner.timerResolution }
    var waker: any LoopWaker { inner.waker }

    func setInterest(_ interest: Readiness, for fileDescriptor: CInt, generation: UInt32) throws(LoopError) {
        if fileDescriptor == Self.refused && !interest.isEmpty && Self.remaining > 0 {
            Self.remaining -= 1
            try inner.setInterest([], for: fileDescriptor, generation: generation)
            throw LoopError(errno: ENOSPC, operation: "epoll_ctl", fileDescriptor: fileDescriptor)
        }
        try inner.setInterest(interest, for: fileDescriptor, generation: generation)
    }

    func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        try inner.poll(until: deadline, into: &events)
    }

    func recoverAfterFork() throws(LoopError) { try inner.recoverAfterFork() }
    func close() { inner.close() }
}

import Gevent
import GeventNet
import Glibc
import Testing

@Suite struct SocketTimeoutTests {
    /// Fact 125.
    @Test func aSocketsTimeoutIsOfEachWait() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            a.timeout = .milliseconds(20)
            let error = socketError { _ = try a.read() }
            #expect(error?.code == .timedOut)
            #expect(error?.description == "read: timed out")
            #expect(socketError { _ = try a.readExactly(1) }?.code == .timedOut)
            try fill(a)
            #expect(socketError { _ = try a.write([1]) }?.description == "write: timed out")
            #expect(socketError { try a.writeAll([1] as [UInt8]) }?.code == .timedOut)
            // The socket remains usable.
            try b.writeAll("x")
            #expect(text(try a.read()) == "x")
        }
    }

    @Test func aCallsTimeoutGoesFirst() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            a.timeout = .milliseconds(1)
            let late = spawn(after: .milliseconds(30)) { try b.writeAll("x") }
            #expect(text(try a.read(timeout: .seconds(30))) == "x")
            #expect(socketError { _ = try a.read() }?.code == .timedOut)
            try late.get()
            a.timeout = nil
            #expect(socketError { _ = try a.read(timeout: .milliseconds(1)) }?.code == .timedOut)
            #expect(socketError { _ = try a.read(timeout: .zero) }?.code == .wouldBlock)
            #expect(socketError { _ = try a.read(timeout: .seconds(-1)) }?.errno == EAGAIN)
        }
    }

    @Test func listenersTimeOutToo() throws {
        try withNet { _ in
            let listener = try Socket.listen(on: .loopback())
            #expect(
                socketError { _ = try listener.accept(timeout: .milliseconds(5)) }?.description
                    == "accept on \(try listener.localAddress): timed out")
            #expect(socketError { _ = try listener.accept(timeout: .zero) }?.code == .wouldBlock)
            listener.timeout = .milliseconds(5)
            let client = try Socket.connect(to: listener.localAddress)
            let (accepted, peer) = try listener.accept()
            #expect(accepted.timeout == nil)
            #expect(try peer == client.localAddress)
        }
    }

    @Test func writeAllsTimeoutIsForTheWhole() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            // Each wait is short; their sum is not.
            let reader = spawn {
                while try !b.read(upTo: 8192).isEmpty { try Gevent.sleep(for: .milliseconds(2)) }
            }
            let large = [UInt8](repeating: 1, count: 64 << 20)
            #expect(socketError { try a.writeAll(large, timeout: .milliseconds(60)) }?.code == .timedOut)
            a.close()
            try reader.kill()
        }
    }

    @Test func readExactlysTimeoutIsForTheWhole() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            let writer = spawn {
                while true {
                    try b.writeAll("x")
                    try Gevent.sleep(for: .milliseconds(2))
                }
            }
            #expect(socketError { _ = try a.readExactly(1 << 20, timeout: .milliseconds(60)) }?.code == .timedOut)
            try writer.kill()
        }
    }

    /// Fact 124.
    @Test func nothingToWriteCannotTimeOut() throws {
        try withNet { _ in
            // Swift deallocates, and so closes, a socket after its last use; this test needs the peer open.
            let (a, b) = try Socket.pair()
            defer { b.close() }
            try fill(a)
            for timeout in [nil, .zero, .nanoseconds(1), .seconds(-1)] as [Duration?] {
                try a.writeAll("", timeout: timeout)
                try a.writeAll([], timeout: timeout)
                #expect(try a.write([], timeout: timeout) == 0)
            }
        }
    }

    @Test func withoutTimeWhatFitsIsWritten() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            try a.writeAll("fits", timeout: .zero)
            #expect(text(try b.read()) == "fits")
            let large = [UInt8](repeating: 1, count: 8 << 20)
            #expect(socketError { try a.writeAll(large, timeout: .zero) }?.code == .wouldBlock)
            #expect(try b.read().isEmpty == false)
        }
    }

    @Test func waitingIsPossibleWithoutReading() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            #expect(try a.waitWritable(timeout: .zero))
            #expect(try !a.waitReadable(timeout: .zero))
            #expect(try !a.waitReadable(timeout: .milliseconds(2)))
            try b.writeAll("x")
            #expect(try a.waitReadable())
            #expect(try a.waitReadable(timeout: .zero))
        }
    }

    @Test func aTimeoutFromOutsidePassesThrough() throws {
        try withNet { _ in
            // Swift deallocates, and so closes, a socket after its last use; this test needs the peer open.
            let (a, b) = try Socket.pair()
            defer { b.close() }
            a.timeout = .seconds(60)
            do {
                try withTimeout(.milliseconds(5)) { _ in _ = try a.read() }
                Issue.record("a read without data succeeded")
            } catch is Timeout {
            }
        }
    }

    // MARK: Connecting

    /// Returns a listener with a full queue: the kernel drops further attempts to connect, which then hang.
    private static func fullListener() throws -> (Socket, [Socket]) {
        let listener = try Socket.listen(on: .loopback(), backlog: 0)
        var queued: [Socket] = []
        for _ in 0..<20 {
            do {
                queued.append(try Socket.connect(to: listener.localAddress, timeout: .milliseconds(30)))
            } catch let error as SocketError where error.code == .timedOut {
                #expect(error.description == "connect to \(try listener.localAddress): timed out")
                return (listener, queued)
            }
        }
        Issue.record("the queue was never full")
        return (listener, queued)
    }

    @Test func connectingTimesOutAndLeavesNothing() throws {
        try withNet { _ in
            let (listener, _) = try Self.fullListener()
            let descriptors = openDescriptors()
            let address = try listener.localAddress
            let killed = spawn { try Socket.connect(to: address) }
            try sleep()
            #expect(openDescriptors().count == descriptors.count + 1)
            try killed.kill()
            #expect(openDescriptors() == descriptors)
            #expect(throws: Timeout.self) {
                try withTimeout(.milliseconds(5)) { _ in _ = try Socket.connect(to: address) }
            }
            #expect(openDescriptors() == descriptors)
        }
    }

    @Test func connectingInSteps() throws {
        try withNet { _ in
            let listener = try Socket.listen(on: .loopback())
            let client = try Socket(family: .ipv4)
            #expect(socketError { try client.connect(to: listener.localAddress, timeout: .zero) }?.code == .wouldBlock)
            #expect(try client.waitWritable(timeout: .seconds(10)))
            try client.connect(to: listener.localAddress, timeout: .zero)
            try client.writeAll("x")
            #expect(text(try listener.accept().socket.read()) == "x")
        }
    }

    @Test func refusedConnectionsNameTheAddress() throws {
        try withNet { _ in
            let listener = try Socket.listen(on: .loopback())
            let address = try listener.localAddress
            listener.close()
            let error = socketError { _ = try Socket.connect(to: address) }
            #expect(error?.code == .connectionRefused)
            #expect(error?.address == address)
            #expect(error?.description == "connect to \(address): Connection refused (ECONNREFUSED 111)")
            #expect(socketError { _ = try Socket.connect(to: .unix("/nonexistent/x")) }?.errno == ENOENT)
            let six = try Socket(family: .ipv6)
            #expect(socketError { try six.connect(to: address) }?.code == .badAddress)
        }
    }

    @Test func aFullUnixQueueIsWaitedFor() throws {
        try withNet { _ in
            let address = try SocketAddress.unix("@gevent-net-full-\(getpid())")
            let listener = try Socket.listen(on: address, backlog: 0)
            var queued: [Socket] = []
            var error: SocketError?
            while error == nil {
                error = socketError { queued.append(try Socket.connect(to: address, timeout: .milliseconds(20))) }
            }
            #expect(error?.code == .timedOut)
            #expect(socketError { _ = try Socket.connect(to: address, timeout: .zero) }?.code == .wouldBlock)
            let late = spawn { try Socket.connect(to: address) }
            try Gevent.sleep(for: .milliseconds(5))
            for _ in queued { _ = try listener.accept() }
            _ = try listener.accept(timeout: .seconds(10))
            late.value?.close()
            try late.join()
            #expect(late.isSuccessful)
        }
    }
}

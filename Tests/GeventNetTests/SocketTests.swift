import Gevent
import GeventNet
import GeventTesting
import Glibc
import Testing

@Suite struct SocketTests {
    @Test func whatIsWrittenIsRead() throws {
        try withNet { _ in
            let (a, b) = try tcpPair()
            try a.writeAll("hello ")
            try a.writeAll("wörld".utf8)
            #expect(text(try b.readExactly(12)) == "hello wörld")
            try b.writeAll([1, 2, 3] as [UInt8])
            try b.writeAll([4, 5] as Set<UInt8>)
            #expect(try a.readExactly(3) == [1, 2, 3])
            #expect(Set(try a.readExactly(2)) == [4, 5])
            try a.shutdown(.write)
            #expect(try b.read().isEmpty)
            #expect(try b.read().isEmpty)
        }
    }

    @Test func readsOfEveryForm() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            try a.writeAll("0123456789")
            var buffer = [UInt8](repeating: 0, count: 4)
            #expect(try buffer.withUnsafeMutableBytes { try b.read(into: $0) } == 4)
            #expect(text(buffer) == "0123")
            var span = buffer.mutableSpan
            var bytes = span.mutableBytes
            #expect(try b.read(into: &bytes) == 4)
            #expect(text(buffer) == "4567")
            #expect(text(try b.withReadBytes(upTo: 1) { Array($0) }) == "8")
            #expect(text(try b.read(upTo: 1 << 20)) == "9")
            #expect(try a.write(buffer.span.bytes) == 4)
            try a.writeAll(buffer.span.bytes)
            #expect(text(try b.readExactly(8)) == "45674567")
        }
    }

    /// Fact 121.
    @Test func aReadYieldsOnlyIfItMust() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            try a.writeAll("x")
            var others = 0
            let other = spawn { others += 1 }
            #expect(text(try b.read(upTo: 1)) == "x")
            #expect(others == 0)
            let writer = spawn { try a.writeAll("y") }
            #expect(text(try b.read(upTo: 1)) == "y")
            #expect(others == 1)
            try joinAll([other, writer])
        }
    }

    @Test func afterAShortReadNothingIsMissed() throws {
        try withNet { _ in
            for (a, b) in [try Socket.pair(), try tcpPair()] {
                // Data that is already available, and a timeout too short to wait for it.
                try a.writeAll("x")
                #expect(text(try b.read(upTo: 100)) == "x")
                try a.writeAll("y")
                #expect(text(try b.read(timeout: .nanoseconds(1))) == "y")
                try a.writeAll("z")
                #expect(text(try b.read(timeout: .zero)) == "z")
                // The end of the stream after data.
                try a.writeAll("w")
                try a.shutdown(.write)
                #expect(text(try b.read()) == "w")
                #expect(try b.read() == [])
            }
        }
    }

    @Test func aShortReadBeforeAResetIsFollowedByIt() throws {
        try withNet { _ in
            let (a, b) = try tcpPair()
            try a.writeAll("x")
            #expect(text(try b.read()) == "x")
            try a.setOption(.linger, to: .zero)
            a.close()
            #expect(socketError { _ = try b.read() }?.errno == ECONNRESET)
        }
    }

    @Test func readExactlyReportsItsProgress() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            try a.writeAll("abc")
            a.close()
            let error = socketError { _ = try b.readExactly(10) }
            #expect(error?.code == .endOfStream)
            #expect(error?.message.contains("3 of 10") == true)
            #expect(try b.readExactly(0) == [])
        }
    }

    @Test func aLargeMessageCrossesSmallBuffers() throws {
        try withNet { _ in
            let (a, b) = try tcpPair()
            let message = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let writer = spawn {
                try a.writeAll(message)
                try a.shutdown(.write)
            }
            #expect(try b.readExactly(message.count) == message)
            #expect(try b.read() == [])
            try writer.get()
        }
    }

    @Test func aReaderAndAWriterAtOnce() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            try fill(a)
            let writer = spawn { try a.writeAll("w") }
            let reader = spawn { text(try a.readExactly(1)) }
            try sleep()
            try b.writeAll("r")
            #expect(try reader.get() == "r")
            try spawn { while !writer.isReady { _ = try b.read(timeout: .seconds(10)) } }.get()
            try writer.get()
        }
    }

    /// Fact 123.
    @Test func aSecondReaderOrWriterIsRefused() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            let reader = spawn { try a.read() }
            try sleep()
            #expect(throws: HubError.self) { try a.read() }
            do {
                _ = try a.read()
            } catch let error as HubError {
                #expect(error.code == .concurrentUse)
            }
            try b.writeAll("for the first")
            #expect(text(try reader.get()) == "for the first")

            try fill(a)
            let writer = spawn { try a.writeAll("x") }
            try sleep()
            do {
                try a.writeAll("y")
                Issue.record("a second writer was accepted")
            } catch let error as HubError {
                #expect(error.code == .concurrentUse)
            }
            b.close()
            try writer.join()
            #expect((writer.error as? SocketError)?.errno == EPIPE)
        }
    }

    @Test func aPeerThatIsGoneIsAnErrorAndNoSignal() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            b.close()
            let error = socketError { try a.writeAll("x") }
            #expect(error?.errno == EPIPE)
            #expect(error?.code == .connectionLost)
            #expect(error?.description == "write: Broken pipe (EPIPE 32)")
        }
    }

    // MARK: Closing

    /// Fact 122.
    @Test func closingWakesWaiters() throws {
        try withNet { _ in
            let (reading, readingPeer) = try Socket.pair()
            let (writing, writingPeer) = try Socket.pair()
            defer { for peer in [readingPeer, writingPeer] { peer.close() } }
            try fill(writing)
            let listener = try Socket.listen(on: .loopback())
            let waits: [(Socket, Greenlet<Void>)] = [
                (reading, spawn { _ = try reading.read() }), (writing, spawn { try writing.writeAll("x") }),
                (listener, spawn { _ = try listener.accept() }),
            ]
            try sleep()
            for (socket, greenlet) in waits {
                socket.close()
                try greenlet.join()
                let error = greenlet.error as? SocketError
                #expect(error?.code == .closed)
                #expect(error?.errno == EBADF)
                #expect(error?.message == "closed in another greenlet")
            }
        }
    }

    @Test func aClosedSocketSaysSo() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            try b.writeAll("x")
            _ = try a.read()
            a.close()
            a.close()
            #expect(a.isClosed)
            #expect(a.fileDescriptor == -1)
            for error in [
                socketError { _ = try a.read() }, socketError { try a.writeAll("x") },
                socketError { _ = try a.accept() },
                socketError { _ = try a.localAddress }, socketError { try a.setOption(.keepAlive, to: true) },
                socketError { try a.shutdown(.both) }, socketError { _ = try a.detach() },
                socketError { _ = try a.read(timeout: .zero) },
            ] {
                #expect(error?.code == .closed)
                #expect(error?.message == "the socket is closed")
            }
            try a.writeAll("")
        }
    }

    @Test func anEventThatCameFirstDoesNotReadAClosedDescriptor() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            let reader = spawn { try a.read() }
            try sleep()
            // The reader is woken and its socket closed before it runs; another file reuses the number at once.
            try b.writeAll("x")
            let closer = spawn { a.close() }
            try joinAll([closer])
            let (c, d) = try Socket.pair()
            try d.writeAll("not for you")
            try reader.join()
            #expect((reader.error as? SocketError)?.code == .closed || reader.value == [UInt8(ascii: "x")])
            c.close()
        }
    }

    @Test func shutdownWakesTheMatchingSide() throws {
        try withNet { _ in
            for makePair in [{ try tcpPair() }, Socket.pair] as [() throws -> (Socket, Socket)] {
                let (a, b) = try makePair()
                let reader = spawn { try a.read() }
                try sleep()
                try a.shutdown(.read)
                #expect(try reader.get(timeout: .seconds(10)) == [])

                let (c, d) = try makePair()
                try fill(c)
                let writer = spawn { try c.writeAll("x") }
                try sleep()
                try c.shutdown(.write)
                try writer.join(timeout: .seconds(10))
                #expect((writer.error as? SocketError)?.errno == EPIPE)
                for peer in [b, d] { peer.close() }
            }
        }
    }

    @Test func detachLeavesTheDescriptorOpen() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            let reader = spawn { try a.read() }
            try sleep()
            let descriptor = try a.detach()
            try reader.join()
            #expect((reader.error as? SocketError)?.code == .closed)
            let again = try Socket(fileDescriptor: descriptor)
            #expect(again.family == .unix)
            try b.writeAll("x")
            #expect(text(try again.read()) == "x")
            #expect(socketError { _ = try Socket(fileDescriptor: 0) }?.errno == ENOTSOCK)
            #expect(socketError { _ = try Socket(fileDescriptor: -1) }?.errno == EBADF)
        }
    }

    @Test func aDroppedSocketIsClosed() throws {
        try withNet { _ in
            for _ in 0..<10 { _ = try Socket.pair() }
        }
    }

    @Test func otherThreadsAreRefused() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            defer { b.close() }
            // The test violates the type system's rule on purpose, to check that it is also enforced at run time.
            nonisolated(unsafe) let foreign = a
            try onFreshThread {
                for use in [
                    { _ = try foreign.read() }, { try foreign.writeAll("x") }, { try foreign.shutdown(.both) },
                    { _ = try foreign.accept() }, { try foreign.connect(to: .loopback(port: 1)) },
                    { _ = try foreign.waitReadable() },
                ] as [() throws -> Void] {
                    do {
                        try use()
                        Issue.record("a foreign thread was accepted")
                    } catch let error as HubError {
                        #expect(error.code == .wrongThread)
                    }
                }
            }
        }
    }

    @Test func closingOnAForeignThreadTraps() async {
        await #expect(processExitsWith: .failure) {
            try withHub(on: .configured) { _ in
                let (a, _) = try Socket.pair()
                // The misuse under test.
                nonisolated(unsafe) let foreign = a
                try onFreshThread { foreign.close() }
            }
        }
    }

    @Test func aKilledReaderLosesNothing() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            let reader = spawn { try a.read() }
            try sleep()
            try reader.kill()
            #expect(reader.exit != nil)
            try b.writeAll("still there")
            #expect(text(try a.read()) == "still there")
        }
    }

    @Test func unixSocketsHaveNames() throws {
        try withNet { _ in
            let path = "/tmp/gevent-net-\(getpid()).sock"
            unlink(path)
            defer { unlink(path) }
            for address in [try SocketAddress.unix(path), try .unix("@gevent-net-\(getpid())")] {
                let listener = try Socket.listen(on: address)
                #expect(try listener.localAddress == address)
                #expect(socketError { _ = try Socket.listen(on: address) }?.code == .addressInUse)
                let client = try Socket.connect(to: address)
                #expect(try client.peerAddress == address)
                let (served, peer) = try listener.accept()
                #expect(peer.description == "unix:")
                try client.writeAll("x")
                #expect(text(try served.read()) == "x")
            }
        }
    }

    @Test func ipv6CarriesBytes() throws {
        try withNet { _ in
            let (a, b) = try tcpPair(SocketAddress("[::1]:0"))
            #expect(try a.peerAddress == b.localAddress)
            #expect(try b.peerAddress.host == "::1")
            try a.writeAll("x")
            #expect(text(try b.read()) == "x")
        }
    }

    @Test func optionsAreTyped() throws {
        try withNet { _ in
            let (a, b) = try tcpPair()
            // On by default, and inherited from the listener.
            #expect(try a.option(.noDelay))
            #expect(try b.option(.noDelay))
            try a.setOption(.noDelay, to: false)
            #expect(try !a.option(.noDelay))
            #expect(try a.option(.linger) == nil)
            try a.setOption(.linger, to: .milliseconds(1500))
            #expect(try a.option(.linger) == .seconds(2))
            try a.setOption(.linger, to: nil)
            #expect(try a.option(.linger) == nil)
            try a.setOption(.receiveBufferSize, to: 10_000)
            #expect(try a.option(.receiveBufferSize) == 20_000)
            try a.setOption(.sendBufferSize, to: 10_000)
            #expect(try a.option(.sendBufferSize) == 20_000)
            try a.setOption(.keepAlive, to: true)
            try a.setOption(.keepAliveIdle, to: .seconds(7))
            try a.setOption(.keepAliveInterval, to: .seconds(8))
            try a.setOption(.keepAliveCount, to: 9)
            try a.setOption(.userTimeout, to: .milliseconds(1234))
            #expect(try a.option(.keepAlive))
            #expect(try a.option(.keepAliveIdle) == .seconds(7))
            #expect(try a.option(.keepAliveInterval) == .seconds(8))
            #expect(try a.option(.keepAliveCount) == 9)
            #expect(try a.option(.userTimeout) == .milliseconds(1234))
            #expect(try !a.option(.reuseAddress))
            #expect(try !a.option(.reusePort))
            let six = try Socket(family: .ipv6)
            try six.setOption(.ipv6Only, to: true)
            #expect(try six.option(.ipv6Only))
            let error = socketError { try Socket.pair().0.setOption(.noDelay, to: true) }
            #expect(error?.operation == "set TCP_NODELAY")
        }
    }

    @Test func aNumberThatWasClosedElsewhereIsWatchedAnew() throws {
        try withNet { _ in
            let (first, firstPeer) = try Socket.pair()
            let number = first.fileDescriptor
            // A wait arms the interest. When the descriptor is closed without the hub's knowledge, the kernel drops the
            // interest.
            let waiting = spawn { try first.read(upTo: 1) }
            try sleep()
            try firstPeer.writeAll("x")
            _ = try waiting.get()
            close(number)
            let (second, secondPeer) = try Socket.pair()
            #expect(second.fileDescriptor == number)
            let reader = spawn { try second.read(upTo: 1) }
            try sleep()
            try secondPeer.writeAll("y")
            let bytes = try withTimeout(.seconds(10)) { _ in try reader.get() }
            #expect(bytes == Array("y".utf8))
            for socket in [firstPeer, second, secondPeer] { socket.close() }
            // The number may belong to another file now, so it must not be closed.
            _ = try first.detach()
        }
    }

    @Test func aDatagramSocketIsRefused() throws {
        try withNet { _ in
            let datagram = socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0)
            defer { close(datagram) }
            let error = #expect(throws: SocketError.self) { try Socket(fileDescriptor: datagram) }
            #expect(error?.errno == EPROTOTYPE)
        }
    }
}

import Gevent
import GeventNet
import GeventTesting
import Glibc
import Testing

@Suite struct SocketErrorAddressTests {
    @Test func anErrorOfAConnectionNamesBothEnds() throws {
        try withNet { _ in
            let (client, server) = try tcpPair()
            let (near, far) = (try server.localAddress, try server.peerAddress)
            let timedOut = try #require(socketError { _ = try server.read(timeout: .milliseconds(1)) })
            #expect(timedOut.description == "read from \(far): timed out")
            #expect(timedOut.peerAddress == far)
            #expect(timedOut.localAddress == near)
            #expect(timedOut.address == nil)
            // The client knows its peer from the connect, and the accepted socket from the accept.
            #expect(socketError { _ = try client.read(timeout: .milliseconds(1)) }?.peerAddress == near)
            #expect(
                socketError { _ = try client.read(timeout: .zero) }?.description == "read from \(near): would block")
            #expect(socketError { _ = try client.readExactly(1, timeout: .milliseconds(1)) }?.localAddress == far)
            // The kernel no longer knows the peer of a reset connection.
            try client.setOption(.linger, to: .zero)
            client.close()
            let lost = try #require(socketError { _ = try server.read() })
            #expect(lost.code == .connectionLost)
            #expect(lost.description == "read from \(far): Connection reset by peer (ECONNRESET 104)")
            #expect(lost.peerAddress == far)
            #expect(socketError { _ = try server.peerAddress }?.errno == ENOTCONN)
            #expect(socketError { try server.writeAll("x") }?.description.hasPrefix("write to \(far): ") == true)
            server.close()
            #expect(socketError { _ = try server.read() }?.description == "read from \(far): the socket is closed")
        }
    }

    @Test func anAdoptedConnectionNamesItsPeerAsLongAsItHasOne() throws {
        try withNet { _ in
            let (client, server) = try tcpPair()
            let far = try server.peerAddress
            let adopted = try Socket(fileDescriptor: server.detach())
            #expect(socketError { _ = try adopted.read(timeout: .milliseconds(1)) }?.peerAddress == far)
            client.close()
            adopted.close()
        }
    }

    @Test func unnamedSocketsHaveNoAddress() throws {
        try withNet { _ in
            // Swift deallocates, and so closes, a socket after its last use; this read needs the peer open.
            let (a, b) = try Socket.pair()
            defer { b.close() }
            let error = try #require(socketError { _ = try a.read(timeout: .milliseconds(1)) })
            #expect(error.peerAddress == nil)
            #expect(error.localAddress == nil)
            #expect(error.description == "read: timed out")
        }
    }

    @Test func aListenersErrorNamesWhereItListens() throws {
        try withNet { _ in
            let listener = try Socket.listen(on: .loopback())
            let address = try listener.localAddress
            let error = socketError { _ = try listener.accept(timeout: .milliseconds(1)) }
            #expect(error?.description == "accept on \(address): timed out")
        }
    }

    @Test func aStringCanBeWrittenInParts() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            #expect(try a.write("grüße") == 7)
            #expect(text(try b.readExactly(7)) == "grüße")
            #expect(try a.write("grüße".dropFirst(2), timeout: .seconds(1)) == 5)
            #expect(text(try b.readExactly(5)) == "üße")
            #expect(try a.write("") == 0)
        }
    }
}
